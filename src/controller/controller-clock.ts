/** The one time of a controller process: the wall clock at its start, carried by the monotonic one, so that no step splits it. */
import type { Clock } from "../platform/clock.ts";

export function controllerClock(clock: Clock): () => number {
  const offset = clock.now() - clock.monotonic();
  return () => Math.round(offset + clock.monotonic());
}
