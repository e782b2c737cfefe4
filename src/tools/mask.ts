/** Keeps the values of secrets out of what a process printed, wherever its pieces are cut. */
import type { Secret } from "../platform/log.ts";

export interface Mask {
  /** What may be shown by now; the rest could be the beginning of a secret. */
  add(piece: Uint8Array): Uint8Array;
  /** What was held back, once nothing more comes. */
  end(): Uint8Array;
}

const shown = Buffer.from("[secret]");

/** Shorter values would blank out ordinary text, and guessing them takes no output. In bytes. */
const minMaskedBytes = 4;

/** Each value is replaced as a whole and, if it has several lines, line by line. */
export function maskSecrets(secrets: readonly Secret[]): Mask {
  const values = secrets
    .flatMap((secret) => [secret.reveal(), secret.reveal().trim(), ...secret.reveal().split(/\r?\n/)])
    .map((text) => Buffer.from(text))
    .filter((value) => value.length >= minMaskedBytes);
  const wanted = [...new Map(values.map((value) => [value.toString("latin1"), value])).values()].sort(
    (left, right) => right.length - left.length,
  );
  if (wanted.length === 0) return { add: (piece) => piece, end: () => new Uint8Array() };
  let held: Buffer = Buffer.alloc(0);

  function take(bytes: Buffer, isEnd: boolean): Uint8Array {
    const parts: Uint8Array[] = [];
    let at = 0;
    while (at < bytes.length) {
      const next = nextMatch(bytes, at, wanted);
      const safe = isEnd ? bytes.length : at + plainLength(bytes.subarray(at), wanted);
      if (!next || next.at >= safe) {
        parts.push(bytes.subarray(at, safe));
        at = safe;
        break;
      }
      parts.push(bytes.subarray(at, next.at), shown);
      at = next.at + next.length;
    }
    held = Buffer.from(bytes.subarray(at));
    return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
  }

  return {
    add: (piece) => take(held.length === 0 ? asBuffer(piece) : Buffer.concat([held, piece]), false),
    end: () => take(held, true),
  };
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The first occurrence of any value; where two begin together, the longer. */
function nextMatch(bytes: Buffer, from: number, wanted: readonly Buffer[]): { at: number; length: number } | null {
  let best: { at: number; length: number } | null = null;
  for (const value of wanted) {
    const at = bytes.indexOf(value, from);
    if (at >= 0 && (!best || at < best.at)) best = { at, length: value.length };
  }
  return best;
}

/** How many bytes at the beginning no value that is not yet complete can begin in. */
function plainLength(bytes: Buffer, wanted: readonly Buffer[]): number {
  let plain = bytes.length;
  for (const value of wanted) {
    for (let length = Math.min(value.length - 1, bytes.length); length > 0; length--) {
      if (bytes.length - length >= plain) break;
      if (bytes.subarray(bytes.length - length).equals(value.subarray(0, length))) {
        plain = bytes.length - length;
        break;
      }
    }
  }
  return plain;
}
