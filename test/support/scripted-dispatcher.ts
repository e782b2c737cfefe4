/** A Dispatcher whose calls a test answers one by one. */
import { missingResult } from "../../src/controller/call-result.ts";
import type { CallEvent, CallRequest, Dispatcher, ResultEvent } from "../../src/controller/dispatch-types.ts";
import { mailbox } from "../../src/platform/mailbox.ts";

export interface ScriptedCall {
  request: CallRequest;
  signal: AbortSignal;
  print(text: string | Uint8Array, at?: { offset?: number; stream?: "stdout" | "stderr"; skippedBytes?: number }): void;
  /** Ends the call. */
  answer(result?: Partial<ResultEvent>): void;
}

export interface ScriptedDispatcher extends Dispatcher {
  /** Every call so far, in order. */
  readonly calls: readonly ScriptedCall[];
  /** The calls that wait for an answer. */
  readonly open: readonly ScriptedCall[];
}

export const okResult: ResultEvent = {
  ...missingResult("ok", "", 5),
  ...{ ok: true, exitCode: 0, errorKind: null, errorMessage: null, output: "complete", receipt: "verified" },
};

/** `react` may answer at once. An aborted call ends as `cancelled`, as a host that obeys does. */
export function scriptedDispatcher(react: (call: ScriptedCall) => void = () => {}): ScriptedDispatcher {
  const calls: ScriptedCall[] = [];
  const open = new Set<ScriptedCall>();
  return {
    calls,
    get open() {
      return [...open];
    },
    async *call(request, signal) {
      const events = mailbox<CallEvent>();
      const offsets = { stdout: 0, stderr: 0 };
      const call: ScriptedCall = {
        request,
        signal,
        print(text, { stream = "stdout", offset = offsets[stream], skippedBytes = 0 } = {}) {
          const chunk = typeof text === "string" ? Buffer.from(text) : text;
          offsets[stream] = offset + chunk.length;
          events.put({ kind: "progress", stream, offset, chunk, skippedBytes });
        },
        answer(result = {}) {
          if (!open.delete(call)) return;
          events.put({ ...okResult, ...result });
          events.end();
        },
      };
      calls.push(call);
      open.add(call);
      const cancelled = () => call.answer({ ok: false, outcome: "cancelled", errorKind: "cancelled", exitCode: null });
      if (signal.aborted) cancelled();
      else signal.addEventListener("abort", cancelled, { once: true });
      react(call);
      yield* events;
    },
  };
}
