/** Reaches the replica that holds a node's stream. One process holds them all, so a list is enough. */
import type { CallAbort } from "./dispatch-types.ts";

/** What a session is asked to carry. */
export interface SessionCall {
  commandId: string;
  /** A serialised EdgeCommand with an InvokeTool. */
  body: Uint8Array;
  /** Live output allowed before the first renewal, in bytes; 0 = none wanted. */
  window: number;
}

/** What comes back: live output, then one ending. */
export type SessionCallEvent =
  | {
      kind: "progress";
      stderr: boolean;
      offset: number;
      skippedBytes: number;
      chunk: Uint8Array;
      /** To be called once, when more may come: until then the host is that much closer to its limit. */
      taken?(): void;
    }
  | {
      kind: "result";
      result: Uint8Array;
      signature: Uint8Array;
      keyId: Uint8Array;
      /** `peer_id_only`: a compat session's, whose signature covers the command id and no more. */
      receipt: "verified" | "invalid" | "peer_id_only";
      outputComplete: boolean;
    }
  /** The stream ended first. Whether the call ran is not known. */
  | { kind: "disconnected" }
  /** No stream, so nothing was sent. */
  | { kind: "unreachable" };

export type SessionHandler = (call: SessionCall, signal: AbortSignal) => AsyncIterable<SessionCallEvent>;

export interface Bus {
  /** Calls for this node go to `handler` until the returned function is called; a later handler takes its place. */
  serve(nodeId: string, handler: SessionHandler): () => void;
  /** An abort, whose reason is a CallAbort, sends a cancel; the events still end with an ending. */
  call(nodeId: string, call: SessionCall, signal: AbortSignal): AsyncIterable<SessionCallEvent>;
}

export const abortReason = (signal: AbortSignal): CallAbort =>
  typeof signal.reason === "string" ? (signal.reason as CallAbort) : "caller";

export function inProcessBus(): Bus {
  const handlers = new Map<string, SessionHandler>();
  return {
    serve(nodeId, handler) {
      handlers.set(nodeId, handler);
      return () => {
        // By identity: an older session that ends must not take its successor's place away.
        if (handlers.get(nodeId) === handler) handlers.delete(nodeId);
      };
    },
    async *call(nodeId, call, signal) {
      const handler = handlers.get(nodeId);
      if (handler) yield* handler(call, signal);
      else yield { kind: "unreachable" };
    },
  };
}
