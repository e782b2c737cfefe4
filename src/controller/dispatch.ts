/** Turns a call into a signed command for one node, and what comes back into progress and exactly one result. */
import { maxBodyBytes } from "../envelope/frame.ts";
import { sha256 } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { limits } from "../platform/limits.ts";
import type { Queries, Store } from "../store/store.ts";
import { recordAudit } from "./audit.ts";
import type { Bus, SessionCallEvent } from "./bus.ts";
import { missingResult, receivedResult, storedResult } from "./call-result.ts";
import { callers } from "./callers.ts";
import type { CallRequest, Dispatcher, ResultEvent } from "./dispatch-types.ts";
import type { ControllerKeys } from "./keys.ts";

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
      if (body.length > maxBodyBytes) {
        throw new AegisError(
          "too_large",
          `the call of ${request.tool} has ${body.length} bytes, and a message to a host holds ${maxBodyBytes}`,
        );
      }
      const startedAt = time();
      await store.transaction((tx) => keepCommand(tx, request, body, startedAt));
      const stop = new AbortController();
      const forward = () => stop.abort(signal.reason);
      if (signal.aborted) forward();
      else signal.addEventListener("abort", forward, { once: true });
      const answered = new AbortController();
      if (request.deadlineMs > 0) void expire(request.deadlineMs + deadlineSlackMs, stop, answered.signal);
      const end = (event: Ending) =>
        ending(event, request, { body, durationMs: time() - startedAt, aborted: stop.signal });
      try {
        // Whoever stopped it before it was sent wants it not to run at all.
        if (stop.signal.aborted) return yield await end({ kind: "unreachable" });
        const window = request.progress ? limits.firstCreditBytes : 0;
        const call = { commandId: request.commandId, body, window };
        for await (const event of bus.call(request.nodeId, call, stop.signal)) {
          if (event.kind === "progress") {
            const { kind, chunk, offset, skippedBytes, taken } = event;
            const stream = event.stderr ? "stderr" : "stdout";
            yield { kind, stream, offset, chunk, skippedBytes, ...(taken && { taken }) };
          } else yield await end(event);
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
    event: Ending,
    request: CallRequest,
    { body, durationMs, aborted }: { body: Uint8Array; durationMs: number; aborted: AbortSignal },
  ): Promise<ResultEvent> {
    if (event.kind === "result") return receivedResult({ ...event, commandBody: body, roundTripMs: durationMs });
    const outcome = aborted.aborted ? (aborted.reason === "deadline" ? "timed_out" : "cancelled") : "edge_disconnected";
    const { commandId } = request;
    // A loss of power undoes no more than the next start does anyway: whatever is open then has ended like this.
    const inStore = { wait: "commit" } as const;
    const earlier = await store.transaction(async (tx) => {
      // The host may have come back on another stream and told its result there, before this one was known to be dead.
      const row = await tx.command(commandId);
      if (row?.result) return row;
      await tx.endCommand(commandId, {
        endedAt: time(),
        outcome,
        result: null,
        receiptSignature: null,
        receiptKeyId: null,
        receipt: "missing",
        outputComplete: false,
      });
      const { tenantId, name: principal } = request.principal;
      const detail = { command_id: commandId, outcome, receipt: "missing", output: "incomplete" };
      await recordAudit(tx, { at: time(), kind: "result", tenantId, principal, nodeId: request.nodeId, detail });
      return null;
    }, inStore);
    const told = earlier && storedResult(earlier);
    if (told) return { ...told, late: true };
    return missingResult(outcome, words[event.kind][outcome], durationMs);
  }
}

/** What is asked is written down before it is sent. */
async function keepCommand(tx: Queries, request: CallRequest, body: Uint8Array, at: number): Promise<void> {
  const { commandId, runId, nodeId, tool, context, via } = request;
  const { tenantId, name: principal } = request.principal;
  const commandDigest = sha256(body);
  await tx.insertCommand({
    ...{ commandId, runId, nodeId, tenantId, tool, context, principal, commandDigest },
    commandBody: body,
    dispatchedAt: at,
    endedAt: null,
    outcome: null,
    result: null,
    receiptSignature: null,
    receiptKeyId: null,
    receipt: null,
    outputComplete: false,
  });
  const digest = Buffer.from(commandDigest).toString("base64url");
  const detail = { command_id: commandId, run_id: runId, tool, context, via, command_digest: digest };
  await recordAudit(tx, { at, kind: "dispatch", tenantId, principal, nodeId, detail });
}

type Ending = Exclude<SessionCallEvent, { kind: "progress" }>;

const nothingSent = "the host has no stream; nothing was sent";
const words = {
  unreachable: {
    timed_out: nothingSent,
    cancelled: "cancelled before it was sent; nothing ran",
    edge_disconnected: nothingSent,
  },
  disconnected: {
    timed_out: "the deadline passed and the host did not answer; it may still be running",
    cancelled: "cancelled, and the host did not answer; it may still be running",
    edge_disconnected: "the stream ended before a result came; whether it ran is not known",
  },
} as const;
