/**
 * Starts programs and leaves nothing of them behind: the only file that spawns. A program runs in a session of its own,
 * gets exactly the environment stated, is slowed to the pace of whoever reads it, and is gone when its end is told.
 */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "./clock.ts";
import { type Pump, pump } from "./output-pump.ts";
import { type Found, findAll, markName, rootOf, signalAll } from "./process-tree.ts";
import { type StartFailure, startFailure, startFailureOf } from "./start-failure.ts";

export type Pipe = "stdout" | "stderr";

export interface ProcessSpec {
  /** Absolute: nothing is looked up. */
  executable: string;
  /** argv[0]: a file that holds many programs goes by it. */
  name: string;
  args: readonly string[];
  cwd: string;
  /** The whole environment, but for one variable by which the process is found again. */
  env: Readonly<Record<string, string>>;
  /** What it reads; `open`: what is written later; null: nothing. */
  stdin: Uint8Array | "open" | null;
  /**
   * Takes what was printed, at most 32 KiB at once and each pipe in its order. The process waits while this does not
   * resolve. A rejection stops the process and becomes that of `ended`.
   */
  output(pipe: Pipe, piece: Uint8Array): Promise<void>;
}

export interface ProcessHandle {
  /** Null when nothing was started. */
  readonly pid: number | null;
  /** Settles once everything printed was handed on and nothing of the process is left that could be ended. */
  readonly ended: Promise<ProcessEnd>;
  /** SIGTERM to all that came from it, SIGKILL where that does not help; `ended` then settles. Twice is the same as once. */
  stop(): void;
  /** Into a stdin that is `open`. False: the process takes no more. */
  write(bytes: Uint8Array): Promise<boolean>;
  closeStdin(): void;
}

export type ProcessEnd =
  | ({ kind: "exited"; code: number } & Remains)
  | ({ kind: "signal"; signal: string } & Remains)
  | StartFailure;

export interface Remains {
  /** It was asked to stop before it had ended. */
  stopped: boolean;
  /** How many processes outlived the one that was started, and were ended. */
  outlived: number;
  /** What could not be ended: another user's, or stuck in the kernel. */
  left: readonly Found[];
}

export interface ProcessRunner {
  start(spec: ProcessSpec): ProcessHandle;
}

/**
 * A program that starts another and stays as its parent: ends it with the daemon, ends all that it leaves behind, and ends
 * as it did. Takes `--report-fd`, where it writes one line of JSON about what it did.
 */
export interface Launcher {
  path: string;
  /**
   * What stands after the launcher's path to start `command`, an absolute path, as `name` with `args`; where `rules` gave a
   * descriptor, the launcher finds it as `rulesFd`.
   */
  args(spec: { command: string; name: string; args: readonly string[] }, rulesFd?: number): readonly string[];
  rules?(): number | null;
}

/** A program that confines itself and then becomes the command: the same process, the same end. */
export interface Wrapper {
  path: string;
  /** What stands after its path to run `command`, an absolute path, as `name` with `args`. */
  args(spec: { command: string; name: string; args: readonly string[] }): readonly string[];
}

export interface ProcessesOptions {
  clock: Clock;
  launcher: Launcher | null;
  /** Stands before a command where there is no launcher. */
  wrapper?: Wrapper | null;
  /** Makes a pipe. Without it a child's output is a socket, on which a program cannot open /dev/stdout anew. */
  makePipe?: () => { read: number; write: number };
}

/** Between SIGTERM and SIGKILL for what is asked to stop. A launcher keeps to the same. */
const stopGraceMs = 5_000;
/** The same for what outlives the program that started it. */
const outlivedGraceMs = 300;
/** How long the kernel may take to end what was killed. */
const killWaitMs = 3_000;
/** How long a pipe may stay open and silent once everything that came from the process is gone. */
const silentPipeMs = 2_000;

