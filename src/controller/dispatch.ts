/** Turns a call into a signed command for one node, and what comes back into progress and exactly one result. */
import { sha256 } from "../envelope/statement.ts";
import type { Clock } from "../platform/clock.ts";
import type { Store } from "../store/store.ts";
import type { Bus, SessionCallEvent } from "./bus.ts";
import { missingResult, receivedResult } from "./call-result.ts";
import { callers } from "./callers.ts";
import type { CallRequest, Dispatcher, ResultEvent } from "./dispatch-types.ts";
import type { ControllerKeys } from "./keys.ts";
import { creditWindowBytes } from "./node-session.ts";

/** How long after the deadline the host's own answer is awaited before the controller cancels. */
const deadlineSlackMs = 5_000;
export interface DispatchOptions {
  bus: Bus;
  store: Store;
  keys: ControllerKeys;
  controllerId: string;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
}

export function createDispatcher({ bus, store, keys, controllerId, clock, time }: DispatchOptions): Dispatcher {
  const command = callers({ keys, controllerId, time });

  return {
    async *call(request, signal) {
      const body = command(request, (await store.node(request.nodeId))?.seal ?? "strict");
      const startedAt = time();
      await store.insertCommand({
        commandId: request.commandId,
        runId: request.runId,
        nodeId: request.nodeId,
        tenantId: request.principal.tenantId,
        tool: request.tool,
        context: request.context,
        principal: request.principal.name,
        commandDigest: sha256(body),
        commandBody: body,
        dispatchedAt: startedAt,
        endedAt: null,
        outcome: null,
        result: null,
        receiptSignature: null,
        receiptKeyId: null,
        receipt: null,
        outputComplete: false,
      });
      const stop = new AbortController();
      const forward = () => stop.abort(signal.reason);
      if (signal.aborted) forward();
      else signal.addEventListener("abort", forward, { once: true });
      const answered = new AbortController();
      if (request.deadlineMs > 0) void expire(request.deadlineMs + deadlineSlackMs, stop, answered.signal);
      try {
        const window = request.progress ? creditWindowBytes : 0;
        for await (const event of bus.call(
          request.nodeId,
          { commandId: request.commandId, body, window },
          stop.signal,
        )) {
          if (event.kind === "progress") {
            const { chunk, offset, skippedBytes, sequence: seq } = event;
            yield { kind: "progress", stream: event.stderr ? "stderr" : "stdout", seq, offset, chunk, skippedBytes };
          } else yield await ending(event, request, { body, durationMs: time() - startedAt, aborted: stop.signal });
        }
      } finally {
        answered.abort();
        signal.removeEventListener("abort", forward);
      }
    },
  };

  async function expire(ms: number, stop: AbortController, signal: AbortSignal): Promise<void> {
    await clock.sleep(ms, signal);
    if (!signal.aborted) stop.abort("deadline");
  }

  /** What the run is told; a call without a result of its host is ended in the store here. */
  async function ending(
    event: Exclude<SessionCallEvent, { kind: "progress" }>,
    request: CallRequest,
    { body, durationMs, aborted }: { body: Uint8Array; durationMs: number; aborted: AbortSignal },
  ): Promise<ResultEvent> {
    if (event.kind === "result") return receivedResult({ ...event, commandBody: body, roundTripMs: durationMs });
    const outcome = aborted.aborted ? (aborted.reason === "deadline" ? "timed_out" : "cancelled") : "edge_disconnected";
    const words = {
      timed_out: "the deadline passed and the host did not answer; it may still be running",
      cancelled: "cancelled, and the host did not answer; it may still be running",
      edge_disconnected:
        event.kind === "unreachable"
          ? "the host has no stream; nothing was sent"
          : "the stream ended before a result came; whether it ran is not known",
    }[outcome];
    await store.endCommand(request.commandId, {
      endedAt: time(),
      outcome,
      result: null,
      receiptSignature: null,
      receiptKeyId: null,
      receipt: "missing",
      outputComplete: false,
    });
    return missingResult(outcome, words, durationMs);
  }
}
