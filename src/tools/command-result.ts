/** What is told about a command that has ended, however it ended. */
import { constants } from "node:os";
import type { ProcessEnd, Remains } from "../platform/process.ts";
import { quote } from "../policy/quote.ts";
import { failed } from "./results.ts";
import type { Captured, ErrorKind, StopReason, ToolResult } from "./tool.ts";

/** Why a command was stopped; silence is a time-out too. */
export type CommandStop = StopReason | { kind: "silent"; afterMs: number };

export interface EndedCommand {
  name: string;
  end: ProcessEnd;
  /** Null when it ended by itself. */
  stopped: CommandStop | null;
  stdout: Captured;
  stderr: Captured;
}

export function commandResult({ name, end, stopped, stdout, stderr }: EndedCommand): ToolResult {
  if (end.kind === "not_started") return notStarted(end);
  const how = {
    exitCode: end.kind === "exited" ? end.code : exitCodeOf(end.signal),
    ...(end.kind === "signal" && { signal: end.signal }),
    stdout,
    stderr,
    ...leftRunning(end),
  };
  const bad = (errorKind: ErrorKind, errorMessage: string): ToolResult => ({
    ok: false,
    ...how,
    errorKind,
    errorMessage,
  });
  const command = quote(name);
  if (stopped) {
    const printed = `it had printed ${stdout.bytes} bytes to stdout and ${stderr.bytes} to stderr`;
    const { kind, words } = why(stopped);
    return bad(kind, `${command} ${words}; ${printed}; ${whatIsLeft(end)}`);
  }
  if (end.kind === "signal") return bad("signal", `${command} was ended by ${end.signal}`);
  if (end.code !== 0) return bad("nonzero_exit", `${command} exited with status ${end.code}`);
  return { ok: true, ...how };
}

function why(stopped: CommandStop): { kind: ErrorKind; words: string } {
  switch (stopped.kind) {
    case "timeout":
      return { kind: "timeout", words: `was stopped after ${inSeconds(stopped.afterMs)}, its time limit` };
    case "silent":
      return { kind: "timeout", words: `was stopped because it printed nothing for ${inSeconds(stopped.afterMs)}` };
    case "cancelled":
      return { kind: "cancelled", words: `was cancelled (${stopped.detail})` };
    case "shutdown":
      return { kind: "edge_disconnected", words: "was stopped because this host's daemon is restarting" };
  }
}

function notStarted({ reason, message }: Extract<ProcessEnd, { kind: "not_started" }>): ToolResult {
  const isOurs = reason === "no_resources" || reason === "failed";
  return { ...failed(isOurs ? "internal" : "invalid_args", message), exitCode: reason === "not_found" ? 127 : 126 };
}

/** Processes to name one by one in a result. */
const maxNamed = 20;

function whatIsLeft({ left }: Remains): string {
  if (left.length === 0) return "nothing of it is left running";
  const named = left.slice(0, maxNamed).map(({ pid, command }) => `${pid} (${command})`);
  return `${left.length} of its processes could not be ended and still run: ${named.join(", ")}`;
}

const leftRunning = ({ left }: Remains): { structured?: Record<string, unknown> } =>
  left.length === 0 ? {} : { structured: { left_running: left.slice(0, maxNamed).map((one) => ({ ...one })) } };

/** 128 + n, as shells say it. */
function exitCodeOf(signal: string): number {
  const named = constants.signals[signal as NodeJS.Signals];
  return 128 + (named ?? 34 + Number(/^SIGRTMIN\+(\d+)$/.exec(signal)?.[1] ?? 0));
}

const inSeconds = (ms: number): string => `${ms % 1000 === 0 ? ms / 1000 : (ms / 1000).toFixed(1)} s`;
