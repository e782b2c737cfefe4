/**
 * Commands that outlive the call that started them, and streams and reconnects, but not the daemon. A job belongs to the
 * tenant and the security context of its call; what it prints waits on disk, within bounds, for whoever asks.
 */
import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Secret } from "../platform/log.ts";
import { makeDirectory } from "../platform/private-file.ts";
import type { Pipe } from "../platform/process.ts";
import type { Command } from "./command-args.ts";
import { type CommandEnd, type CommandHost, limitsOf, runCommand } from "./command-process.ts";
import type { CommandStop } from "./command-result.ts";
import { openSpill, type Spill } from "./spill.ts";
import type { CallOwner } from "./tool.ts";

/**
 * What is kept at once, running and ended together: with 2 MiB on disk each, all of them are at most 64 MiB. One owner
 * may have half of them. Ended ones stay for an hour unless their place is needed.
 */
export const jobLimits = { jobs: 32, jobsOfOneOwner: 16, keptMs: 3600_000, defaultTimeoutMs: 3600_000 } as const;

export interface Job {
  id: string;
  owner: CallOwner;
  /** What it was started as, for a list. */
  command: { name: string; args: readonly string[] };
  /** Epoch milliseconds. */
  startedAt: number;
  deadlineAt: number;
  output: Readonly<Record<Pipe, Spill>>;
  /** Null while it runs. */
  readonly end: CommandEnd | null;
  /** Resolves when it has ended. */
  ended: Promise<CommandEnd>;
  /** Resolves when it has printed or ended since `seen` was its `changes`; or when `signal` aborts. */
  changed(seen: number, signal: AbortSignal): Promise<void>;
  readonly changes: number;
  stop(reason: CommandStop): void;
}

export interface Jobs {
  /** Null: there are too many, and all of them run. */
  start(owner: CallOwner, command: Command, secretEnv: Readonly<Record<string, Secret>>): Promise<Job | null>;
  /** Another owner's is not there. */
  get(owner: CallOwner, id: string): Job | undefined;
  /** Those of one owner, oldest first. */
  list(owner: CallOwner): readonly Job[];
  /** Forgets one that has ended and whose end was told. */
  forget(job: Job): Promise<void>;
  /** No new ones from now on; stops all and resolves when nothing of them is left. */
  close(): Promise<void>;
}

/** `directory` is made, and emptied of what a daemon that is gone has left there, when the first job starts. */
export function createJobs(host: CommandHost, directory: string): Jobs {
  const { clock } = host;
  const all = new Map<string, Kept>();
  let isClosed = false;
  let isReady = false;
  const isOf = (owner: CallOwner) => (job: Job) =>
    job.owner.tenant === owner.tenant && job.owner.context === owner.context;

  async function drop(job: Kept): Promise<void> {
    if (!all.delete(job.id)) return;
    await Promise.all([job.output.stdout.close(), job.output.stderr.close()]);
  }

  /** Drops what is over its time, and the oldest ended one while there is no place. False: all places are in use. */
  async function makePlace(owner: CallOwner): Promise<boolean> {
    const ended = [...all.values()].filter((job) => job.endedAt !== null);
    const old = ended.filter((job) => clock.monotonic() - (job.endedAt ?? 0) >= jobLimits.keptMs);
    for (const job of old) await drop(job);
    const isFull = () => all.size >= jobLimits.jobs;
    const hasMany = () => [...all.values()].filter(isOf(owner)).length >= jobLimits.jobsOfOneOwner;
    for (const job of ended) {
      if (hasMany() ? isOf(owner)(job) : isFull()) await drop(job);
    }
    return !isFull() && !hasMany();
  }

  async function open(id: string): Promise<Record<Pipe, Spill>> {
    if (!isReady) await rm(directory, { recursive: true, force: true });
    await makeDirectory(directory);
    isReady = true;
    const stdout = await openSpill(join(directory, `${id}.out`));
    try {
      return { stdout, stderr: await openSpill(join(directory, `${id}.err`)) };
    } catch (error) {
      await stdout.close();
      throw error;
    }
  }

  /** One after the other, so that two do not take the same last place. */
  let turn: Promise<unknown> = Promise.resolve();

  async function begin(...[owner, command, secretEnv]: Parameters<Jobs["start"]>): Promise<Job | null> {
    if (isClosed || !(await makePlace(owner))) return null;
    const id = randomUUID();
    const output = await open(id);
    const job = keptJob({ id, owner, command, output, clock });
    all.set(id, job);
    job.begin(host, command, secretEnv);
    return job;
  }

  return {
    start(...what) {
      const started = turn.then(() => begin(...what));
      turn = started.catch(() => {});
      return started;
    },
    get(owner, id) {
      const job = all.get(id);
      return job && isOf(owner)(job) ? job : undefined;
    },
    list: (owner) => [...all.values()].filter(isOf(owner)),
    async forget(job) {
      const kept = all.get(job.id);
      if (kept && kept.end !== null) await drop(kept);
    },
    async close() {
      isClosed = true;
      for (const job of all.values()) job.stop({ kind: "shutdown" });
      await Promise.all([...all.values()].map((job) => job.ended));
      for (const job of [...all.values()]) await drop(job);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

interface Kept extends Job {
  /** Monotonic; null while it runs. */
  readonly endedAt: number | null;
  begin(host: CommandHost, command: Command, secretEnv: Readonly<Record<string, Secret>>): void;
}

interface KeptInput {
  id: string;
  owner: CallOwner;
  command: Command;
  output: Record<Pipe, Spill>;
  clock: Clock;
}

function keptJob({ id, owner, command, output, clock }: KeptInput): Kept {
  const stop = new AbortController();
  const ended = Promise.withResolvers<CommandEnd>();
  const timeoutMs = command.timeoutMs ?? jobLimits.defaultTimeoutMs;
  const startedAt = clock.now();
  let end: CommandEnd | null = null;
  let endedAt: number | null = null;
  let changes = 0;
  let waiting: Array<() => void> = [];
  const change = () => {
    changes++;
    for (const resolve of waiting.splice(0)) resolve();
  };

  async function run(host: CommandHost, spec: Command, secretEnv: Readonly<Record<string, Secret>>): Promise<void> {
    const limits = limitsOf({ timeoutMs, idleTimeoutMs: spec.idleTimeoutMs }, stop.signal, clock);
    try {
      end = await runCommand(host, {
        ...{ command: spec, secretEnv, stop: limits.signal, onPrinted: limits.printed },
        async output(pipe, bytes) {
          await output[pipe].add(bytes);
          change();
        },
      });
    } catch (error) {
      end = { end: { kind: "not_started", reason: "failed", message: AegisError.from(error).message }, stopped: null };
    }
    limits.release();
    endedAt = clock.monotonic();
    change();
    ended.resolve(end);
    await spec.cwd?.close();
  }

  return {
    ...{ id, owner, command: { name: command.name, args: command.args }, startedAt, output },
    deadlineAt: startedAt + timeoutMs,
    ended: ended.promise,
    get end() {
      return end;
    },
    get endedAt() {
      return endedAt;
    },
    get changes() {
      return changes;
    },
    changed(seen, signal) {
      if (changes !== seen || signal.aborted) return Promise.resolve();
      return new Promise((resolve) => {
        const done = () => {
          signal.removeEventListener("abort", done);
          waiting = waiting.filter((one) => one !== done);
          resolve();
        };
        waiting.push(done);
        signal.addEventListener("abort", done, { once: true });
      });
    },
    stop: (reason) => stop.abort(reason),
    begin: (host, spec, secretEnv) => void run(host, spec, secretEnv),
  };
}
