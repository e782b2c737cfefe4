/** One call to one host, as the fleet asks for it and the dispatcher answers. */
import type { TraceContext } from "../platform/trace-context.ts";
import type { NodeOutcome } from "../store/store.ts";

/** Who asks: from a verified bearer token. */
export interface Principal {
  name: string;
  tenantId: string;
  scopes: readonly string[];
  /** Security contexts this principal may name; checked here, and again by the host from the signed caller. */
  contexts: readonly string[];
}

export interface CallRequest {
  /** UUID v4, minted by the run. */
  commandId: string;
  runId: string;
  nodeId: string;
  principal: Principal;
  via: "rest" | "mcp" | "cli";
  context: string;
  tool: string;
  /** Exact JSON text: what is signed is what is sent. */
  argsJson: string;
  /** Whole milliseconds from the moment the host starts; 0 = none. */
  deadlineMs: number;
  /** Whether somebody wants live output. */
  progress: boolean;
  /** What the host does when nobody takes it: `wait` slows the command down, `drop` keeps the newest. Default: wait. */
  onNoCredit?: "wait" | "drop";
  /** A serialised OperatorProof, handed on as it came; empty when there is none. */
  operator: Uint8Array;
  /** What the host's own spans belong under; null or absent = no trace. */
  trace?: TraceContext | null;
}

/** One pipe's captured output; omitted bytes = bytes - head.length - tail.length. */
export interface StreamResult {
  head: Uint8Array;
  tail: Uint8Array;
  bytes: number;
}

export interface ProgressEvent {
  kind: "progress";
  stream: "stdout" | "stderr";
  /** Of `chunk` in what this pipe produced. */
  offset: number;
  chunk: Uint8Array;
  skippedBytes: number;
  /** To be called once, when more may come. */
  taken?(): void;
}

export interface ResultEvent {
  kind: "result";
  outcome: NodeOutcome;
  ok: boolean;
  exitCode: number | null;
  signal: string | null;
  /** PRODUCT's error_kind, or null. */
  errorKind: string | null;
  errorMessage: string | null;
  durationMs: number;
  stdout: StreamResult;
  stderr: StreamResult;
  structured: unknown;
  jobId: string | null;
  /** True when it belongs to an earlier session. */
  late: boolean;
  output: "complete" | "incomplete";
  receipt: "verified" | "peer_id_only" | "missing" | "invalid";
  /** What anyone needs to check the receipt; null when there is none. */
  receiptProof: { commandBody: Uint8Array; result: Uint8Array; signature: Uint8Array; keyId: Uint8Array } | null;
  /** A serialised OperatorChallenge: the host wants the same call signed again under this one. */
  signAgain?: Uint8Array;
}

export type CallEvent = ProgressEvent | ResultEvent;

/** Why a caller stops a call: travels to the host in CancelCommand. The value of `signal.reason` when a run aborts a call. */
export type CallAbort = "caller" | "deadline" | "client_gone" | "fleet_halted" | "shutdown";

export interface Dispatcher {
  /** Yields progress, then exactly one result, also after an abort: a cancel is sent and the host's answer awaited for a while. */
  call(request: CallRequest, signal: AbortSignal): AsyncIterable<CallEvent>;
}

/** A live session, as the rest of the controller sees it. */
export interface LiveNode {
  nodeId: string;
  tenantId: string;
  connectedSince: number;
  lastHeartbeatAt: number;
  activeCalls: number;
  queuedCalls: number;
  paused: boolean;
  draining: boolean;
  /** The newest of the controller's keysets that it has said it trusts; absent for a peer that knows none. */
  keysetVersion?: number;
  /** A serialised OperatorChallenge, the newest one; absent where the host gives none. */
  operatorChallenge?: Uint8Array;
  /** Tools by name, from the last capabilities. */
  tools: ReadonlyMap<
    string,
    {
      name: string;
      description: string;
      inputSchemaJson: string;
      readOnly: boolean;
      destructive: boolean;
      fleetCapable: boolean;
    }
  >;
}

export interface LiveNodes {
  get(nodeId: string): LiveNode | undefined;
  /** connected, or unhealthy when no heartbeat came for max(90 s, 3 intervals). */
  status(nodeId: string): "connected" | "unhealthy" | "draining" | "disconnected";
}
