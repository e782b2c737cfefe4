/** Brings what was written to a file onto the disk: one call for all who wait, and nobody else waits for it. */
import { type FileHandle, open } from "node:fs/promises";

export interface DiskSync {
  /** Resolves once everything that was written before this call is on the disk. */
  synced(): Promise<void>;
  close(): Promise<void>;
}

/** Disks take a second order while they carry out the first; more would only be the same again. */
const maxAtOnce = 2;

/** `path` is opened when it is first needed: by then it is there. */
export function diskSync(path: string, openFile: (path: string) => Promise<FileHandle> = openToSync): DiskSync {
  let file: Promise<FileHandle> | null = null;
  const running = new Set<Promise<void>>();
  /** Not begun yet, so it covers what is written until then. */
  let next: Promise<void> | null = null;

  function begin(): Promise<void> {
    file ??= openFile(path);
    const one: Promise<void> = file.then((handle) => handle.datasync()).finally(() => running.delete(one));
    running.add(one);
    return one;
  }

  return {
    synced() {
      if (next !== null) return next;
      if (running.size < maxAtOnce) return begin();
      next = Promise.race(running)
        .catch(() => {})
        .then(() => {
          next = null;
          return begin();
        });
      return next;
    },
    async close() {
      await Promise.allSettled([...running, next]);
      await file?.then((handle) => handle.close()).catch(() => {});
    },
  };
}

const openToSync = (path: string): Promise<FileHandle> => open(path, "r+");
