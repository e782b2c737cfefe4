/** Makes, removes and renames files and folders: fs.create_dir, fs.delete, fs.move. */
import { link, rename, rmdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { quote } from "../policy/quote.ts";
import { pathField } from "./fs-read.ts";
import { done, fsTool, obstacleOf, refused } from "./fs-tool.ts";
import { inNewPlace, missingProblem } from "./fs-write.ts";
import { type Folder, folderAt } from "./guarded-folder.ts";
import type { Target } from "./path-guard.ts";
import type { Tool, ToolContext } from "./tool.ts";

export const fsCreateDir = (): Tool =>
  fsTool({
    name: "fs.create_dir",
    description: "Makes a folder, and those above it that are missing. One that exists is left as it is.",
    readOnly: false,
    destructive: false,
    schema: z.strictObject({ path: pathField("The folder.") }),
    touches: ({ path }) => [{ path, modes: ["write"], follow: true }],
    async run({ path }, [target]) {
      const made = (created: boolean) => done({ status: "success", path, created });
      if (target.kind === "directory") return made(false);
      if (target.kind !== "missing") return refused(`${quote(path)} exists and is no directory`);
      const problem = missingProblem(target, path);
      if (problem) return problem;
      await inNewPlace(target, async ({ entry, name }) => {
        const folder = await folderAt(entry("").slice(0, -1), target.folderPath).make(name);
        await folder.close();
      });
      return made(true);
    },
  });

const deleteSchema = z.strictObject({
  path: pathField("What to delete. A link is deleted itself, not what it leads to."),
  recursive: z.boolean().optional().describe("Delete a folder with all that lies in it. Default false."),
});

export const fsDelete = (): Tool =>
  fsTool({
    name: "fs.delete",
    description: "Deletes a file or a link, or with recursive a folder and all below it. There is no way back.",
    readOnly: false,
    destructive: true,
    schema: deleteSchema,
    touches: ({ path }) => [{ path, modes: ["write"], follow: false }],
    async run({ path, recursive = false }, [target], context) {
      const obstacle = obstacleOf(target, path);
      if (obstacle) return obstacle;
      if (target.kind !== "directory") {
        await unlink(target.entry);
        return done({ status: "success", path, deleted: 1 });
      }
      if (!recursive) return refused(`${quote(path)} is a directory: set recursive to delete it and all below it`);
      if (target.path === "/" || target.entry === target.self)
        return refused("the root of the file system is not deleted");
      const held = await firstHeldBack(target, context, ["write"]);
      if (held !== null)
        return refused(`nothing was deleted, because policy does not let this call write ${quote(held)} below it`);
      const removed = await emptied(folderAt(target.self, target.path), context);
      if (removed.stoppedAt === null) await rmdir(target.entry);
      if (removed.stoppedAt === null) return done({ status: "success", path, deleted: removed.count + 1 });
      return refused(
        `${removed.count} entries were deleted, then ${quote(removed.stoppedAt)} was not: it is new, and policy keeps it`,
      );
    },
  });

const moveSchema = z.strictObject({
  path: pathField("What to move. A link is moved itself, not what it leads to."),
  destination: pathField("Its new path, not the folder to put it in."),
  overwrite: z.boolean().optional().describe("Replace a file that is there already. Default false."),
});

export const fsMove = (): Tool =>
  fsTool({
    name: "fs.move",
    description: "Renames a file, a link or a folder within one file system.",
    readOnly: false,
    destructive: true,
    schema: moveSchema,
    touches: ({ path, destination }) => [
      { path, modes: ["read", "write"], follow: false },
      { path: destination, modes: ["write"], follow: false },
    ],
    async run({ path, destination, overwrite = false }, [from, to], context) {
      const obstacle = obstacleOf(from, path);
      if (obstacle || !to) return obstacle ?? refused("destination is missing");
      if (to.kind !== "missing" && !overwrite)
        return refused(`${quote(destination)} exists already: set overwrite to replace it`);
      const problem = to.kind === "missing" ? missingProblem(to, destination) : null;
      if (problem) return problem;
      // A folder takes what policy keeps in it to a place where the same rules may not find it.
      const held = from.kind === "directory" ? await firstHeldBack(from, context, ["read", "write"]) : null;
      if (held !== null)
        return refused(`nothing was moved, because policy does not let this call touch ${quote(held)} below it`);
      if (to.kind !== "missing") await rename(from.entry, to.entry);
      else await inNewPlace(to, ({ entry, name }) => moveTo(from, entry(name)));
      return done({ status: "success", path, destination });
    },
  });

/** Never replaces what appeared meanwhile, where the system can tell: a second name fails if the first is taken. */
async function moveTo(from: Target, entry: string): Promise<void> {
  if (from.kind !== "file") return rename(from.entry, entry);
  try {
    await link(from.entry, entry);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EPERM" || code === "ENOTSUP" || code === "EOPNOTSUPP") return rename(from.entry, entry);
    throw error;
  }
  await unlink(from.entry);
}

/** The first entry below that policy does not let this call touch, or null. */
async function firstHeldBack(
  target: Target,
  { allows, signal }: ToolContext,
  modes: readonly ("read" | "write")[],
): Promise<string | null> {
  return within(folderAt(target.self, target.path));

  async function within(folder: Folder): Promise<string | null> {
    for (const found of await folder.list()) {
      if (signal.aborted) return null;
      const path = join(folder.path, found.name);
      if (!modes.every((mode) => allows({ kind: "path", mode, path }))) return path;
      if (!found.isDirectory()) continue;
      const inside = await folder.enter(found.name);
      const held = await within(inside).finally(() => void inside.close());
      if (held !== null) return held;
    }
    return null;
  }
}

/** Deletes what lies in a folder. Each entry is judged once more: it may have come after the first look. */
async function emptied(folder: Folder, context: ToolContext): Promise<{ count: number; stoppedAt: string | null }> {
  let count = 0;
  for (const found of await folder.list()) {
    const path = join(folder.path, found.name);
    if (context.signal.aborted || !context.allows({ kind: "path", mode: "write", path }))
      return { count, stoppedAt: path };
    if (found.isDirectory()) {
      const inside = await folder.enter(found.name);
      const removed = await emptied(inside, context).finally(() => void inside.close());
      count += removed.count;
      if (removed.stoppedAt !== null) return { count, stoppedAt: removed.stoppedAt };
      await rmdir(folder.entry(found.name));
    } else await unlink(folder.entry(found.name));
    count++;
  }
  return { count, stoppedAt: null };
}
