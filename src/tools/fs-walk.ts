/** Goes through all that lies below a folder: follows no link, enters no other world, and asks policy about every entry. */
import { constants } from "node:fs";
import { join } from "node:path";
import { closeDescriptor, openDescriptor, readFlags, statDescriptor } from "../platform/descriptors.ts";
import { type Folder, folderAt } from "./guarded-folder.ts";
import type { Target } from "./path-guard.ts";
import type { ToolContext } from "./tool.ts";

export interface Entry {
  /** Its real path, which policy has allowed. */
  path: string;
  /** Relative to where the walk began, with `/`. */
  relative: string;
  name: string;
  kind: "file" | "directory" | "other";
  /** Opens a file as it lies in its folder now; null when it is none any more. The descriptor is the caller's. */
  open(): Promise<number | null>;
}

/** What was left out on the way, each counted. */
export interface Skipped {
  /** Not allowed by policy; what lies below is not even counted. */
  denied: number;
  /** Could not be opened, or lies too deep. */
  unreadable: number;
}

/** Deeper is not gone: one descriptor is held for each level. */
const maxDepth = 64;

/** They hold no files of anybody, and some of theirs never end. */
const otherWorlds: readonly string[] = process.platform === "linux" ? ["/proc", "/sys", "/dev"] : ["/dev"];

/** Sorted by name within each folder, a folder before what lies in it. Ends early when the call is to stop. */
export async function* walk(
  start: Target,
  { allows, signal }: Pick<ToolContext, "allows" | "signal">,
  skipped: Skipped,
): AsyncGenerator<Entry> {
  yield* below(folderAt(start.self, start.path), "", 0);

  async function* below(folder: Folder, above: string, depth: number): AsyncGenerator<Entry> {
    for (const found of await folder.list()) {
      if (signal.aborted) return;
      const { name } = found;
      const path = join(folder.path, name);
      if (!allows({ kind: "path", mode: "read", path })) {
        skipped.denied++;
        continue;
      }
      const relative = above === "" ? name : `${above}/${name}`;
      const kind = found.isFile() ? "file" : found.isDirectory() ? "directory" : "other";
      yield { path, relative, name, kind, open: () => openFile(folder.entry(name)) };
      if (kind !== "directory" || otherWorlds.includes(path)) continue;
      const inside = depth < maxDepth ? await folder.enter(name).catch(() => null) : null;
      if (!inside) {
        skipped.unreadable++;
        continue;
      }
      try {
        yield* below(inside, relative, depth + 1);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === undefined) throw error;
        skipped.unreadable++;
      } finally {
        await inside.close();
      }
    }
  }
}

async function openFile(entry: string): Promise<number | null> {
  const descriptor = await openDescriptor(entry, readFlags | (constants.O_NOFOLLOW ?? 0)).catch(() => null);
  if (descriptor === null) return null;
  if ((await statDescriptor(descriptor)).isFile()) return descriptor;
  await closeDescriptor(descriptor);
  return null;
}