export function systemProcesses({ clock, launcher, wrapper = null, makePipe }: ProcessesOptions): ProcessRunner {
  const pause = (ms: number) => clock.sleep(ms, new AbortController().signal);
  return { start: (spec) => start(spec) };

  function start(spec: ProcessSpec): ProcessHandle {
    const mark = randomBytes(8).toString("hex");
    const exit = Promise.withResolvers<Exit>();
    const opened: number[] = [];
    let stopping = false;
    const outputs = makePipe ? { stdout: makePipe(), stderr: makePipe() } : null;
    const command = { command: spec.executable, name: spec.name, args: spec.args };
    let child: Bun.Subprocess<"pipe" | "ignore", "pipe", "pipe">;
    try {
      const stdin = stdinOf(spec.stdin);
      if (typeof stdin === "number") opened.push(stdin);
      const stdio = [stdin, outputs?.stdout.write ?? "pipe", outputs?.stderr.write ?? "pipe"];
      const rules = launcher?.rules?.() ?? null;
      const ofLauncher = launcher ? ["pipe", ...(rules === null ? [] : [rules])] : [];
      child = Bun.spawn({
        cmd: launcher
          ? [launcher.path, "--report-fd", "3", ...launcher.args(command, rules === null ? undefined : 4)]
          : wrapper
            ? [wrapper.path, ...wrapper.args(command)]
            : [spec.executable, ...spec.args],
        ...(launcher || wrapper ? {} : { argv0: spec.name }),
        cwd: spec.cwd,
        env: { ...spec.env, [markName]: mark },
        stdio: [...stdio, ...ofLauncher] as ["ignore", "pipe", "pipe"],
        detached: true,
        windowsHide: true,
        lazy: true, // what nobody reads stays in the pipe
        onExit: (_child, code, signal) => exit.resolve({ code, signal, stopped: stopping }),
      });
    } catch (error) {
      for (const pipe of outputs ? [outputs.stdout, outputs.stderr] : []) closeAll(pipe.read, pipe.write);
      return unstarted(startFailureOf(error, spec));
    } finally {
      closeAll(...opened);
    }
    const root = rootOf(child.pid, mark);
    if (outputs) closeAll(outputs.stdout.write, outputs.stderr.write);
    const pumps = (["stdout", "stderr"] as const).map((pipe) =>
      pump(outputs ? Bun.file(outputs[pipe].read).stream() : child[pipe], (piece) => spec.output(pipe, piece), clock),
    );
    const printed = Promise.all(pumps.map((one) => one.done));

    /** Ends all that came from the process: asks each once, also what is started meanwhile; after `graceMs` insists. */
    async function endAll(graceMs: number): Promise<Found[]> {
      for (const [signal, patienceMs] of [["SIGTERM", graceMs] as const, ["SIGKILL", killWaitMs] as const]) {
        const told = new Set<number>();
        for (let waited = 0, step = 5; ; waited += step, step = Math.min(step * 2, 250)) {
          const there = findAll(root);
          if (there.length === 0) return [];
          signalAll(
            there.filter(({ pid }) => !told.has(pid)),
            signal,
          );
          for (const { pid } of there) told.add(pid);
          if (waited >= patienceMs) break;
          await pause(Math.min(step, patienceMs - waited));
        }
      }
      return findAll(root);
    }

    /** With a launcher this is its work: it hears SIGTERM, and we only look whether it was done. */
    async function end(): Promise<Found[]> {
      if (process.platform === "win32") return endTree(child);
      if (!launcher) return endAll(stopGraceMs);
      signalAll([{ pid: child.pid, command: "" }], "SIGTERM");
      const timer = new AbortController();
      const waited = clock.sleep(stopGraceMs + killWaitMs * 2, timer.signal);
      await Promise.race([exit.promise, waited]);
      timer.abort();
      return endAll(0);
    }

    const asked = Promise.withResolvers<Found[]>();
    const stop = () => {
      if (!stopping) asked.resolve(end());
      stopping = true;
    };

    async function waitForEnd(): Promise<ProcessEnd> {
      // Whoever is gone may be gone from the process table a moment before we are told how.
      const told = new AbortController();
      const toldOrKilled = (gone: boolean) =>
        gone ? Promise.race([exit.promise, clock.sleep(killWaitMs, told.signal).then(() => killed)]) : killed;
      const how = await Promise.race([exit.promise, asked.promise.then((others) => toldOrKilled(others.length === 0))]);
      told.abort();
      let outlived = 0;
      let left: readonly Found[] = [];
      if (stopping) left = await asked.promise;
      else if (!launcher && process.platform !== "win32") {
        const others = findAll(root).filter(({ pid }) => pid !== child.pid);
        outlived = others.length;
        if (outlived > 0) left = await endAll(outlivedGraceMs);
      }
      if (launcher) {
        const report = readReport(child.stdio[3]);
        if (report && !report.started) return startFailure(report.errno ?? 0, spec);
        outlived = report?.ended ?? 0;
        if (report?.left) left = findAll(root);
      }
      if (left.length > 0) for (const one of pumps) one.cut();
      await silence(pumps, printed, clock);
      return { ...endOf(how), stopped: how.stopped, outlived, left };
    }

    const ended = waitForEnd().finally(() => {
      closeStdin();
      if (outputs) closeAll(outputs.stdout.read, outputs.stderr.read);
    });
    printed.catch(stop);

    let takesInput = spec.stdin === "open";
    function closeStdin(): void {
      if (takesInput && child.stdin) Promise.resolve(child.stdin.end()).catch(() => {});
      takesInput = false;
    }

    return {
      pid: child.pid,
      ended,
      stop,
      async write(bytes) {
        if (!takesInput || !child.stdin || child.exitCode !== null || child.signalCode !== null) return false;
        try {
          child.stdin.write(bytes);
          await child.stdin.flush();
          return true;
        } catch {
          return false;
        }
      },
      closeStdin,
    };
  }
}

