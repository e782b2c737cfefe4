/** Remembers which commands were seen in the last hour, so that an honest dispatch that comes twice runs once. */
import type { Clock } from "../platform/clock.ts";

export const replayLimits = { ageMs: 60 * 60_000, commands: 16_384 };

export interface ReplayGuard {
  /** True the first time; marks the command as seen in the same step. */
  firstSight(commandId: string): boolean;
}

export function replayGuard(clock: Clock): ReplayGuard {
  const seen = new Map<string, number>();
  return {
    firstSight(commandId) {
      const now = clock.monotonic();
      for (const [id, at] of seen) {
        if (now - at <= replayLimits.ageMs && seen.size < replayLimits.commands) break;
        seen.delete(id);
      }
      if (seen.has(commandId)) return false;
      seen.set(commandId, now);
      return true;
    },
  };
}
