/** Says no to who asks too often, and when to ask again. */
import { AegisError } from "../../errors.ts";
import type { Clock } from "../../platform/clock.ts";

/** An error that passes by itself. */
export class TryLater extends AegisError {
  readonly retryAfterSecs: number;
  constructor(message: string, retryAfterMs: number) {
    const secs = Math.max(1, Math.ceil(retryAfterMs / 1000));
    super("rate_limited", message, { hint: `try again in ${secs} s` });
    this.retryAfterSecs = secs;
  }
}

export interface RateLimiter {
  /** Counts one call of `key`, or throws `rate_limited`. `what` is counted, as people say it. */
  take(key: string, what: string): void;
}

export function rateLimiter(clock: Clock, { calls, perMs }: { calls: number; perMs: number }): RateLimiter {
  const recent = new Map<string, number[]>();
  return {
    take(key, what) {
      const now = clock.monotonic();
      for (const [other, times] of recent) if (now - (times.at(-1) ?? 0) >= perMs) recent.delete(other);
      const times = (recent.get(key) ?? []).filter((at) => now - at < perMs);
      const [oldest] = times;
      if (times.length >= calls && oldest !== undefined)
        throw new TryLater(`more than ${calls} ${what} in ${perMs / 1000} s`, oldest + perMs - now);
      recent.set(key, [...times, now]);
    },
  };
}
