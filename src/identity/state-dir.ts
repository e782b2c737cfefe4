/** What lies where in an edge's state directory, and who may touch it: `~/.aegis/edge`. */
import { chmod, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { edgeFileNames } from "../platform/paths.ts";
import { makeDirectory, PRIVATE_DIR, PRIVATE_FILE, PUBLIC_FILE } from "../platform/private-file.ts";

export interface StatePaths {
  dir: string;
  config: string;
  key: string;
  publicKey: string;
  /** There only while a rotation is unfinished. */
  nextKey: string;
  token: string;
  /** Left behind by the peer; ours never keeps the token it enrolled with. */
  enrollmentJwt: string;
  controllerKeys: string;
  /** Old keys. */
  archive: string;
  secrets: string;
  /** Status, jobs, outbox, log, requests. */
  run: string;
  logs: string;
}

export function statePaths(dir: string): StatePaths {
  const at = (name: string) => join(dir, name);
  return {
    dir,
    config: at(edgeFileNames.config),
    key: at(edgeFileNames.key),
    publicKey: at(edgeFileNames.publicKey),
    nextKey: at(edgeFileNames.nextKey),
    token: at(edgeFileNames.token),
    enrollmentJwt: at(edgeFileNames.enrollmentJwt),
    controllerKeys: at(edgeFileNames.controllerKeys),
    archive: at("archive"),
    secrets: at("secrets"),
    run: at("run"),
    logs: at("logs"),
  };
}

const privateFiles = new Set<string>([
  edgeFileNames.key,
  edgeFileNames.nextKey,
  edgeFileNames.token,
  edgeFileNames.enrollmentJwt,
  edgeFileNames.controllerKeys,
]);

/** The mode of a file right below the state directory. */
const fileMode = (name: string): number =>
  privateFiles.has(name) || name.endsWith(".bak") ? PRIVATE_FILE : PUBLIC_FILE;

/** Directories whose content is nobody else's business, file by file. */
const privateDirectories = ["secrets", "archive", "run"] as const;

/** Makes what every state directory has. `logs` is the service manager's. */
export async function makeStateDir(dir: string): Promise<void> {
  await makeDirectory(dir);
  for (const name of privateDirectories) await makeDirectory(join(dir, name));
}

/**
 * Compares owner and modes with what they must be, closes what is too open, and says so. Throws on what a mode cannot
 * mend: a directory or file that belongs to somebody else, or something of the wrong kind.
 */
export async function checkStateDir(dir: string): Promise<string[]> {
  const found = await lookAt(dir);
  if (!found)
    throw new AegisError("not_enrolled", `this host is not enrolled: ${dir} does not exist`, {
      hint: "aegis edge enroll TOKEN",
    });
  if (!found.isDirectory()) throw new AegisError("config_invalid", `${dir} is not a directory`);
  const warnings: string[] = [];
  const check = async (path: string, allowed: number) => warnings.push(...(await closed(path, allowed)));
  await check(dir, PRIVATE_DIR);
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    const isPrivate = privateDirectories.some((name) => name === entry.name);
    if (entry.isFile()) await check(path, fileMode(entry.name));
    if (!entry.isDirectory()) continue;
    await check(path, isPrivate ? PRIVATE_DIR : 0o755);
    if (!isPrivate) continue;
    for (const inner of await readdir(path, { withFileTypes: true }))
      if (inner.isFile() || inner.isDirectory())
        // The launcher lies in run/ and is executed.
        await check(join(path, inner.name), inner.isDirectory() || entry.name === "run" ? PRIVATE_DIR : PRIVATE_FILE);
  }
  return warnings;
}

async function lookAt(path: string) {
  return await stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ELOOP") return null;
    throw new AegisError("config_invalid", `cannot look at ${path}: ${cause.message}`, { cause });
  });
}

/** Throws when it belongs to another user; null when there is no such thing. */
export async function requireOwn(path: string) {
  const self = process.geteuid?.();
  const found = await lookAt(path);
  if (!found || self === undefined || found.uid === self) return found;
  throw new AegisError("config_invalid", `${path} belongs to user ${found.uid}, and this program runs as ${self}`, {
    hint: `run it as that user, or take it over: sudo chown -R ${self} ${quoted(path)}`,
  });
}

/** Windows keeps access in lists that are set once, when the directory is made; there is no owner to compare. */
async function closed(path: string, allowed: number): Promise<string[]> {
  if (process.geteuid === undefined) return [];
  const found = await requireOwn(path);
  if (!found) return [];
  const mode = found.mode & 0o7777;
  if ((mode & ~allowed) === 0) return [];
  try {
    await chmod(path, mode & allowed);
  } catch (cause) {
    // What a daemon is writing right now may have its final name already.
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw new AegisError("config_invalid", `cannot close ${path} to others: ${(cause as Error).message}`, { cause });
  }
  return [`${path} had mode ${octal(mode)}, which is too open; it is ${octal(mode & allowed)} now`];
}

const octal = (mode: number): string => `0${mode.toString(8)}`;
const quoted = (path: string): string => (/^[\w/.@-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);
