/** Notices that nothing goes on: then what is not needed for that can be given back. */
import type { Clock } from "../platform/clock.ts";

/** What went before: a start or calls, or only another heartbeat. */
export type Quietness = "work" | "nothing";

export interface QuietOptions {
  clock: Clock;
  signal: AbortSignal;
  /** Calls that run, and how many were answered so far. */
  calls(): { active: number; answered: number };
  onQuiet(after: Quietness): void;
}

export interface Quiet {
  /** The first connection is up: what a start needs is soon used for the last time. */
  connected(): void;
  /** To be called now and then, such as with each heartbeat. */
  look(): void;
}

/** How long a start goes on after its connection is up. */
export const settleMs = 5_000;
/** Heartbeats may come faster than is worth looking after. */
export const restMs = 20_000;

export function watchQuiet({ clock, signal, calls, onQuiet }: QuietOptions): Quiet {
  let started = false;
  let seen = 0;
  let lastAt = 0;
  const tell = (after: Quietness) => {
    lastAt = clock.monotonic();
    onQuiet(after);
  };
  return {
    connected() {
      if (started) return;
      started = true;
      void clock.sleep(settleMs, signal).then(() => signal.aborted || tell("work"));
    },
    look() {
      const { active, answered } = calls();
      if (!started || active > 0) return;
      if (answered !== seen) tell("work");
      else if (clock.monotonic() - lastAt >= restMs) tell("nothing");
      seen = answered;
    },
  };
}