const unstarted = (failure: StartFailure): ProcessHandle => ({
  pid: null,
  ended: Promise.resolve(failure),
  stop() {},
  write: async () => false,
  closeStdin() {},
});

/** Windows has no signal that asks and no group that is asked: its own program ends a process and what it started. */
async function endTree(child: Pick<Bun.Subprocess, "pid" | "kill">): Promise<Found[]> {
  const command = ["taskkill", "/PID", String(child.pid), "/T", "/F"];
  try {
    await Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "ignore", windowsHide: true }).exited;
  } catch {
    // without it, the process itself must do
  }
  child.kill("SIGKILL");
  return [];
}

interface Exit {
  code: number | null;
  /** A number where the signal has no name. */
  signal: NodeJS.Signals | number | null;
  stopped: boolean;
}

/** What is told of a process that not even SIGKILL could end in time. */
const killed: Exit = { code: null, signal: "SIGKILL", stopped: true };

/** Resolves when all was printed, or when a pipe that nobody of ours holds any more stayed silent for too long. */
async function silence(pumps: readonly Pump[], printed: Promise<unknown>, clock: Clock): Promise<void> {
  const stepMs = 100;
  const over = new AbortController();
  const watch = async () => {
    for (let silentMs = 0; !over.signal.aborted; ) {
      await clock.sleep(stepMs, over.signal);
      silentMs = pumps.some((one) => one.hungry) ? silentMs + stepMs : 0;
      if (silentMs >= silentPipeMs) for (const one of pumps) if (one.hungry) one.cut();
    }
  };
  void watch();
  await printed.finally(() => over.abort());
}

function endOf({ code, signal }: Exit): { kind: "exited"; code: number } | { kind: "signal"; signal: string } {
  if (signal === null) return { kind: "exited", code: code ?? 0 };
  if (typeof signal === "string") return { kind: "signal", signal };
  const realTime = 34; // SIGRTMIN of glibc
  return { kind: "signal", signal: signal >= realTime ? `SIGRTMIN+${signal - realTime}` : `signal ${signal}` };
}

/** A file nobody else can open: unlike a socket it can be opened anew as /dev/stdin, and needs nobody to write into it. */
function stdinOf(stdin: ProcessSpec["stdin"]): "ignore" | "pipe" | number | Uint8Array {
  if (stdin === "open") return "pipe";
  if (stdin === null || stdin.length === 0) return "ignore";
  const path = join(tmpdir(), `aegis-stdin-${randomBytes(8).toString("hex")}`);
  try {
    const written = openSync(path, "wx", 0o600);
    try {
      writeSync(written, stdin);
      return openSync(path, "r");
    } finally {
      closeSync(written);
      rmSync(path, { force: true });
    }
  } catch {
    return stdin; // no room for temporary files: a socket does, for all but opening it anew
  }
}

function closeAll(...descriptors: number[]): void {
  for (const descriptor of descriptors) {
    try {
      closeSync(descriptor);
    } catch {
      // closed already
    }
  }
}

interface Report {
  started: boolean;
  errno?: number;
  ended?: number;
  left?: number;
}

/** The launcher's one line, which is there by the time it has ended. */
function readReport(fd: number | null | undefined): Report | null {
  if (typeof fd !== "number") return null;
  try {
    const line = Buffer.alloc(512);
    return JSON.parse(line.toString("utf8", 0, readSync(fd, line))) as Report;
  } catch {
    return null; // it was killed before it could say anything
  } finally {
    closeAll(fd);
  }
}
