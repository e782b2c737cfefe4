/** Starts a command as it was judged, with the environment it may have, and shows nothing of the owner's secrets. */
import { stat } from "node:fs/promises";
import type { Clock } from "../platform/clock.ts";
import type { Secret } from "../platform/log.ts";
import type { Pipe, ProcessEnd, ProcessRunner } from "../platform/process.ts";
import { userName } from "../platform/user-name.ts";
import type { Command } from "./command-args.ts";
import type { CommandStop } from "./command-result.ts";
import { type SearchOptions, trustedPath } from "./find-executable.ts";
import { maskSecrets } from "./mask.ts";

export interface CommandHost {
  runner: ProcessRunner;
  clock: Clock;
  search: SearchOptions;
  /** Where commands run unless they say otherwise. */
  home: string;
}

export interface CommandSpec {
  command: Command;
  secretEnv: Readonly<Record<string, Secret>>;
  /** Its reason is a CommandStop. */
  stop: AbortSignal;
  /** Takes what was printed, secrets masked. The command waits until it resolves; it must not reject. */
  output(pipe: Pipe, bytes: Uint8Array): Promise<void>;
  /** When it printed something, by the clock's monotonic time. */
  onPrinted?: () => void;
}

export interface CommandEnd {
  end: ProcessEnd;
  /** Null when it ended by itself. */
  stopped: CommandStop | null;
}

/** Resolves when nothing of it is left and everything printed was taken. */
export async function runCommand(host: CommandHost, spec: CommandSpec): Promise<CommandEnd> {
  const { command, stop } = spec;
  const secrets = Object.entries(spec.secretEnv);
  const values = secrets.map(([, secret]) => secret);
  const masks = { stdout: maskSecrets(values), stderr: maskSecrets(values) };
  const show = async (pipe: Pipe, bytes: Uint8Array) => {
    if (bytes.length > 0) await spec.output(pipe, bytes);
  };
  const [plain, hasHome] = await Promise.all([plainEnvironment(host), isDirectory(host.home)]);
  const running = host.runner.start({
    executable: command.executable,
    name: command.name,
    args: command.args,
    cwd: command.cwd?.self ?? (hasHome ? host.home : "/"),
    env: {
      ...plain,
      ...command.env,
      ...Object.fromEntries(secrets.map(([name, secret]) => [name, secret.reveal()])),
    },
    stdin: command.stdin,
    output(pipe, piece) {
      spec.onPrinted?.();
      return show(pipe, masks[pipe].add(piece));
    },
  });
  stop.addEventListener("abort", running.stop, { once: true });
  if (stop.aborted) running.stop();
  const end = await running.ended.finally(() => stop.removeEventListener("abort", running.stop));
  for (const pipe of ["stdout", "stderr"] as const) await show(pipe, masks[pipe].end());
  // A call that is cancelled while its last words are read has a command that ended by itself.
  const stopped = end.kind !== "not_started" && end.stopped ? (stop.reason as CommandStop) : null;
  return { end, stopped };
}

export interface Limits {
  /** Aborts with `outer`, at the command's own time limit, or after it was silent for too long. */
  signal: AbortSignal;
  /** Silence begins anew. */
  printed(): void;
  /** Its timers are no longer needed. */
  release(): void;
}

export function limitsOf(
  { timeoutMs, idleTimeoutMs }: Pick<Command, "timeoutMs" | "idleTimeoutMs">,
  outer: AbortSignal,
  clock: Clock,
): Limits {
  const stop = new AbortController();
  const over = new AbortController();
  let printedAt = clock.monotonic();
  const withOuter = () => stop.abort(outer.reason);
  outer.addEventListener("abort", withOuter, { once: true });
  if (outer.aborted) withOuter();

  async function limit(afterMs: number): Promise<void> {
    await clock.sleep(afterMs, over.signal);
    if (!over.signal.aborted) stop.abort({ kind: "timeout", afterMs } satisfies CommandStop);
  }
  async function silence(afterMs: number): Promise<void> {
    for (let leftMs = afterMs; leftMs > 0; leftMs = printedAt + afterMs - clock.monotonic()) {
      await clock.sleep(leftMs, over.signal);
      if (over.signal.aborted) return;
    }
    stop.abort({ kind: "silent", afterMs } satisfies CommandStop);
  }
  if (timeoutMs !== null) void limit(timeoutMs);
  if (idleTimeoutMs !== null) void silence(idleTimeoutMs);
  return {
    signal: stop.signal,
    printed() {
      printedAt = clock.monotonic();
    },
    release() {
      outer.removeEventListener("abort", withOuter);
      over.abort();
    },
  };
}

/** What every command gets, and nothing of the daemon's own environment beside. */
export async function plainEnvironment({
  search,
  home,
}: Pick<CommandHost, "search" | "home">): Promise<Record<string, string>> {
  const [path, username] = await Promise.all([trustedPath(search), userName()]);
  const needed = process.platform === "win32" ? ["SystemRoot", "SystemDrive", "ComSpec", "TEMP", "TMP"] : [];
  const kept = needed.flatMap((name) => (process.env[name] ? [[name, process.env[name]] as const] : []));
  const user = username === "" ? {} : { USER: username, LOGNAME: username };
  return { PATH: path, HOME: home, ...user, LANG: "C.UTF-8", ...Object.fromEntries(kept) };
}

const isDirectory = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
