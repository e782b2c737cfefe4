/** Ended runs that stay at hand for readers who come back: the newest of them, each as what it told and nothing else. */
import type { Clock } from "../platform/clock.ts";
import type { LiveRun, Run, RunEnd } from "./fleet-run.ts";

/**
 * How long, how many, and how many characters of events in all; the oldest goes first, the newest stays. Whoever asks for
 * one that has gone is told from the store, without live output.
 */
export const keptRunsLimits = { forMs: 10 * 60_000, count: 1_000, chars: 8 * 1024 * 1024 };

/** What a run takes besides its events, in characters. */
const runChars = 1_000;

export interface KeptRuns {
  /** One that has ended, like this. */
  add(run: LiveRun, end: RunEnd): void;
  get(runId: string): Run | null;
  /** Roughly what they hold, in characters. */
  readonly size: number;
}

export function keptRuns(clock: Pick<Clock, "monotonic">): KeptRuns {
  /** In the order they ended. */
  const kept = new Map<string, { run: Run; at: number; chars: number }>();
  let size = 0;

  function forget(): void {
    for (const [runId, { at, chars }] of kept) {
      const old = clock.monotonic() - at > keptRunsLimits.forMs;
      const tooMany = kept.size > 1 && (kept.size > keptRunsLimits.count || size > keptRunsLimits.chars);
      if (!old && !tooMany) return;
      kept.delete(runId);
      size -= chars;
    }
  }

  return {
    get size() {
      return size;
    },
    add(run, end) {
      const chars = runChars + run.events.size;
      kept.set(run.runId, { run: told(run, end), at: clock.monotonic(), chars });
      size += chars;
      forget();
    },
    get(runId) {
      forget();
      return kept.get(runId)?.run ?? null;
    },
  };
}

/** Without what carried it: its hosts and their tools, its requests and its answers. */
function told({ runId, principal, abortOnDisconnect, events, cancel }: LiveRun, end: RunEnd): Run {
  const { name, tenantId } = principal;
  const { alreadyTerminal } = cancel("caller");
  return {
    ...{ runId, abortOnDisconnect, events, end },
    principal: { name, tenantId, scopes: [], contexts: [] },
    done: Promise.resolve(end),
    cancel: () => ({ cancelled: 0, alreadyTerminal }),
  };
}
