/** Chance that can be repeated: the same seed gives the same cases on every machine. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** A whole number from 0 to `below` - 1. */
  below(below: number): number;
  pick<T>(items: readonly T[]): T;
  bytes(length: number): Uint8Array;
}

/** mulberry32. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number) => Math.floor(next() * limit);
  return {
    next,
    below,
    pick: (items) => items[below(items.length)] as (typeof items)[number],
    bytes: (length) => Uint8Array.from({ length }, () => below(256)),
  };
}

/** One to four changes: a bit, a byte, a piece cut out, repeated, swapped or filled with chance. Never the same bytes. */
export function mutated(bytes: Uint8Array, by: Random): Uint8Array {
  let out: Uint8Array = Uint8Array.from(bytes);
  for (let change = 0; change <= by.below(4); change++) out = changedOnce(out, by);
  return Buffer.from(out).equals(bytes) ? Uint8Array.from([...out, by.below(256)]) : out;
}

function changedOnce(bytes: Uint8Array, by: Random): Uint8Array {
  const at = by.below(bytes.length + 1);
  const length = 1 + by.below(by.pick([2, 8, 64]));
  const head = bytes.subarray(0, at);
  const piece = bytes.subarray(at, at + length);
  const tail = bytes.subarray(at + piece.length);
  switch (by.below(6)) {
    case 0: {
      const out = Uint8Array.from(bytes);
      if (out.length > 0) out[at % out.length] = (out[at % out.length] ?? 0) ^ (1 << by.below(8));
      return out;
    }
    case 1:
      return Buffer.concat([head, tail]);
    case 2:
      return Buffer.concat([head, piece, piece, tail]);
    case 3:
      return Buffer.concat([head, by.bytes(length), tail]);
    case 4:
      return Buffer.concat([tail, piece, head]);
    default:
      return Buffer.concat([
        head,
        Uint8Array.from(piece, () => by.pick([0, 0x7f, 0x80, 0xff, 0x22, 0x7b, 0x0a])),
        tail,
      ]);
  }
}

/** The same for text; pieces that parsers care about are put in more often than chance would. */
export function mutatedText(text: string, by: Random, spice: readonly string[]): string {
  let out = text;
  for (let change = 0; change <= by.below(4); change++) {
    const at = by.below(out.length + 1);
    const length = by.below(by.pick([2, 6, 30]));
    const piece = by.pick([
      by.pick(spice),
      out.slice(at, at + length),
      String.fromCodePoint(by.pick([by.below(128), by.below(0x2ff), 0x202e, 0xfeff, 0x1f600])),
    ]);
    out = by.below(3) === 0 ? out.slice(0, at) + out.slice(at + length) : out.slice(0, at) + piece + out.slice(at);
  }
  return out;
}
