/** Writes files that are private from their first byte and never half written. */
import { chmod, lstat, mkdir, open, readdir, rename, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AegisError } from "../errors.ts";

export const PRIVATE_FILE = 0o600;
export const PRIVATE_DIR = 0o700;
export const PUBLIC_FILE = 0o644;

/**
 * Replaces `path` in one step: written beside, created exclusively and 0600, set to `mode` whatever the umask says,
 * fsynced, renamed, directory fsynced. Refuses to replace anything but a regular file.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = PRIVATE_FILE): Promise<void> {
  const existing = await lstat(path).catch(() => null);
  if (existing && !existing.isFile()) {
    throw new AegisError("conflict", `${path} exists and is not a regular file`, {
      hint: `move it away: mv ${path} ${path}.old`,
    });
  }
  const temporary = `${path}.${crypto.randomUUID()}.tmp`;
  try {
    const file = await open(temporary, "wx", PRIVATE_FILE);
    try {
      await file.writeFile(data);
      await file.chmod(mode);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true });
    throw new AegisError("internal", `cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Makes `path` and what is missing above it; `path` itself ends with exactly `mode`, whatever the umask says. */
export async function makeDirectory(path: string, mode = PRIVATE_DIR): Promise<void> {
  await mkdir(path, { recursive: true, mode });
  await chmod(path, mode);
}

/** Removes a folder of ours that holds nothing but files; twice is the same as once. */
export async function removeFlatFolder(path: string): Promise<void> {
  // One by one: wine lacks the call that a recursive removal begins with.
  for (const name of await readdir(path).catch(() => [])) await rm(join(path, name), { force: true });
  await rmdir(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause;
  });
}

/** A rename is durable only once its directory is. Windows has no such call and needs none. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const directory = await open(join(path), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
