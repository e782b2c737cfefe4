/** Turns the signals that ask a process to end into an AbortSignal: the first asks, the second insists. */
import { constants } from "node:os";

/** The value of `signal.reason`; SIGPIPE stands for a reader of stdout that is gone. */
export interface StoppedBySignal {
  signal: "SIGINT" | "SIGTERM" | "SIGPIPE";
}

const stopping = ["SIGINT", "SIGTERM"] as const;

/** What a shell reports for a process that `signal` ended. */
export const exitStatusOf = (signal: NodeJS.Signals): number => 128 + constants.signals[signal];

/** `insisted` is called with the exit status when a second signal comes while the first is still being obeyed. */
export function stopOnSignals(stop: AbortController, insisted: (status: number) => void): void {
  for (const name of stopping) {
    process.on(name, () => {
      if (stop.signal.aborted) insisted(exitStatusOf(name));
      else stop.abort({ signal: name } satisfies StoppedBySignal);
    });
  }
}
