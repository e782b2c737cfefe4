/** A folder that is held while its entries are visited: what is entered below it lies in it, whatever names say meanwhile. */
import { constants, type Dirent } from "node:fs";
import { lstat, mkdir, readdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { closeDescriptor, O_PATH, openDescriptor } from "../platform/descriptors.ts";

export interface Folder {
  /** Its real path when it was entered. */
  path: string;
  /** Leads to an entry of it; a link there must not be followed by whoever uses this. */
  entry(name: string): string;
  /** Sorted by name. */
  list(): Promise<Dirent[]>;
  /** The folder of that name in it; rejects with ENOTDIR or ELOOP for anything else. */
  enter(name: string): Promise<Folder>;
  /** Enters it, and makes it when it is not there. */
  make(name: string): Promise<Folder>;
  close(): Promise<void>;
}

/** `through` leads to the folder and stays with whoever has it: `close` of what is returned leaves it alone. */
export function folderAt(through: string, path: string): Folder {
  return through.startsWith("/proc/self/fd/") ? held(through, path, async () => {}) : named(path);
}

const folderFlags = O_PATH | (constants.O_DIRECTORY ?? 0) | (constants.O_NOFOLLOW ?? 0);

function held(through: string, path: string, close: () => Promise<void>): Folder {
  const entry = (name: string) => `${through}/${name}`;
  const enter = async (name: string) => {
    const descriptor = await openDescriptor(entry(name), folderFlags);
    return held(`/proc/self/fd/${descriptor}`, join(path, name), () => closeDescriptor(descriptor));
  };
  return {
    path,
    entry,
    enter,
    close,
    list: () => sorted(through),
    make: async (name) => {
      await makeUnlessThere(entry(name));
      return enter(name);
    },
  };
}

/** Where descriptors have no names: compared when entered, and trusted until the next comparison. */
function named(path: string): Folder {
  const entry = (name: string) => join(path, name);
  const enter = async (name: string) => {
    const below = entry(name);
    const isFolder = (await lstat(below)).isDirectory();
    if (isFolder && (await realpath(below)) === below) return named(below);
    throw Object.assign(new Error(`${below} is no folder`), { code: "ENOTDIR" });
  };
  return {
    path,
    entry,
    enter,
    close: async () => {},
    list: () => sorted(path),
    make: async (name) => {
      await makeUnlessThere(entry(name));
      return enter(name);
    },
  };
}

async function sorted(path: string): Promise<Dirent[]> {
  const entries = await readdir(path, { withFileTypes: true });
  return entries.sort((left, right) => (left.name < right.name ? -1 : left.name > right.name ? 1 : 0));
}

async function makeUnlessThere(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}
