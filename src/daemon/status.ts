/** What the daemon tells this host's owner: a small file in the state directory, because no port is ever opened. */
import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";

const schema = z.object({
  state: z.enum(["connecting", "connected", "waiting", "stopped"]),
  pid: z.number().int().positive(),
  /** When the process began, in the kernel's own count: a recycled pid is another process. */
  started: z.string(),
  nodeId: z.string(),
  tenantId: z.string(),
  controller: z.string(),
  seal: z.enum(["strict", "compat"]),
  connectedSince: z.string().nullable(),
  lastError: z.string().nullable(),
  retryAt: z.string().nullable(),
  /** Whether tools can read this daemon's identity, and why or what stays open. */
  identity: z.object({ protected: z.boolean(), detail: z.array(z.string()) }),
  /** Whether nothing can execute or write here without an operator's signature; else a context and a tool that can. */
  operatorOnly: z.union([
    z.object({ holds: z.literal(true) }),
    z.object({ holds: z.literal(false), context: z.string(), tool: z.string() }),
  ]),
  /** This host as a line of an operator's known_nodes, and its key as people compare it. */
  knownNode: z.string(),
  keyFingerprint: z.string(),
  paused: z.boolean(),
  draining: z.boolean(),
  activeCalls: z.number().int(),
  queuedCalls: z.number().int(),
  /** Results that the controller has not said it has stored. */
  undeliveredResults: z.number().int().default(0),
  /** Where traces and logs go; null = nowhere. */
  otlp: z.string().nullable().default(null),
  version: z.string(),
  at: z.string(),
});

export type StatusReport = z.infer<typeof schema>;
export type DaemonStatus = StatusReport & { alive: boolean };

const statusPath = (stateDir: string) => join(stateDir, "run", "status.json");

export async function writeStatus(stateDir: string, status: StatusReport): Promise<void> {
  await makeDirectory(join(stateDir, "run"));
  await writeFileAtomic(statusPath(stateDir), `${JSON.stringify(status, null, 2)}\n`);
}

/** Null when no daemon ever ran here, or its file is damaged. `alive` is about the process, not about its connection. */
export async function readStatus(stateDir: string): Promise<DaemonStatus | null> {
  const text = await readFile(statusPath(stateDir), "utf8").catch(() => null);
  if (text === null) return null;
  try {
    const status = schema.parse(JSON.parse(text));
    return { ...status, alive: status.state !== "stopped" && (await processStart(status.pid)) === status.started };
  } catch {
    return null;
  }
}

/** When `pid` began, as an opaque text; null when there is no such process. */
export async function processStart(pid: number): Promise<string | null> {
  if (process.platform === "linux") {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
    // The second field is the program's name in brackets and may hold anything; the 22nd is the start time.
    const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
    const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "");
    const space = await readlink("/proc/self/ns/pid").catch(() => "");
    return fields?.[19] && fields[0] !== "Z" ? `${boot.trim()} ${space} ${fields[19]}` : null;
  }
  try {
    process.kill(pid, 0);
    return "running";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM" ? "running" : null;
  }
}
