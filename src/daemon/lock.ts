/** Keeps two daemons from sharing one state directory: `run/daemon.json` names the one that has it. */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { makeDirectory, PRIVATE_FILE } from "../platform/private-file.ts";
import { processStart } from "./status.ts";

const schema = z.object({ pid: z.number().int().positive(), started: z.string(), id: z.string() });
type Holder = z.infer<typeof schema>;

const lockPath = (stateDir: string) => join(stateDir, "run", "daemon.json");

export interface Lock {
  /** False once another process took the directory over. */
  held(): Promise<boolean>;
  release(): Promise<void>;
}

/** The daemon that has this directory, if one is alive. */
export async function lockHolder(stateDir: string): Promise<{ pid: number } | null> {
  const holder = parsed(await readFile(lockPath(stateDir), "utf8").catch(() => ""));
  return holder && (await isAlive(holder)) ? { pid: holder.pid } : null;
}

/** Throws `conflict` while another daemon is alive. What a dead one left behind is taken over. */
export async function acquireLock(stateDir: string): Promise<Lock> {
  const path = lockPath(stateDir);
  await makeDirectory(join(stateDir, "run"));
  const id = randomBytes(8).toString("hex");
  const own: Holder = { pid: process.pid, started: (await processStart(process.pid)) ?? "unknown", id };
  const draft = `${path}.${id}.tmp`;
  await writeFile(draft, `${JSON.stringify(own)}\n`, { flag: "wx", mode: PRIVATE_FILE });
  try {
    for (let attempt = 0; ; attempt++) {
      // A link appears whole or not at all, and never over another.
      const taken = await link(draft, path).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code === "EEXIST") return false;
          throw new AegisError("config_invalid", `cannot write ${path}: ${error.message}`, { cause: error });
        },
      );
      if (taken) break;
      const text = await readFile(path, "utf8").catch(() => "");
      const holder = parsed(text);
      if ((holder && (await isAlive(holder))) || attempt >= maxAttempts) throw running(stateDir, holder);
      await removeStale(path, text, id);
    }
  } finally {
    await rm(draft, { force: true });
  }
  const held = async () => parsed(await readFile(path, "utf8").catch(() => ""))?.id === id;
  return {
    held,
    async release() {
      if (await held()) await rm(path, { force: true });
    },
  };
}

const maxAttempts = 5;

/** Moves the dead one's file away; if it was not that file any more, whoever was faster gets it back. */
async function removeStale(path: string, text: string, id: string): Promise<void> {
  const aside = `${path}.${id}.stale`;
  const moved = await rename(path, aside).then(
    () => true,
    () => false,
  );
  if (!moved) return;
  const found = await readFile(aside, "utf8").catch(() => "");
  if (found !== text) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

const isAlive = async ({ pid, started }: Holder): Promise<boolean> => (await processStart(pid)) === started;

const running = (stateDir: string, holder: Holder | null): AegisError =>
  new AegisError(
    "conflict",
    `a daemon runs with ${stateDir} already${holder ? `: process ${holder.pid}` : ""}; two would take each other's stream`,
    { hint: "aegis edge status; to stop it: aegis edge service uninstall, or end the process" },
  );

function parsed(text: string): Holder | null {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
