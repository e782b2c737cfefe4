/** Takes what a process prints at the pace of whoever reads it, in few pieces instead of many. */
import type { Clock } from "./clock.ts";
import { limits } from "./limits.ts";

/** Longest piece handed on, in bytes. */
export const maxPieceBytes = limits.progressChunkBytes;

/** After a piece was handed on, what follows is collected for this long, or until a piece is full. */
export const collectMs = 20;

export interface Pump {
  /** Everything was handed on, or the pump was cut. Rejects when the consumer did. */
  readonly done: Promise<void>;
  /** Waits for the process, not for its reader. */
  readonly hungry: boolean;
  /** Reads no more; what was read is still handed on. */
  cut(): void;
}

/** Holds at most two reads of the pipe while `deliver` does not resolve, so that the pipe fills and the process waits. */
export function pump(
  stream: ReadableStream<Uint8Array>,
  deliver: (piece: Uint8Array) => Promise<void>,
  clock: Clock,
): Pump {
  const reader = stream.getReader();
  let hungry = false;
  const read = async (): Promise<Uint8Array | null> => {
    try {
      const { done, value } = await reader.read();
      return done ? null : value;
    } catch {
      return null; // a pipe that cannot be read any more has ended
    }
  };

  async function run(): Promise<void> {
    let sentAt = Number.NEGATIVE_INFINITY;
    let next = read();
    for (;;) {
      hungry = true;
      const first = await next;
      hungry = false;
      if (!first) return;
      const pieces = [first];
      let bytes = first.length;
      next = read();
      while (bytes < maxPieceBytes) {
        const more = await within(next, sentAt + collectMs - clock.monotonic(), clock);
        if (!more) break; // time is up, or the end: either way the next round sees it
        pieces.push(more);
        bytes += more.length;
        next = read();
      }
      const all = pieces.length === 1 ? first : Buffer.concat(pieces);
      for (let at = 0; at < all.length; at += maxPieceBytes) await deliver(all.subarray(at, at + maxPieceBytes));
      sentAt = clock.monotonic();
    }
  }

  const cut = () => void reader.cancel().catch(() => {});
  const done = run();
  done.catch(cut);
  return {
    done,
    cut,
    get hungry() {
      return hungry;
    },
  };
}

/** What `reading` brings within `ms`, else null. */
async function within(reading: Promise<Uint8Array | null>, ms: number, clock: Clock): Promise<Uint8Array | null> {
  if (ms <= 0) return null;
  const timer = new AbortController();
  try {
    return await Promise.race([reading, clock.sleep(ms, timer.signal).then(() => null)]);
  } finally {
    timer.abort();
  }
}
