/** Gives a file new content in one step: whoever reads it sees the old or the new, never half. */
import { randomBytes } from "node:crypto";
import { constants, fchmod, fchown, ftruncate } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { promisify } from "node:util";
import { closeDescriptor, openDescriptor, syncDescriptor, writeFully } from "../platform/descriptors.ts";
import type { Target } from "./path-guard.ts";

export const changeMode = promisify(fchmod);
const changeOwner = promisify(fchown);
export const truncateDescriptor = promisify(ftruncate);

const { O_CREAT, O_EXCL, O_WRONLY } = constants;
const O_NOFOLLOW = constants.O_NOFOLLOW ?? 0;
export const createFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;

/** Where a new file is to be put: the way to its folder, and its name there. */
export interface Place {
  entry(name: string): string;
  name: string;
}

/**
 * Written beside under a name of its own, made durable, renamed. Keeps the permissions of `old`, and its owner where that
 * is possible. A file with more names, or of another user, is overwritten in place instead: renaming would separate it
 * from them.
 */
export async function replaceFile(
  place: Place,
  bytes: Uint8Array,
  old: Target | null,
  mode: number | null,
): Promise<void> {
  const stats = old?.stats ?? null;
  const own = process.getuid?.() ?? 0;
  if (old && stats && (stats.nlink > 1 || (stats.uid !== own && own !== 0))) return overwrite(old, bytes);
  const beside = place.entry(`.${place.name.slice(0, 100)}.${randomBytes(6).toString("hex")}.aegis-part`);
  let descriptor: number;
  try {
    descriptor = await openDescriptor(beside, createFlags, mode ?? (stats ? stats.mode & 0o777 : 0o666));
  } catch (error) {
    if (old && (error as NodeJS.ErrnoException).code === "EACCES") return overwrite(old, bytes);
    throw error;
  }
  try {
    try {
      await writeFully(descriptor, bytes, 0);
      if (stats && own === 0) await changeOwner(descriptor, stats.uid, stats.gid);
      const wanted = mode ?? (stats ? stats.mode & 0o7777 : null);
      if (wanted !== null) await changeMode(descriptor, wanted);
      await syncDescriptor(descriptor);
    } finally {
      await closeDescriptor(descriptor);
    }
    await rename(beside, place.entry(place.name));
  } catch (error) {
    await rm(beside, { force: true });
    throw error;
  }
}

async function overwrite(old: Target, bytes: Uint8Array): Promise<void> {
  const descriptor = await old.open(O_WRONLY);
  try {
    await writeFully(descriptor, bytes, 0);
    await truncateDescriptor(descriptor, bytes.length);
    await syncDescriptor(descriptor);
  } finally {
    await closeDescriptor(descriptor);
  }
}
