/** How long to wait before the next attempt: a fixed schedule, its last entry for ever, full jitter. */
export interface BackoffOptions {
  /** Upper bounds in milliseconds, one for each consecutive failure; never empty. */
  scheduleMs: readonly number[];
  /** Uniform in [0, 1). */
  random: () => number;
}

/** `failures` counts from 1; 0 waits not at all. */
export function backoffMs(failures: number, { scheduleMs, random }: BackoffOptions): number {
  const ceiling = scheduleMs[Math.min(failures, scheduleMs.length) - 1] ?? 0;
  return Math.round(random() * ceiling);
}
