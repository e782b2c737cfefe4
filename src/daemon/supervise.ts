/** Keeps one session running: tries again after every loss, with patience that only a healthy session resets. */
import { type BackoffOptions, backoffMs } from "../platform/backoff.ts";
import type { Clock } from "../platform/clock.ts";

/** Why a session ended. `lost` is retried; `shutdown` is a decision of ours or of an authenticated controller. */
export type SessionEnd =
  | { kind: "shutdown" }
  /** `retryAfterMs`: the controller said, authenticated, not to come back sooner. */
  | { kind: "lost"; cause: unknown; retryAfterMs?: number };

/** One connection, from Hello to end of stream. Must settle promptly once `signal` aborts. */
export type RunSession = (signal: AbortSignal) => Promise<SessionEnd>;

export interface SuperviseOptions {
  clock: Clock;
  backoff: BackoffOptions;
  /** A session that lived this long counts as healthy, so the next failure starts from zero. */
  healthyAfterMs: number;
  signal: AbortSignal;
  onRetry?: (event: { failures: number; delayMs: number; cause: unknown }) => void;
}

/** Runs sessions until one ends in `shutdown` or `signal` aborts. */
export async function supervise(
  runSession: RunSession,
  { clock, backoff, healthyAfterMs, signal, onRetry }: SuperviseOptions,
): Promise<void> {
  let failures = 0;
  while (!signal.aborted) {
    const startedAt = clock.monotonic();
    const end = await Promise.try(runSession, signal).catch((cause: unknown): SessionEnd => ({ kind: "lost", cause }));
    if (end.kind === "shutdown") return;
    if (signal.aborted) break;

    // Time alive, not "we got connected", is what resets the count: a proxy that accepts and
    // then drops us would otherwise be redialled at full speed for ever.
    const lived = clock.monotonic() - startedAt;
    failures = lived >= healthyAfterMs ? 1 : failures + 1;
    const delayMs = Math.max(backoffMs(failures, backoff), end.retryAfterMs ?? 0);
    onRetry?.({ failures, delayMs, cause: end.cause });
    await clock.sleep(delayMs, signal);
  }
}
