/** A session's keys are good for a week: before it is over the session ends, at a moment when it carries no call if there is one. */
import type { Clock } from "../platform/clock.ts";
import { aegis } from "../wire/gen/messages.js";
import type { NodeSession } from "./node-session.ts";

const { GoodbyeReason } = aegis.cluster.v1;

const hourMs = 60 * 60_000;
/** From `calmMs` on it ends as soon as it carries no call, at `mostMs` in any case; hosts that came together leave apart. */
export const sessionAge = { calmMs: 6.5 * 24 * hourMs, mostMs: 7 * 24 * hourMs, spreadMs: 6 * hourMs, lookMs: 60_000 };

export async function endWithAge(
  session: Pick<NodeSession, "goodbye" | "carries">,
  { clock, signal, random = Math.random }: { clock: Clock; signal: AbortSignal; random?: () => number },
): Promise<void> {
  const { calmMs, mostMs, spreadMs, lookMs } = sessionAge;
  const began = clock.monotonic();
  await clock.sleep(calmMs + random() * spreadMs, signal);
  while (!signal.aborted && session.carries > 0 && clock.monotonic() - began < mostMs)
    await clock.sleep(lookMs, signal);
  if (!signal.aborted) session.goodbye(GoodbyeReason.GOODBYE_REASON_REBALANCE, "this session is a week old");
}
