/** Signals as the rest of the program sees them: those that ask to end as an AbortSignal, the one that asks to read again. */
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

/** Calls `again` at each SIGHUP, which then ends nothing. Answers how to end that. Windows has no such wish. */
export function onHangup(again: () => void): () => void {
  if (process.platform === "win32") return () => {};
  process.on("SIGHUP", again);
  return () => process.off("SIGHUP", again);
}
