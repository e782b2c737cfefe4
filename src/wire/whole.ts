/** Wire integers as plain numbers: 64-bit fields arrive as Long objects and are small by rule. */
import Long from "long";

/** The value of a uint64 field, or null when it is above 2^53-1, which no field of ours may be. */
export function whole(value: Long | number | null | undefined): number | null {
  if (value === null || value === undefined) return 0;
  const number = typeof value === "number" ? value : value.toNumber();
  return Number.isSafeInteger(number) && number >= 0 ? number : null;
}

export const toLong = (value: number): Long => Long.fromNumber(value, true);

/** A google.protobuf.Timestamp or Duration of so many milliseconds. */
export const toSeconds = (ms: number) => ({ seconds: toLong(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 });
