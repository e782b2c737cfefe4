/** Notices that nothing goes on any more after something did: then what only that needed can be given back. */
import type { Clock } from "../platform/clock.ts";

export interface QuietOptions {
  clock: Clock;
  signal: AbortSignal;
  /** Calls that run, and how many were answered so far. */
  calls(): { active: number; answered: number };
  onQuiet(): void;
}

export interface Quiet {
  /** The first connection is up: what a start needs is soon used for the last time. */
  connected(): void;
  /** To be called now and then, such as with each heartbeat. */
  look(): void;
}

/** How long a start goes on after its connection is up. */
export const settleMs = 5_000;

export function watchQuiet({ clock, signal, calls, onQuiet }: QuietOptions): Quiet {
  let started = false;
  let seen = 0;
  return {
    connected() {
      if (started) return;
      started = true;
      void clock.sleep(settleMs, signal).then(() => signal.aborted || onQuiet());
    },
    look() {
      const { active, answered } = calls();
      if (active > 0 || answered === seen) return;
      seen = answered;
      onQuiet();
    },
  };
}
