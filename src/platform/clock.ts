/** Time and waiting. Everything that waits takes a Clock, so that no test sleeps. */
import { uptime } from "node:os";

export interface Clock {
  /** Epoch milliseconds, for timestamps that leave the process. */
  now(): number;
  /** Milliseconds that only grow and stand still while the machine is suspended. */
  monotonic(): number;
  /** Milliseconds since boot, suspended time included. */
  sinceBoot(): number;
  /** Resolves after `ms`, or as soon as `signal` aborts. Never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  sinceBoot: () => uptime() * 1000,
  sleep(ms, signal) {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const finish = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", finish);
        resolve();
      };
      // setTimeout turns anything above 2^31-1 into 1 ms.
      const timer = setTimeout(finish, Math.min(ms, 2 ** 31 - 1));
      signal.addEventListener("abort", finish);
    });
  },
};
