/** Counts calls per capability, so that `rate_limit` and `max_concurrent` hold over all callers and reconnects. */
import type { Clock } from "../platform/clock.ts";
import type { Capability } from "../policy/context.ts";
import type { ErrorKind } from "../tools/tool.ts";

export type Admission =
  /** Counted; `release` is to be called once, when the call has ended. */
  | { kind: "admitted"; release: () => void }
  /**
   * Over `rate_limit` is `policy_violation`: the owner allows no more, and asking again at once is pointless. Over
   * `max_concurrent` is `overloaded`: it passes as soon as one of the running calls ends.
   */
  | { kind: "refused"; errorKind: Extract<ErrorKind, "policy_violation" | "overloaded">; message: string };

export interface CallLimits {
  /** Judges and counts in one synchronous step. `rule` says where the capability stands, such as `default.capabilities[3]`. */
  admit(rule: string, capability: Pick<Capability, "rateLimit" | "maxConcurrent">): Admission;
}

interface Counter {
  running: number;
  /** Monotonic times of the calls that still count against `rate_limit`, oldest first. */
  starts: number[];
}

/** Survives a reload of the configuration: counts belong to the place of a rule, and outlive its text. */
export function callLimits(clock: Clock): CallLimits {
  const counters = new Map<string, Counter>();

  return {
    admit(rule, { rateLimit, maxConcurrent }) {
      const counter = counters.get(rule) ?? { running: 0, starts: [] };
      if (maxConcurrent !== null && counter.running >= maxConcurrent) {
        const message = `max_concurrent of ${rule} is ${maxConcurrent}, and as many calls run`;
        return { kind: "refused", errorKind: "overloaded", message };
      }
      const now = clock.monotonic();
      if (rateLimit) {
        const { calls, perMs } = rateLimit;
        counter.starts = counter.starts.filter((at) => now - at < perMs);
        if (counter.starts.length >= calls) {
          const waitMs = (counter.starts[counter.starts.length - calls] ?? now) + perMs - now;
          const message = `rate_limit of ${rule} is ${calls} calls in ${perMs / 1000} s; the next may come in ${Math.ceil(waitMs / 1000)} s`;
          return { kind: "refused", errorKind: "policy_violation", message };
        }
        counter.starts.push(now);
      } else counter.starts = [];
      counter.running++;
      counters.set(rule, counter);
      let released = false;
      return {
        kind: "admitted",
        release() {
          if (released) return;
          released = true;
          counter.running--;
          if (counter.running === 0 && counter.starts.length === 0) counters.delete(rule);
        },
      };
    },
  };
}
