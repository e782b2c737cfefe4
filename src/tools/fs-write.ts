/** Writes files: fs.write. */
import { constants } from "node:fs";
import { basename } from "node:path";
import { z } from "zod";
import {
  closeDescriptor,
  openDescriptor,
  statDescriptor,
  syncDescriptor,
  writeFully,
} from "../platform/descriptors.ts";
import { quote } from "../policy/quote.ts";
import { maxChunkBytes, notAFile, pathField, position } from "./fs-read.ts";
import { type Answer, done, fsTool, obstacleOf, refused } from "./fs-tool.ts";
import { type Folder, folderAt } from "./guarded-folder.ts";
import type { Target } from "./path-guard.ts";
import { changeMode, createFlags, type Place, replaceFile, truncateDescriptor } from "./replace-file.ts";
import type { Tool } from "./tool.ts";

const writeSchema = z.strictObject({
  path: pathField("The file. Folders above it that do not exist are made."),
  content: z.string().optional().describe("The text to write."),
  content_base64: z.base64().optional().describe("The bytes to write, instead of content."),
  offset: position(
    "Write in place, beginning at this byte, at most the file's present size. Without it the whole file is replaced in one step.",
  ),
  truncate: z.boolean().optional().describe("With offset: cut the file off after what was written. Default false."),
  mode: z
    .string()
    .regex(/^0?[0-7]{3}$/, 'permissions in octal, such as "0644"')
    .optional()
    .describe('Permissions in octal, such as "0755". Default: those it has, or the usual ones of a new file.'),
});

export const fsWrite = (): Tool =>
  fsTool({
    name: "fs.write",
    description: "Writes a file: all of it in one step, or a part of it at an offset.",
    readOnly: false,
    destructive: true,
    schema: writeSchema,
    touches: ({ path }) => [{ path, modes: ["write"], follow: true }],
    async run({ path, content, content_base64: base64, offset, truncate = false, mode: octal }, [target]) {
      if ((content === undefined) === (base64 === undefined))
        return refused("either content or content_base64 is needed");
      if (offset === undefined && truncate)
        return refused("truncate belongs to offset: without it the file is replaced");
      const bytes = base64 === undefined ? Buffer.from(content ?? "") : Buffer.from(base64, "base64");
      if (bytes.length > maxChunkBytes)
        return refused(`content has ${bytes.length} bytes, the limit is ${maxChunkBytes}: write the rest with offset`);
      const mode = octal === undefined ? null : Number.parseInt(octal, 8);
      if (target.kind === "missing") {
        const problem = missingProblem(target, path);
        if (problem) return problem;
        if (offset !== undefined) return inNewPlace(target, (place) => create(place, bytes, offset, mode, path));
        await inNewPlace(target, (place) => replaceFile(place, bytes, null, mode));
      } else {
        const problem = notAFile(target, path);
        if (problem) return problem;
        if (offset !== undefined)
          return writePart(await target.open(constants.O_WRONLY), bytes, offset, truncate, mode, path);
        await replaceFile(placeOf(target), bytes, target, mode);
      }
      return written(path, bytes.length, bytes.length);
    },
  });

const written = (path: string, bytes: number, size: number): Answer =>
  done({ status: "success", path, bytes_written: bytes, size_bytes: size });

export const missingProblem = (target: Target, path: string): Answer | null =>
  target.obstacle === "ENOENT" ? null : obstacleOf(target, path);

/** Where an existing target lies. */
export const placeOf = ({ folder, folderPath, path }: Target): Place => {
  return { entry: folderAt(folder, folderPath).entry, name: basename(path) };
};

/** Makes what folders are missing above `target`, then lets `make` put it there. */
export async function inNewPlace<T>(target: Target, make: (place: Place) => Promise<T>): Promise<T> {
  const names = [...target.missing];
  const name = names.pop() ?? "";
  let folder: Folder = folderAt(target.folder, target.folderPath);
  try {
    for (const above of names) {
      const next = await folder.make(above);
      await folder.close();
      folder = next;
    }
    return await make({ entry: folder.entry, name });
  } finally {
    await folder.close();
  }
}

async function create(
  place: Place,
  bytes: Uint8Array,
  offset: number,
  mode: number | null,
  path: string,
): Promise<Answer> {
  if (offset > 0) return refused(`${quote(path)} does not exist, so nothing can be written at offset ${offset}`);
  const descriptor = await openDescriptor(place.entry(place.name), createFlags, mode ?? 0o666);
  return writePart(descriptor, bytes, 0, false, mode, path);
}

/** Closes `descriptor`. A gap is refused: it would be filled with zeros that nobody wrote. */
async function writePart(
  descriptor: number,
  bytes: Uint8Array,
  offset: number,
  truncate: boolean,
  mode: number | null,
  path: string,
): Promise<Answer> {
  try {
    const { size } = await statDescriptor(descriptor);
    if (offset > size)
      return refused(`offset ${offset} lies beyond the end of ${quote(path)}, which has ${size} bytes`);
    await writeFully(descriptor, bytes, offset);
    const end = offset + bytes.length;
    if (truncate && end < size) await truncateDescriptor(descriptor, end);
    if (mode !== null) await changeMode(descriptor, mode);
    await syncDescriptor(descriptor);
    return written(path, bytes.length, truncate ? end : Math.max(size, end));
  } finally {
    await closeDescriptor(descriptor);
  }
}
