/** How the daemon reaches its controller: one stream and two calls, over gRPC in life and in memory in tests. */
import { AegisError, type ErrorCode } from "../errors.ts";
import type { aegis } from "../wire/gen/messages.js";

type Wire = typeof aegis.cluster.v1;
type In<T extends keyof Wire> = Wire[T] extends { encode(message: infer M): unknown } ? M : never;
type Out<T extends keyof Wire> = Wire[T] extends { decode(bytes: Uint8Array): infer M } ? M : never;

export type EdgeEvent = In<"EdgeEvent">;
export type EdgeCommand = Out<"EdgeCommand">;

/** Why a stream ended, as the transport saw it. It never says that we chose to stop: only our own signal does. */
export interface StreamEnd {
  /** gRPC status, 0 for a plain end. */
  status: number;
  message: string;
  /** The `aegis-refusal-bin` trailer, when there was one. */
  refusal: Uint8Array | null;
}

export interface StreamHandlers {
  /** Called in order, one at a time, and never waited for. */
  onCommand(command: EdgeCommand): void;
  /** Called exactly once. */
  onEnd(end: StreamEnd): void;
}

export interface EdgeStream {
  /** False when the transport wants no more for now: bulk data then waits for `drained`. */
  send(event: EdgeEvent): boolean;
  drained(): Promise<void>;
  /** Ends the stream and its connection. */
  close(): void;
}

export interface ControllerLink {
  /**
   * Dials and opens ConnectEdge; a dial that failed ends the stream with its reason. Throws `unavailable` when it has
   * neither failed nor come about within `connectTimeoutMs`.
   */
  open(handlers: StreamHandlers, signal: AbortSignal): Promise<EdgeStream>;
  attest(request: In<"AttestNodeRequest">): Promise<Out<"AttestNodeResponse">>;
  challenge(request: In<"ChallengeNodeRequest">): Promise<Out<"ChallengeNodeResponse">>;
  /** Over the connection of the open stream when there is one, so that there is never a second. */
  rotate(request: In<"RotateEdgeKeyRequest">): Promise<Out<"RotateEdgeKeyResponse">>;
  /** Closes what is left open. */
  close(): void;
}

/** How long each step of a dial may wait for an answer: TCP, a proxy's CONNECT, TLS. */
export const answerTimeoutMs = 10_000;
/** How long a dial may take in all. Longer than a step, which knows better what it waited for. */
export const connectTimeoutMs = 12_000;

/** Why one of the calls beside the stream failed. */
export class LinkError extends AegisError {
  /** The controller's wall clock when it answered, to the second; null when nothing was answered. */
  readonly peerTimeMs: number | null;

  constructor(
    code: ErrorCode,
    message: string,
    { peerTimeMs, ...options }: { cause?: unknown; hint?: string; peerTimeMs: number | null },
  ) {
    super(code, message, options);
    this.peerTimeMs = peerTimeMs;
  }
}
