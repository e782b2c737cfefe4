/** Puts a new executable in the place of the old one in one step, and back again. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { chmod, copyFile, open, readdir, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AegisError } from "../errors.ts";
import { syncDirectory } from "../platform/private-file.ts";

/** The one before, kept beside for `--rollback`. */
export const previousPath = (executable: string): string => `${executable}.previous`;

const maxEntryBytes = 512 * 1024 * 1024;

/** The `aegis` or `aegis.exe` inside a release archive, which is a verified file. */
export async function executableIn(archive: string): Promise<Uint8Array> {
  const bytes = await readFile(archive);
  const wanted = /\/aegis(?:\.exe)?$/;
  let found: Uint8Array | undefined;
  if (archive.endsWith(".zip")) {
    const { unzipSync } = await import("fflate");
    found = Object.values(
      unzipSync(bytes, { filter: ({ name, originalSize }) => wanted.test(name) && originalSize <= maxEntryBytes }),
    )[0];
  } else {
    const files = await new Bun.Archive(bytes).files();
    const file = [...files].find(([name]) => wanted.test(`/${name}`))?.[1];
    found = file && (await file.bytes());
  }
  if (found && found.length > 0) return found;
  throw new AegisError("unprocessable", `${basename(archive)} holds no aegis executable`);
}

/**
 * Replaces `executable` (a symbolic link is followed, so the link stays) and keeps the old one as `.previous`. A program
 * that runs keeps the file it runs from. `prove` gets the path of the new one before anything is replaced; it may reject.
 * Whatever fails leaves the old one in place.
 */
export async function placeExecutable(
  executable: string,
  content: Uint8Array,
  prove: (path: string) => Promise<void> = async () => {},
): Promise<void> {
  const path = await realpath(executable);
  const fresh = besidePath(path);
  try {
    await removeReplaced(path);
    const file = await open(fresh, "wx", 0o755);
    try {
      await file.writeFile(content);
      await file.chmod(0o755);
      await file.sync();
    } finally {
      await file.close();
    }
    await prove(fresh);
    await keepPrevious(path);
    await replace(fresh, path);
  } catch (cause) {
    await rm(fresh, { force: true });
    if (cause instanceof AegisError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const hint =
      code === "EACCES" || code === "EPERM" || code === "EROFS"
        ? `run it as the user who owns ${dirname(path)}`
        : "nothing was changed";
    throw new AegisError(code === "ENOSPC" ? "unavailable" : "forbidden", `cannot replace ${path}: ${message}`, {
      cause,
      hint,
    });
  }
}

/**
 * Where a new file is written before it takes its place. Nobody can foresee the name, and it is made exclusively: where
 * others may write into the folder too, no link of theirs is written through. Windows runs only what ends in `.exe`.
 */
const besidePath = (path: string): string =>
  `${path}.new-${randomBytes(6).toString("hex")}${path.endsWith(".exe") ? ".exe" : ""}`;

async function keepPrevious(path: string): Promise<void> {
  const copy = besidePath(path);
  try {
    await copyFile(path, copy, constants.COPYFILE_EXCL);
    await chmod(copy, (await stat(path)).mode & 0o777);
    await rename(copy, previousPath(path));
  } finally {
    await rm(copy, { force: true });
  }
}

/** Windows removes no executable that runs, so what an earlier update renamed away may still lie there. */
async function removeReplaced(path: string): Promise<void> {
  const prefix = `${basename(path)}.running-`;
  for (const name of await readdir(dirname(path)))
    if (name.startsWith(prefix)) await rm(join(dirname(path), name), { force: true }).catch(() => {});
}

/** Windows lets a running executable be renamed, but not be overwritten. */
async function replace(fresh: string, path: string): Promise<void> {
  if (process.platform === "win32") {
    const running = `${path}.running-${Date.now()}`;
    await rename(path, running);
    await rename(fresh, path).catch(async (cause: unknown) => {
      await rename(running, path);
      throw cause;
    });
    await rm(running, { force: true }).catch(() => {});
  } else await rename(fresh, path);
  await syncDirectory(dirname(path));
}

/** Puts the one before back. False when there is none. */
export async function rollBack(executable: string): Promise<boolean> {
  const path = await realpath(executable);
  const previous = previousPath(path);
  if (!(await stat(previous).catch(() => null))) return false;
  await replace(previous, path);
  return true;
}

/** How this executable came here, when a package manager owns it. */
export async function packageManagerOf(executable: string): Promise<"homebrew" | null> {
  const path = await realpath(executable).catch(() => executable);
  return /\/(?:Cellar|\.linuxbrew|linuxbrew)\//.test(join(path, "/")) ? "homebrew" : null;
}
