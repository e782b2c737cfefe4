/**
 * Keeps two daemons from sharing one state directory: `run/daemon.json` names the one that has it. A command that acts
 * where no daemon runs has `run/lock` meanwhile.
 */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { sha256 } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import { makeDirectory, PRIVATE_FILE } from "../platform/private-file.ts";
import { processStart } from "./status.ts";

const schema = z.object({
  pid: z.number().int().positive(),
  started: z.string(),
  id: z.string().regex(/^[0-9a-f]{1,32}$/),
});
type Holder = z.infer<typeof schema>;

const fileOf = { daemon: "daemon.json", command: "lock" } as const;
/** Who has the directory: a daemon, for as long as it runs, or a command that changes it. */
export type LockKind = keyof typeof fileOf;

const lockPath = (stateDir: string, kind: LockKind) => join(stateDir, "run", fileOf[kind]);

export interface Lock {
  /** False once another process took the directory over. */
  held(): Promise<boolean>;
  release(): Promise<void>;
}

/** The daemon or command that has this directory, if one is alive. */
export async function lockHolder(stateDir: string, kind: LockKind = "daemon"): Promise<{ pid: number } | null> {
  const holder = parsed(await text(lockPath(stateDir, kind)));
  return holder && (await isAlive(holder)) ? { pid: holder.pid } : null;
}

/** Throws `conflict` while another of its kind is alive. What a dead one left behind is taken over. */
export async function acquireLock(stateDir: string, kind: LockKind = "daemon"): Promise<Lock> {
  const path = lockPath(stateDir, kind);
  await makeDirectory(join(stateDir, "run"));
  const id = randomBytes(8).toString("hex");
  const own: Holder = { pid: process.pid, started: (await processStart(process.pid)) ?? "unknown", id };
  const draft = `${path}.${id}.tmp`;
  await writeFile(draft, `${JSON.stringify(own)}\n`, { flag: "wx", mode: PRIVATE_FILE });
  try {
    for (let attempt = 1; !(await appear(draft, path)) && !(await succeed(stateDir, kind, draft)); attempt++)
      if (attempt === maxAttempts) throw taken(stateDir, kind, null);
  } finally {
    await rm(draft, { force: true });
  }
  const held = async () => parsed(await text(path))?.id === id;
  return {
    held,
    async release() {
      if (await held()) await rm(path, { force: true });
    },
  };
}

/** Each attempt that fails without an answer means that another process moved on in between. */
const maxAttempts = 10;

/** A link appears whole or not at all, and never over another. False: there is one already. */
async function appear(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") return false;
    throw new AegisError("config_invalid", `cannot write ${path}: ${message}`, { cause });
  }
}

/**
 * Takes the place of a dead holder. A dead one has exactly one successor, whoever makes the file that is named after it;
 * a successor that died before it was done has one in turn. False: try again from the start.
 */
async function succeed(stateDir: string, kind: LockKind, draft: string): Promise<boolean> {
  const path = lockPath(stateDir, kind);
  const left = await text(path);
  const claims: string[] = [];
  for (let predecessor = left; ; ) {
    if (predecessor === null || claims.length > maxAttempts) return false;
    const holder = parsed(predecessor);
    if (holder && (await isAlive(holder))) throw taken(stateDir, kind, holder);
    const claim = `${path}.after-${holder?.id ?? Buffer.from(sha256(predecessor)).toString("hex", 0, 8)}`;
    claims.unshift(claim);
    if (await appear(draft, claim)) break;
    predecessor = await text(claim);
  }
  const [own = ""] = claims;
  // Whoever was faster has replaced the file before it gave its claim up.
  const first = (await text(path)) === left;
  if (first) await rename(draft, path);
  for (const claim of first ? claims : [own]) await rm(claim, { force: true });
  return first;
}

/** Null when there is no such file. */
const text = (path: string): Promise<string | null> => readFile(path, "utf8").catch(() => null);

const isAlive = async ({ pid, started }: Holder): Promise<boolean> => (await processStart(pid)) === started;

function taken(stateDir: string, kind: LockKind, holder: Holder | null): AegisError {
  const who = holder ? `: process ${holder.pid}` : "";
  if (kind === "daemon")
    return new AegisError(
      "conflict",
      `a daemon runs with ${stateDir} already${who}; two would take each other's stream`,
      { hint: "aegis edge status shows what it does; stop it before another is started" },
    );
  return new AegisError("conflict", `another command changes ${stateDir} already${who}`, {
    hint: "wait until it is done, then try again",
  });
}

function parsed(content: string | null): Holder | null {
  if (content === null) return null;
  try {
    return schema.parse(JSON.parse(content));
  } catch {
    return null;
  }
}
