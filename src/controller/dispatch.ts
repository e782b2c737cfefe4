/** Turns a call into a signed command for one node, and what comes back into progress and exactly one result. */
import { sha256 } from "../envelope/statement.ts";
import type { Clock } from "../platform/clock.ts";
import type { Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { structToJson } from "../wire/json.ts";
import { whole } from "../wire/whole.ts";
import type { Bus, SessionCallEvent } from "./bus.ts";
import { callers } from "./callers.ts";
import type { CallRequest, Dispatcher, ResultEvent, StreamResult } from "./dispatch-types.ts";
import type { ControllerKeys } from "./keys.ts";
import { creditWindowBytes } from "./node-session.ts";
import { nodeOutcome } from "./result-ledger.ts";

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
      const body = command(request);
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
    if (event.kind === "result") return received(event, body);
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
    const errorKind = { timed_out: "timeout", cancelled: "cancelled", edge_disconnected: "edge_disconnected" }[outcome];
    return { ...noResult, outcome, errorKind, errorMessage: words, durationMs };
  }
}

const nothing: StreamResult = { head: new Uint8Array(), tail: new Uint8Array(), bytes: 0 };

const noResult = {
  kind: "result",
  ok: false,
  exitCode: null,
  signal: null,
  stdout: nothing,
  stderr: nothing,
  structured: null,
  jobId: null,
  late: false,
  output: "incomplete",
  receipt: "missing",
  receiptProof: null,
} as const satisfies Partial<ResultEvent>;

/** A host's own result, from the bytes it signed. */
function received(
  { result, signature, keyId, receipt, outputComplete }: Extract<SessionCallEvent, { kind: "result" }>,
  commandBody: Uint8Array,
): ResultEvent {
  const event = aegis.cluster.v1.CommandResultEvent.decode(result);
  const answer: aegis.cluster.v1.EdgeResult.$Properties = event.result ?? {};
  return {
    kind: "result",
    outcome: nodeOutcome(event),
    ok: answer.ok ?? false,
    exitCode: answer.exitCode ?? 0,
    signal: answer.signal || null,
    errorKind: answer.errorKind || null,
    errorMessage: answer.errorMessage || null,
    durationMs: whole(event.durationMs) ?? 0,
    stdout: stream(answer.stdout, answer.stdoutHead, whole(answer.stdoutBytes)),
    stderr: stream(answer.stderr, answer.stderrHead, whole(answer.stderrBytes)),
    structured: answer.structuredResult ? structToJson(answer.structuredResult) : null,
    jobId: answer.jobId || null,
    late: false,
    output: outputComplete ? "complete" : "incomplete",
    receipt,
    receiptProof: { commandBody, result, signature, keyId },
  };
}

function stream(
  bytes: Uint8Array | null | undefined,
  head: number | null | undefined,
  total: number | null,
): StreamResult {
  const all = bytes ?? new Uint8Array();
  const cut = Math.min(head ?? all.length, all.length);
  return { head: all.subarray(0, cut), tail: all.subarray(cut), bytes: Math.max(total ?? 0, all.length) };
}
