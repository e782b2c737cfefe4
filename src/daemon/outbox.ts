/**
 * What leaves the daemon about its calls: live output while there is credit and a session, and results that wait, signed,
 * until the controller says that it has stored them.
 */
import { maxBodyBytes } from "../envelope/frame.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { progressChain, signReceipt } from "../envelope/receipt.ts";
import { type Digest, digestOf } from "../envelope/statement.ts";
import type { Clock } from "../platform/clock.ts";
import type { Garbage } from "../platform/garbage.ts";
import { limits } from "../platform/limits.ts";
import type { Log } from "../platform/log.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { type Captured, nothingCaptured, type Pipe, type ToolResult } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";
import { withRawFields } from "../wire/raw-field.ts";
import { toLong } from "../wire/whole.ts";
import { type Credit, createCredit } from "./credit.ts";
import { type HeldOutput, progressRing } from "./progress-ring.ts";
import { encodeResult, type ResultInput } from "./result.ts";

const { CommandProgressEvent, SealedResult } = aegis.cluster.v1;
/** CommandProgressEvent.chunk */
const chunkField = 3;

/** How long and how much waits for an acknowledgement; past any of the three the oldest result is dropped, loudly. */
export const outboxLimits = { ageMs: 10 * 60_000, results: 64, bytes: 64 * 1024 * 1024 };

/** Longest `chunk` of one progress frame, in bytes. */
export const maxChunkBytes = limits.progressChunkBytes;

/** The session's one writer, as the outbox sees it. */
export interface FrameSender {
  /** False when the transport is full: bulk data waits for `drained`. */
  send(kind: "progress" | "result", body: Uint8Array, digest?: Digest): boolean;
  drained(): Promise<void>;
}

/** One command's way out. */
export interface Delivery {
  /**
   * Live output; resolves when more may follow, which with `drop` is at once. Never rejects: without a session, what would
   * be sent is counted instead.
   * A call that `stop` ends waits for no reader, who may never come: it goes on with what credit there is.
   */
  progress(pipe: Pipe, chunk: Uint8Array, stop: AbortSignal): Promise<void>;
  /** The one result. `started` is false when nothing ran. Never throws: a result too long for a message says so instead. */
  finish(outcome: Outcome): void;
}

export type Outcome = Pick<ResultInput, "result" | "started" | "durationMs" | "signAgain">;

export interface DeliveryRequest {
  commandId: string;
  /** The EdgeCommand as it stood in its frame: the receipt covers it. */
  commandBody: Uint8Array;
  /** Bytes of live output allowed at first; 0 = none wanted. */
  initialCredit: number;
  /** What happens when that is used up. Default: wait. */
  onNoCredit?: "wait" | "drop";
}

export interface Outbox {
  /** A session is up: what waits is sent, and new output goes there. */
  attach(sender: FrameSender): void;
  /** That session is gone. Its commands go on; the rest of their live output is dropped and counted. */
  detach(sender: FrameSender): void;
  open(request: DeliveryRequest): Delivery;
  credit(commandId: string, limit: number): void;
  acknowledge(commandIds: readonly string[]): void;
  /** Results not acknowledged yet. */
  readonly waiting: number;
}

export interface OutboxOptions {
  nodeId: string;
  /** The key of now, which vouches for what is finished from now on. */
  nodeKey: () => SigningKey;
  clock: Clock;
  log: Log;
  garbage?: Garbage;
}

interface Waiting {
  commandId: string;
  body: Uint8Array;
  since: number;
}

