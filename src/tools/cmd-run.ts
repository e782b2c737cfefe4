/** Runs one command of the host, exactly as policy has judged it. */
import { win32 } from "node:path";
import type { Clock } from "../platform/clock.ts";
import type { ProcessRunner } from "../platform/process.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { type Command, commandSchema, readCommand } from "./command-args.ts";
import { type CommandHost, limitsOf, runCommand } from "./command-process.ts";
import { commandResult } from "./command-result.ts";
import { follow, jobResult } from "./job-tools.ts";
import type { Jobs } from "./jobs.ts";
import { capOutput } from "./output-cap.ts";
import { inputSchema } from "./parse-args.ts";
import { failed } from "./results.ts";
import type { StopReason, Tool, ToolContext, ToolResult } from "./tool.ts";

/** Where bare names are looked for. */
export const systemPath =
  process.platform === "win32"
    ? ["System32", "", "System32\\Wbem", "System32\\WindowsPowerShell\\v1.0"]
        .map((folder) => win32.join(process.env.SystemRoot ?? "C:\\Windows", folder))
        .join(win32.delimiter)
    : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface CmdRunOptions extends CommandHostOptions {
  /** What outlives its call goes there; it must have been made for the same host. */
  jobs: Jobs;
}

export interface CommandHostOptions {
  runner: ProcessRunner;
  clock: Clock;
  /** Directories for bare names, as in PATH; those that this user could change are passed over. */
  path: string;
  home: string;
}

/** What commands and jobs of one daemon have in common. */
export const commandHost = ({ runner, clock, path, home }: CommandHostOptions): CommandHost => ({
  ...{ runner, clock, home },
  search: { path, uid: process.getuid?.() ?? null },
});

export function cmdRun({ jobs, ...options }: CmdRunOptions): Tool {
  const host = commandHost(options);
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
      const read = await readCommand(args, host.search);
      if (read.kind === "invalid_args") return read;
      const { command } = read;
      const dispose = async () => command.cwd?.close();
      async function run(context: ToolContext): Promise<ToolResult> {
        if (command.obstacle === null && command.waitMs !== null) return asJob(command, command.waitMs, context);
        try {
          return command.obstacle === null ? await atOnce(command, context) : failed("invalid_args", command.obstacle);
        } finally {
          await dispose();
        }
      }
      return { kind: "ready", call: { accesses: command.accesses, dispose, run } };
    },
  };

  /** The call lasts as long as the command, and the command waits for whoever reads it. */
  async function atOnce(command: Command, context: ToolContext): Promise<ToolResult> {
    const maxBytes = mostBytes(command, context);
    const caps = { stdout: capOutput(maxBytes), stderr: capOutput(maxBytes) };
    const limits = limitsOf(command, context.signal, host.clock);
    try {
      const ended = await runCommand(host, {
        ...{ command, secretEnv: context.secretEnv ?? {}, stop: limits.signal, onPrinted: limits.printed },
        /** Once it is to stop, what it still prints is kept, and no reader may delay its end. */
        async output(pipe, bytes) {
          caps[pipe].add(bytes);
          if (!limits.signal.aborted) await untilAbort(context.output(pipe, bytes), limits.signal);
        },
      });
      const [stdout, stderr] = [caps.stdout.captured(), caps.stderr.captured()];
      return commandResult({ name: command.name, ...ended, stdout, stderr });
    } finally {
      limits.release();
    }
  }

  /** The call lasts no longer than `waitMs`; what still runs then is a job. Until then the call can end it. */
  async function asJob(command: Command, waitMs: number, context: ToolContext): Promise<ToolResult> {
    const job = await jobs.start(context.owner, command, context.secretEnv ?? {}).catch(async (error) => {
      await command.cwd?.close();
      throw error;
    });
    if (!job) {
      await command.cwd?.close();
      return failed(
        "overloaded",
        "too many jobs run on this host, or of this context: end one with job.kill, or leave out wait_secs",
      );
    }
    const how = await follow(job, { stdout: 0, stderr: 0 }, waitMs, context, host.clock);
    if (how === "stopped") {
      job.stop(context.signal.reason as StopReason);
      await job.ended;
    }
    const result = await jobResult(job, mostBytes(command, context));
    if (how !== "time") await jobs.forget(job);
    return how === "time" ? result : withoutJob(result);
  }
}

const mostBytes = ({ maxOutputBytes }: Command, context: ToolContext): number =>
  Math.min(context.maxOutputBytes, maxOutputBytes ?? Number.POSITIVE_INFINITY);

/** Nobody needs to know that what ended in time was a job. */
function withoutJob({ structured, ...result }: ToolResult): ToolResult {
  return structured?.left_running ? { ...result, structured: { left_running: structured.left_running } } : result;
}
