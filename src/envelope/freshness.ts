/**
 * How old a command is, by the controller's clock and not by the host's: an estimate carried by the host's monotonic
 * clock, which is handed in. A relay has 30 seconds in all to hold things back, and what it spends on the handshake is gone.
 */
export const maxCommandAgeMs = 30_000;

/** A session ends when the boot clock gains this much on the monotonic one: the machine slept, and its estimate with it. */
export const maxSuspendMs = 5_000;
export const tickMs = 5_000;
/** A tick this late means that the process was stopped. */
export const maxTickDelayMs = 15_000;

export interface FreshnessStart {
  /** The controller's time in ACCEPT. */
  serverTimeMs: number;
  /** Monotonic times at which Hello was written and ACCEPT arrived. */
  helloWrittenAt: number;
  acceptReceivedAt: number;
  /** Boot clock when Hello was written. */
  bootAt: number;
}

export interface Freshness {
  /** Controller time, at the latest it can be now. */
  estimateMs(monotonic: number): number;
  /** Whether a command stamped `timeMs` may still run. A stamp ahead of the estimate moves the estimate. */
  admits(timeMs: number, monotonic: number): boolean;
  /** Whether the process or the machine stood still for too long; asked before anything received is acted on. */
  stoodStill(monotonic: number, sinceBoot: number): boolean;
  /** Says that the regular tick came. */
  tick(monotonic: number): void;
}

export function freshness(start: FreshnessStart): Freshness {
  // Counted from the moment Hello was written: an ACCEPT that was held back cannot turn the estimate back.
  let offset = start.serverTimeMs - start.helloWrittenAt;
  const allowanceMs = maxCommandAgeMs - (start.acceptReceivedAt - start.helloWrittenAt);
  // Sleep during the handshake counts too: the monotonic clock missed it.
  const bootOffset = start.bootAt - start.helloWrittenAt;
  let lastTick = start.acceptReceivedAt;
  return {
    estimateMs: (monotonic) => monotonic + offset,
    admits(timeMs, monotonic) {
      const ageMs = monotonic + offset - timeMs;
      if (ageMs > allowanceMs) return false;
      if (ageMs < 0) offset -= ageMs;
      return true;
    },
    stoodStill(monotonic, sinceBoot) {
      return sinceBoot - monotonic - bootOffset > maxSuspendMs || monotonic - lastTick > tickMs + maxTickDelayMs;
    },
    tick(monotonic) {
      lastTick = monotonic;
    },
  };
}
