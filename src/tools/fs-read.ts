/** Looks at files and folders without changing them: fs.read, fs.list, fs.stat. */
import { createHash } from "node:crypto";
import type { Stats } from "node:fs";
import { readlink } from "node:fs/promises";
import { z } from "zod";
import { closeDescriptor, readFlags, readFully, statDescriptor } from "../platform/descriptors.ts";
import { quote } from "../policy/quote.ts";
import { done, fsTool, obstacleOf, refused } from "./fs-tool.ts";
import { folderAt } from "./guarded-folder.ts";
import { wholeEnd } from "./output-cap.ts";
import type { Target } from "./path-guard.ts";
import type { Tool } from "./tool.ts";

/** Most bytes of a file in one call, read or written: as base64, and beside the rest of a message, below its limit. */
export const maxChunkBytes = 768 * 1024;

/** Most entries of a folder in one answer. */
const maxEntries = 5_000;

export const pathField = (what: string) => z.string().min(1).describe(`${what} Absolute, without "..".`);
export const position = (what: string) => z.int().min(0).optional().describe(what);

const readSchema = z.strictObject({
  path: pathField("The file."),
  offset: position("Byte to begin at. Default 0."),
  max_bytes: z.int().min(1).max(maxChunkBytes).optional().describe(`Most bytes to read. Default ${maxChunkBytes}.`),
  encoding: z
    .enum(["utf8", "base64"])
    .optional()
    .describe("utf8 (default) replaces what is no text; base64 keeps every byte."),
});

export const fsRead = (): Tool =>
  fsTool({
    name: "fs.read",
    description: "Reads a part of a file. Go on at offset + bytes until eof is true.",
    readOnly: true,
    destructive: false,
    schema: readSchema,
    touches: ({ path }) => [{ path, modes: ["read"], follow: true }],
    async run({ path, offset = 0, max_bytes: asked = maxChunkBytes, encoding = "utf8" }, [target], { maxOutputBytes }) {
      const obstacle = obstacleOf(target, path) ?? notAFile(target, path);
      if (obstacle) return obstacle;
      const descriptor = await target.open(readFlags);
      try {
        const { size } = await statDescriptor(descriptor);
        const wanted = Math.max(1, Math.min(asked, maxOutputBytes));
        // One byte more tells the end also of files that have no size, such as those in /proc.
        const read = await readFully(descriptor, wanted + 1, offset);
        const eof = read.length <= wanted;
        const chunk = read.subarray(0, wanted);
        const whole = encoding === "utf8" && !eof ? chunk.subarray(0, wholeEnd(chunk) || chunk.length) : chunk;
        const content = whole.toString(encoding);
        return done({
          status: "success",
          ...{
            path,
            content,
            encoding,
            offset,
            bytes: whole.length,
            size_bytes: Math.max(size, offset + whole.length),
            eof,
          },
        });
      } finally {
        await closeDescriptor(descriptor);
      }
    },
  });

const listSchema = z.strictObject({
  path: pathField("The folder."),
  after: z.string().optional().describe("Go on after the entry of this name."),
  max_entries: z.int().min(1).max(maxEntries).optional().describe(`Most entries in the answer. Default ${maxEntries}.`),
});

export const fsList = (): Tool =>
  fsTool({
    name: "fs.list",
    description: "Names what a folder holds, sorted by name, one level deep.",
    readOnly: true,
    destructive: false,
    schema: listSchema,
    touches: ({ path }) => [{ path, modes: ["read"], follow: true }],
    async run({ path, after, max_entries: most = maxEntries }, [target]) {
      const obstacle = obstacleOf(target, path);
      if (obstacle) return obstacle;
      if (target.kind !== "directory") return refused(`${quote(path)} is no directory`);
      const all = await folderAt(target.self, target.path).list();
      const following = after === undefined ? all : all.filter(({ name }) => name > after);
      const entries = following.slice(0, most).map((entry) => ({ name: entry.name, file_type: typeName(entry) }));
      return done({
        status: "success",
        path,
        entries,
        truncated: following.length > entries.length,
        total: all.length,
      });
    },
  });

const statSchema = z.strictObject({
  path: pathField("The file, folder or link."),
  follow: z.boolean().optional().describe("Whether a link at the end of the path is followed. Default true."),
  checksum: z.enum(["sha256"]).optional().describe("Also read the file and give the checksum of its content."),
  checksum_bytes: position("Only of so many bytes from its beginning."),
});

export const fsStat = (): Tool =>
  fsTool({
    name: "fs.stat",
    description: "Tells what a path is: type, size, permissions, time of change, and on request a checksum.",
    readOnly: true,
    destructive: false,
    schema: statSchema,
    touches: ({ path, follow = true }) => [{ path, modes: ["read"], follow }],
    async run({ path, checksum, checksum_bytes: length }, [target], { signal }) {
      const obstacle = obstacleOf(target, path);
      if (obstacle) return obstacle;
      const stats = target.stats as Stats;
      if (checksum && target.kind !== "file") return refused(`${quote(path)} is no file, so it has no checksum`);
      const sum = checksum ? await checksumOf(target, length ?? Number.POSITIVE_INFINITY, signal) : null;
      return done({
        status: "success",
        path,
        real_path: target.path,
        file_type: typeName(stats),
        size_bytes: stats.size,
        mode: (stats.mode & 0o7777).toString(8).padStart(4, "0"),
        uid: stats.uid,
        gid: stats.gid,
        modified_at: stats.mtime.toISOString(),
        ...(target.kind === "symlink" && { leads_to: await readlink(target.entry) }),
        ...(sum && { sha256: sum.hex, checksum_bytes: sum.bytes }),
      });
    },
  });

async function checksumOf(
  target: Target,
  length: number,
  signal: AbortSignal,
): Promise<{ hex: string; bytes: number }> {
  const hash = createHash("sha256");
  const descriptor = await target.open(readFlags);
  try {
    let bytes = 0;
    while (bytes < length && !signal.aborted) {
      const part = await readFully(descriptor, Math.min(1024 * 1024, length - bytes), bytes);
      if (part.length === 0) break;
      hash.update(part);
      bytes += part.length;
    }
    return { hex: hash.digest("hex"), bytes };
  } finally {
    await closeDescriptor(descriptor);
  }
}

/** Pipes, sockets and devices are not read: some answer never, some do things when they are opened. */
export function notAFile(target: Target, path: string) {
  if (target.kind === "directory") return refused(`${quote(path)} is a directory`);
  return target.kind === "file" ? null : refused(`${quote(path)} is no regular file`);
}

type Typed = Pick<Stats, "isFile" | "isDirectory" | "isSymbolicLink">;

const typeName = (entry: Typed): string =>
  entry.isFile() ? "File" : entry.isDirectory() ? "Directory" : entry.isSymbolicLink() ? "Symlink" : "Other";
