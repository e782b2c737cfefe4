import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The executable that `npm test` has built. */
export const executable = join(import.meta.dir, "../../dist/aegis");

export interface Outcome {
  exit: number;
  stdout: string;
  stderr: string;
}

export interface Running {
  pid: number;
  /** What it wrote so far. */
  stdout(): string;
  stderr(): string;
  /** Resolves once `pattern` is in what it wrote; rejects, with all of that, when it ends first or takes longer. */
  until(pattern: RegExp, withinMs?: number): Promise<RegExpExecArray>;
  signal(name: NodeJS.Signals): void;
  /** Its exit is 128 + n after signal n, as a shell would say it. */
  ended: Promise<Outcome>;
  /** SIGTERM unless stated, and its exit. */
  stop(signal?: NodeJS.Signals): Promise<number>;
}

export interface Machine {
  home: string;
  env: Record<string, string>;
  run(...args: string[]): Promise<Outcome>;
  /** With these bytes on stdin. */
  feed(input: string, ...args: string[]): Promise<Outcome>;
  start(...args: string[]): Running;
  /** On a terminal of its own; what it shows is `stdout()`, and `type` is a person. */
  onTerminal(...args: string[]): Running & { type(text: string): void };
  /** Another program than the executable. */
  startProgram(command: string[]): Running;
}

export interface MachineOptions {
  /** Words before the executable, such as `ip netns exec NAME`. */
  before?: readonly string[];
  /** Another executable than the one that was built for this machine. */
  executable?: string;
}

export interface Playground {
  folder: string;
  /** A home of its own: another machine, as far as aegis can see. */
  machine(name: string, env?: Record<string, string>, options?: MachineOptions): Machine;
  /** Ends what was started and removes everything. */
  close(): Promise<void>;
}

/** Homes below one temporary folder, and the processes that were started in them. */
export function playground(): Playground {
  if (!existsSync(executable)) throw new Error("dist/aegis is missing. Try: npm run build");
  const folder = mkdtempSync(join(tmpdir(), "aegis-walk-"));
  const processes = new Set<Running>();

  /** What a process wrote, and who waits for something in it. */
  function observed(command: readonly string[]) {
    const written = { stdout: "", stderr: "" };
    let over = false;
    const waiting = new Set<(late?: boolean) => void>();
    const tell = () => {
      for (const look of [...waiting]) look();
    };
    return {
      written,
      add(pipe: "stdout" | "stderr", text: string) {
        written[pipe] += text;
        tell();
      },
      end() {
        over = true;
        tell();
      },
      until: (pattern: RegExp, withinMs = 60_000) =>
        new Promise<RegExpExecArray>((resolve, reject) => {
          const look = (late = false) => {
            const all = written.stdout + written.stderr;
            const found = pattern.exec(all);
            const why = over ? "ended before" : late ? `did not say within ${withinMs} ms` : null;
            if (found) resolve(found);
            else if (why !== null) reject(new Error(`${command.join(" ")} ${why} ${pattern}:\n${all}`));
            else return;
            clearTimeout(patience);
            waiting.delete(look);
          };
          const patience = setTimeout(look, withinMs, true);
          waiting.add(look);
          look();
        }),
    };
  }

  function kept(child: Bun.Subprocess, seen: ReturnType<typeof observed>, ended: Promise<Outcome>): Running {
    const { written, until } = seen;
    const signal = (name: NodeJS.Signals) => child.kill(name);
    const running: Running = {
      ...{ pid: child.pid, until, signal, ended },
      stdout: () => written.stdout,
      stderr: () => written.stderr,
      async stop(name = "SIGTERM") {
        signal(name);
        return (await ended).exit;
      },
    };
    processes.add(running);
    void ended.then(() => processes.delete(running));
    return running;
  }

  function start(command: string[], env: Record<string, string>, input?: string): Running {
    const child = Bun.spawn(command, {
      cwd: env.HOME ?? folder,
      env,
      stdin: input === undefined ? "ignore" : new Blob([input]),
      stdout: "pipe",
      stderr: "pipe",
    });
    const seen = observed(command);
    const { written, add, end } = seen;
    const read = async (stream: ReadableStream<Uint8Array>, pipe: "stdout" | "stderr") => {
      const decoder = new TextDecoder();
      for await (const chunk of stream) add(pipe, decoder.decode(chunk, { stream: true }));
    };
    const pipes = Promise.all([read(child.stdout, "stdout"), read(child.stderr, "stderr")]);
    const ended = (async (): Promise<Outcome> => {
      const exit = await child.exited;
      await pipes;
      end();
      return { exit, ...written };
    })();
    return kept(child, seen, ended);
  }

  function startOnTerminal(command: string[], env: Record<string, string>) {
    const seen = observed(command);
    const { written, add, end } = seen;
    const decoder = new TextDecoder();
    const child = Bun.spawn(command, {
      cwd: env.HOME ?? folder,
      env,
      terminal: { cols: 100, rows: 40, data: (_, chunk) => add("stdout", decoder.decode(chunk, { stream: true })) },
    });
    const ended = (async (): Promise<Outcome> => {
      const exit = await child.exited;
      end();
      child.terminal?.close();
      return { exit, ...written };
    })();
    return { ...kept(child, seen, ended), type: (text: string) => void child.terminal?.write(text) };
  }

  return {
    folder,
    machine(name, extra = {}, options = {}) {
      const home = join(folder, name);
      mkdirSync(home, { recursive: true });
      const env = { HOME: home, PATH: process.env.PATH ?? "", TMPDIR: folder, ...extra };
      const aegis = [...(options.before ?? []), options.executable ?? executable];
      return {
        home,
        env,
        run: (...args) => start([...aegis, ...args], env).ended,
        feed: (input, ...args) => start([...aegis, ...args], env, input).ended,
        start: (...args) => start([...aegis, ...args], env),
        onTerminal: (...args) => startOnTerminal([...aegis, ...args], { ...env, TERM: "xterm" }),
        startProgram: (command) => start(command, env),
      };
    },
    async close() {
      for (const running of processes) running.signal("SIGTERM");
      const stuck = [...processes].map(({ ended }) => ended);
      const patience = Bun.sleep(10_000).then(() => "stuck");
      if ((await Promise.race([Promise.all(stuck), patience])) === "stuck")
        for (const running of processes) running.signal("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Process ids whose command line contains `text`. */
export function processesWith(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(text);
      } catch {
        return false; // it ended meanwhile
      }
    })
    .map(Number);
}

/** The TCP and UDP sockets of a process, by what the kernel says of them. */
export function socketsOf(pid: number): { listening: string[]; connected: string[]; datagram: string[] } {
  const inodes = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkOrEmpty(`/proc/${pid}/fd/${fd}`))?.[1];
    if (inode !== undefined) inodes.add(inode);
  }
  const rows = (table: string) =>
    readFileSync(`/proc/${pid}/net/${table}`, "utf8")
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => inodes.has(fields[9] ?? ""));
  const tcp = [...rows("tcp"), ...rows("tcp6")];
  const remote = (fields: string[]) => fields[2] ?? "";
  return {
    listening: tcp.filter((fields) => fields[3] === "0A").map(remote),
    connected: tcp.filter((fields) => fields[3] === "01").map(remote),
    datagram: [...rows("udp"), ...rows("udp6")].map(remote),
  };
}

function readlinkOrEmpty(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** Asks again until it is so, for the few things that are told by nobody. */
export async function eventually(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const until = performance.now() + withinMs;
  while (!(await isSo())) {
    if (performance.now() > until) throw new Error(`not within ${withinMs} ms: ${what}`);
    await Bun.sleep(20);
  }
}
