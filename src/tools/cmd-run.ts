/** Runs one command of the host, exactly as policy has judged it. */
import { stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { win32 } from "node:path";
import type { Clock } from "../platform/clock.ts";
import type { Pipe, ProcessRunner } from "../platform/process.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { type Command, commandSchema, readCommand } from "./command-args.ts";
import { type CommandStop, commandResult } from "./command-result.ts";
import { trustedPath } from "./find-executable.ts";
import { maskSecrets } from "./mask.ts";
import { capOutput } from "./output-cap.ts";
import { inputSchema } from "./parse-args.ts";
import { failed } from "./results.ts";
import type { Tool, ToolContext, ToolResult } from "./tool.ts";

/** Where bare names are looked for. */
export const systemPath =
  process.platform === "win32"
    ? ["System32", "", "System32\\Wbem", "System32\\WindowsPowerShell\\v1.0"]
        .map((folder) => win32.join(process.env.SystemRoot ?? "C:\\Windows", folder))
        .join(win32.delimiter)
    : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface CmdRunOptions {
  runner: ProcessRunner;
  clock: Clock;
  /** Directories for bare names, as in PATH; those that this user could change are passed over. */
  path: string;
  home: string;
}

export function cmdRun({ runner, clock, path, home }: CmdRunOptions): Tool {
  const search = { path, uid: process.getuid?.() ?? null };
  return {
    descriptor: {
      name: "cmd.run",
      description: "Runs one command on the host and returns what it printed and how it ended.",
      inputSchema: inputSchema(commandSchema),
      readOnly: false,
      destructive: true,
      fleetCapable: true,
    },
    async prepare(args) {
      const read = await readCommand(args, search);
      if (read.kind === "invalid_args") return read;
      const { command } = read;
      const dispose = async () => command.cwd?.close();
      async function run(context: ToolContext): Promise<ToolResult> {
        try {
          return command.obstacle === null
            ? await runCommand(command, context)
            : failed("invalid_args", command.obstacle);
        } finally {
          await dispose();
        }
      }
      return { kind: "ready", call: { accesses: command.accesses, dispose, run } };
    },
  };

  async function runCommand(command: Command, context: ToolContext): Promise<ToolResult> {
    const secrets = Object.entries(context.secretEnv ?? {});
    const env = {
      ...(await plainEnvironment(search, home)),
      ...command.env,
      ...Object.fromEntries(secrets.map(([name, secret]) => [name, secret.reveal()])),
    };
    const maxBytes = Math.min(context.maxOutputBytes, command.maxOutputBytes ?? Number.POSITIVE_INFINITY);
    const values = secrets.map(([, secret]) => secret);
    const pipes = {
      stdout: { cap: capOutput(maxBytes), mask: maskSecrets(values) },
      stderr: { cap: capOutput(maxBytes), mask: maskSecrets(values) },
    };
    const stop = stopSignal(context.signal, command, clock);

    /** Once it is to stop, what it still prints is kept, and no reader may delay its end. */
    async function show(pipe: Pipe, bytes: Uint8Array): Promise<void> {
      if (bytes.length === 0) return;
      pipes[pipe].cap.add(bytes);
      if (!stop.signal.aborted) await untilAbort(context.output(pipe, bytes), stop.signal);
    }

    const running = runner.start({
      executable: command.executable,
      name: command.name,
      args: command.args,
      cwd: command.cwd?.self ?? ((await isDirectory(home)) ? home : "/"),
      env,
      stdin: command.stdin,
      output(pipe, piece) {
        stop.printed();
        return show(pipe, pipes[pipe].mask.add(piece));
      },
    });
    stop.signal.addEventListener("abort", running.stop, { once: true });
    if (stop.signal.aborted) running.stop();
    try {
      const end = await running.ended;
      // A call that is cancelled while its last words are read has a command that ended by itself.
      const stopped = end.kind !== "not_started" && end.stopped ? (stop.signal.reason as CommandStop) : null;
      for (const pipe of ["stdout", "stderr"] as const) await show(pipe, pipes[pipe].mask.end());
      const [stdout, stderr] = [pipes.stdout.cap.captured(), pipes.stderr.cap.captured()];
      return commandResult({ name: command.name, end, stopped, stdout, stderr });
    } finally {
      stop.release();
    }
  }
}

interface StopSignal {
  /** Its reason is a CommandStop. */
  signal: AbortSignal;
  /** Silence begins anew. */
  printed(): void;
  /** Its timers are no longer needed. */
  release(): void;
}

/** Aborts with the call, at the command's own time limit, or after it was silent for too long. */
function stopSignal(call: AbortSignal, { timeoutMs, idleTimeoutMs }: Command, clock: Clock): StopSignal {
  const stop = new AbortController();
  const over = new AbortController();
  let printedAt = clock.monotonic();
  const withCall = () => stop.abort(call.reason);
  call.addEventListener("abort", withCall, { once: true });
  if (call.aborted) withCall();

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
      call.removeEventListener("abort", withCall);
      over.abort();
    },
  };
}

/** What every command gets, and nothing of the daemon's own environment beside. */
async function plainEnvironment(search: { path: string; uid: number | null }, home: string) {
  const path = await trustedPath(search);
  const username = userName();
  const needed = process.platform === "win32" ? ["SystemRoot", "SystemDrive", "ComSpec", "TEMP", "TMP"] : [];
  const kept = needed.flatMap((name) => (process.env[name] ? [[name, process.env[name]] as const] : []));
  const user = username === "" ? {} : { USER: username, LOGNAME: username };
  return { PATH: path, HOME: home, ...user, LANG: "C.UTF-8", ...Object.fromEntries(kept) };
}

/** Empty for a user id that no name belongs to. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return "";
  }
}

const isDirectory = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
