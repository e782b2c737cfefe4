/** Times as people write them, and milliseconds. */
import { AegisError } from "../errors.ts";

const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** The longest that is accepted, in milliseconds: a hundred years. */
export const maxDurationMs = 36_525 * units.d;

/** `500ms` `60s` `15m` `24h` `7d` -> milliseconds, whole and not negative. Throws `usage` naming `text`. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,15})(ms|s|m|h|d)$/.exec(text.trim());
  const unit = match?.[2] as keyof typeof units | undefined;
  const ms = unit ? Number(match?.[1]) * units[unit] : Number.NaN;
  if (ms <= maxDurationMs) return ms;
  const why = Number.isNaN(ms) ? "is not a duration" : "is longer than 100 years";
  throw new AegisError("usage", `${JSON.stringify(text)} ${why}`, {
    hint: "write a whole number and a unit: 500ms, 60s, 15m, 24h or 7d",
  });
}

/** The shortest text that `parseDuration` turns back into exactly `ms`, a whole number that is not negative. */
export function formatDuration(ms: number): string {
  const [unit, size] = Object.entries(units).findLast(([, one]) => ms >= one && ms % one === 0) ?? ["s", units.s];
  return `${ms / size}${unit}`;
}
