/** The newest live output of one call that nobody takes: so much and no more, each piece with its place. */
import { limits } from "../platform/limits.ts";
import type { Pipe } from "../tools/tool.ts";

export interface HeldOutput {
  pipe: Pipe;
  /** Of `bytes` in what this pipe produced. */
  offset: number;
  bytes: Uint8Array;
}

export interface ProgressRing {
  /** Held, in bytes. */
  readonly size: number;
  /** Answers how many older bytes had to go. */
  add(output: HeldOutput): number;
  /** The oldest, at most `maxBytes` of it; null when there is none. */
  take(maxBytes: number): HeldOutput | null;
}

/** Pieces that follow each other are joined up to this, so that many small ones do not become many small frames. */
const joinedBytes = limits.progressChunkBytes;

export function progressRing(maxBytes: number): ProgressRing {
  const held: HeldOutput[] = [];
  let size = 0;

  function cut(bytes: number): void {
    const oldest = held[0];
    if (!oldest) return;
    size -= bytes;
    if (bytes === oldest.bytes.length) held.shift();
    else held[0] = { ...oldest, offset: oldest.offset + bytes, bytes: oldest.bytes.subarray(bytes) };
  }

  return {
    get size() {
      return size;
    },
    add({ pipe, offset, bytes }) {
      const last = held.at(-1);
      const follows = last?.pipe === pipe && last.offset + last.bytes.length === offset;
      if (last && follows && last.bytes.length + bytes.length <= joinedBytes)
        last.bytes = Buffer.concat([last.bytes, bytes]);
      // A copy: what is handed in may be a small part of a large buffer.
      else held.push({ pipe, offset, bytes: Uint8Array.from(bytes) });
      size += bytes.length;
      const tooMany = Math.max(0, size - maxBytes);
      while (size > maxBytes) cut(Math.min(size - maxBytes, held[0]?.bytes.length ?? 0));
      return tooMany;
    },
    take(most) {
      const oldest = held[0];
      if (!oldest) return null;
      const bytes = oldest.bytes.subarray(0, most);
      cut(bytes.length);
      return { ...oldest, bytes };
    },
  };
}
