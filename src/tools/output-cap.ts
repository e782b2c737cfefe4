/** Keeps the beginning and the end of what a pipe produced, and counts all of it. */
import type { Captured } from "./tool.ts";

export interface OutputCap {
  add(bytes: Uint8Array): void;
  captured(): Captured;
}

/** At most `maxBytes` are kept, half of them from the beginning; memory is taken only as output comes. */
export function capOutput(maxBytes: number): OutputCap {
  const head = growing(Math.ceil(maxBytes / 2));
  const tail = ring(Math.floor(maxBytes / 2));
  let bytes = 0;
  return {
    add(piece) {
      bytes += piece.length;
      tail.add(piece.subarray(head.add(piece)));
    },
    captured() {
      const first = head.bytes();
      const last = tail.bytes();
      if (first.length + last.length === bytes) return { head: first, tail: last, bytes };
      return { head: first.subarray(0, wholeEnd(first)), tail: last.subarray(wholeStart(last)), bytes };
    },
  };
}

function growing(max: number) {
  let buffer = new Uint8Array();
  let used = 0;
  return {
    /** Answers how much of `piece` it took. */
    add(piece: Uint8Array): number {
      const taken = Math.min(piece.length, max - used);
      if (used + taken > buffer.length) buffer = grown(buffer, used + taken, max);
      buffer.set(piece.subarray(0, taken), used);
      used += taken;
      return taken;
    },
    bytes: () => buffer.subarray(0, used),
  };
}

function ring(max: number) {
  let buffer = new Uint8Array();
  let next = 0;
  let isFull = false;
  return {
    add(piece: Uint8Array): void {
      let rest = piece.subarray(Math.max(0, piece.length - max));
      if (!isFull && next + rest.length > buffer.length) buffer = grown(buffer, next + rest.length, max);
      while (rest.length > 0) {
        const part = rest.subarray(0, buffer.length - next);
        buffer.set(part, next);
        next += part.length;
        rest = rest.subarray(part.length);
        if (next === max) {
          next = 0;
          isFull = true;
        }
      }
    },
    bytes: () => (isFull ? Buffer.concat([buffer.subarray(next), buffer.subarray(0, next)]) : buffer.subarray(0, next)),
  };
}

function grown(buffer: Uint8Array, atLeast: number, max: number): Uint8Array<ArrayBuffer> {
  const bigger = new Uint8Array(Math.min(max, Math.max(atLeast, buffer.length * 2, 1024)));
  bigger.set(buffer);
  return bigger;
}

const isContinuation = (byte: number | undefined): boolean => byte !== undefined && (byte & 0xc0) === 0x80;

/** Where the last whole UTF-8 character ends; the whole length where these bytes are no UTF-8. */
export function wholeEnd(bytes: Uint8Array): number {
  let start = bytes.length - 1;
  while (start > bytes.length - 4 && isContinuation(bytes[start])) start--;
  const first = bytes[start] ?? 0;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
  return start >= 0 && first >= 0xc0 && start + length > bytes.length ? start : bytes.length;
}

/** Where the first whole UTF-8 character begins. */
export function wholeStart(bytes: Uint8Array): number {
  let start = 0;
  while (start < 3 && isContinuation(bytes[start])) start++;
  return isContinuation(bytes[start]) ? 0 : start;
}