export function createOutbox({ nodeId, nodeKey, clock, log, garbage }: OutboxOptions): Outbox {
  let sender: FrameSender | null = null;
  const results: Waiting[] = [];
  /** Of commands that want live output, by id; and all of them, also those whose id is not theirs alone. */
  const credits = new Map<string, Credit>();
  const open = new Set<Credit>();

  /** Drops from the oldest on, but never the newest: a result is at most one message. */
  function prune(): void {
    const tooOld = clock.monotonic() - outboxLimits.ageMs;
    let bytes = results.reduce((sum, waiting) => sum + waiting.body.length, 0);
    while (results.length > 1) {
      const oldest = results[0];
      if (!oldest) return;
      if (oldest.since >= tooOld && results.length <= outboxLimits.results && bytes <= outboxLimits.bytes) return;
      results.shift();
      bytes -= oldest.body.length;
      log.error("result_dropped", {
        command_id: oldest.commandId,
        reason: "not acknowledged in time",
        limits: outboxLimits,
      });
    }
  }

  return {
    get waiting() {
      return results.length;
    },
    attach(next) {
      sender = next;
      prune();
      for (const waiting of results) next.send("result", waiting.body);
    },
    detach(gone) {
      if (sender !== gone) return;
      sender = null;
      for (const credit of open) credit.close();
    },
    credit(commandId, limit) {
      credits.get(commandId)?.raise(limit);
    },
    acknowledge(commandIds) {
      for (const id of commandIds) {
        const index = results.findIndex((waiting) => waiting.commandId === id);
        if (index >= 0) results.splice(index, 1);
      }
    },
    open({ commandId, commandBody, initialCredit, onNoCredit = "wait" }) {
      const session = sender;
      const credit = createCredit(initialCredit);
      const wanted = initialCredit > 0;
      open.add(credit);
      // A second command of the same id must not take the first one's credit away.
      if (wanted && !credits.has(commandId)) credits.set(commandId, credit);
      const chain = progressChain();
      const produced = { stdout: 0, stderr: 0 };
      const sent = { stdout: 0, stderr: 0 };
      const ring = progressRing(limits.progressRingBytes);
      let sending = false;
      let dropped = 0;
      /** The session to send to, as long as it is the one that the call came on. */
      const live = () => (wanted && sender === session && !credit.closed ? session : null);

      /** False when the transport wants no more for now. */
      function send(to: FrameSender, { pipe, offset, bytes }: HeldOutput): boolean {
        const skipped = offset - sent[pipe];
        const about = CommandProgressEvent.encode({
          ...{ commandId, sequence: chain.frames, stderr: pipe === "stderr", offset: toLong(offset) },
          ...(skipped > 0 && { skippedBytes: toLong(skipped) }),
        }).finish();
        const body = withRawFields(about, chunkField, [bytes]);
        credit.spend(bytes.length);
        sent[pipe] = offset + bytes.length;
        const digest = digestOf(body);
        chain.add(digest);
        return to.send("progress", body, digest);
      }

      const allowed = () => Math.min(credit.available, maxChunkBytes);

      async function waiting(pipe: Pipe, chunk: Uint8Array, stop: AbortSignal): Promise<void> {
        let rest = chunk;
        for (let to = live(); to && rest.length > 0; to = live()) {
          if (credit.available <= 0) {
            if (stop.aborted) break;
            await untilAbort(credit.wait(), stop);
            continue;
          }
          const part = rest.subarray(0, allowed());
          const goesOn = send(to, { pipe, offset: produced[pipe], bytes: part });
          produced[pipe] += part.length;
          rest = rest.subarray(part.length);
          if (!goesOn) await untilAbort(to.drained(), stop);
        }
        produced[pipe] += rest.length;
        // Where nobody asked for live output none is missing.
        if (wanted) dropped += rest.length;
      }

      /** Sends what is held as credit and transport allow; one at a time. */
      async function sendHeld(): Promise<void> {
        if (sending) return;
        sending = true;
        for (let to = live(); to && ring.size > 0; to = live()) {
          if (credit.available <= 0) await credit.wait();
          else {
            const next = ring.take(allowed());
            if (next && !send(to, next)) await to.drained();
          }
        }
        sending = false;
      }

      function dropping(pipe: Pipe, chunk: Uint8Array): void {
        if (wanted && live()) {
          dropped += ring.add({ pipe, offset: produced[pipe], bytes: chunk });
          void sendHeld();
        } else if (wanted) dropped += chunk.length;
        produced[pipe] += chunk.length;
      }

      return {
        async progress(pipe, chunk, stop) {
          garbage?.passed(chunk.length);
          if (onNoCredit === "wait") await waiting(pipe, chunk, stop);
          else if (chunk.length > 0) dropping(pipe, chunk);
        },
        finish({ result, ...about }) {
          for (let to = live(); to && ring.size > 0 && credit.available > 0; ) {
            const next = ring.take(allowed());
            if (next) send(to, next);
          }
          dropped += ring.size;
          if (credits.get(commandId) === credit) credits.delete(commandId);
          open.delete(credit);
          credit.close();
          const encoded = (said: ToolResult) =>
            encodeResult({
              commandId,
              result: said,
              ...about,
              progressFrames: chain.frames,
              progressChain: chain.value,
              progressDroppedBytes: dropped,
            });
          const bytes = fitting(result, encoded);
          const key = nodeKey();
          const receiptSig = signReceipt(key, { nodeId, commandId, commandBody, result: bytes });
          const body = SealedResult.encode({ result: bytes, receiptSig, keyId: key.keyId }).finish();
          garbage?.passed(body.length);
          results.push({ commandId, body, since: clock.monotonic() });
          prune();
          sender?.send("result", body);
        },
      };
    },
  };
}

/** A result frame holds a result, a signature and a key id. */
const maxResultBytes = maxBodyBytes - 256;

/** The result as bytes; what no message can carry is replaced by words, so that the call still has its one ending. */
function fitting(result: ToolResult, encoded: (result: ToolResult) => Uint8Array): Uint8Array {
  let why: string;
  try {
    const bytes = encoded(result);
    if (bytes.length <= maxResultBytes) return bytes;
    why = `has ${bytes.length} bytes, and a message holds ${maxResultBytes}`;
  } catch (error) {
    why = `cannot be written: ${(error as Error).message}`;
  }
  const omitted = ({ bytes }: Captured): Captured => ({ ...nothingCaptured, bytes });
  return encoded({
    ok: false,
    exitCode: result.exitCode,
    ...(result.signal ? { signal: result.signal } : {}),
    stdout: omitted(result.stdout),
    stderr: omitted(result.stderr),
    errorKind: "internal",
    errorMessage: `the call ended, but its result ${why}; its output is left out`,
  });
}
