/** What a tool is: it parses its arguments, says what it will touch, and runs once policy has agreed. */
import type { Secret } from "../platform/log.ts";
import type { Pipe } from "../platform/process.ts";
import type { Access } from "../policy/access.ts";

export interface ToolDescriptor {
  name: string;
  description: string;
  /** JSON Schema of the arguments. */
  inputSchema: Record<string, unknown>;
  readOnly: boolean;
  destructive: boolean;
  fleetCapable: boolean;
}

export type { Pipe } from "../platform/process.ts";

/** The first and last bytes of what a pipe produced; `bytes` counts all of it, omitted = bytes - head - tail. */
export interface Captured {
  head: Uint8Array;
  tail: Uint8Array;
  bytes: number;
}

export const nothingCaptured: Captured = { head: new Uint8Array(), tail: new Uint8Array(), bytes: 0 };

/** The reasons that are the host's own, as callers see them. */
export type ErrorKind =
  | "envelope_invalid"
  | "security_context_not_found"
  | "policy_violation"
  | "operator_signature_required"
  | "operator_signature_stale"
  | "tool_not_found"
  | "tool_not_locally_supported"
  | "invalid_args"
  | "nonzero_exit"
  | "signal"
  | "timeout"
  | "cancelled"
  | "paused"
  | "draining"
  | "overloaded"
  | "replayed"
  | "internal"
  | "edge_disconnected";

export interface ToolResult {
  ok: boolean;
  exitCode: number;
  /** Name of the signal that ended the process, such as SIGKILL. */
  signal?: string;
  stdout: Captured;
  stderr: Captured;
  structured?: Record<string, unknown>;
  /** The job that goes on after this answer. */
  jobId?: string;
  errorKind?: ErrorKind;
  /** Says what, where and which value, for the caller. */
  errorMessage?: string;
}

export interface CallOwner {
  tenant: string;
  /** The security context of the call. */
  context: string;
}

export interface ToolContext {
  /** Aborts on cancel, deadline or shutdown; its reason is a StopReason. The tool then stops what it started and still answers. */
  signal: AbortSignal;
  /** Live output. Resolves when more may be produced: a tool that waits for it is slowed to its reader's pace. */
  output(pipe: Pipe, chunk: Uint8Array): Promise<void>;
  /** The longest each captured stream may be, in bytes, head and tail together. */
  maxOutputBytes: number;
  /** Whether policy allows what the call meets while it runs, such as an entry of a folder it walks. */
  allows(access: Access): boolean;
  /** Whom what outlives the call belongs to: nobody else finds it again. */
  owner: CallOwner;
  /** Variables that the owner sets for the call's processes. Their values appear in no output and in no log. */
  secretEnv?: Readonly<Record<string, Secret>>;
}

/** Why a running tool is asked to stop: the value of `signal.reason`. */
export type StopReason =
  | { kind: "cancelled"; detail: string }
  | { kind: "timeout"; afterMs: number }
  | { kind: "shutdown" };

/** A call whose arguments are already parsed: what policy judged is exactly what runs. */
export interface PreparedCall {
  accesses: readonly Access[];
  /** Lets go of what was opened to judge it, when the call is refused. After `run` there is nothing to let go. */
  dispose?(): Promise<void>;
  run(context: ToolContext): Promise<ToolResult>;
}

export type Preparation = { kind: "ready"; call: PreparedCall } | { kind: "invalid_args"; message: string };

export interface Tool {
  descriptor: ToolDescriptor;
  /** Only asks after, or ends, what a call has started before: needs no operator's signature of its own. */
  followsUp?: true;
  /** Parses `args` (already JSON) and resolves names to real things. Starts nothing. */
  prepare(args: unknown): Promise<Preparation>;
}
