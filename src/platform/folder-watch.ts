/** Tells when something in a folder has changed, as far as the system tells; whoever relies on it looks from time to time too. */
import { watch } from "node:fs";
import { untilAbort } from "./until-abort.ts";

export interface FolderWatch {
  /** Resolves after the next change, or at once when there was one since the last call; also when `signal` aborts. */
  changed(signal: AbortSignal): Promise<void>;
  close(): void;
}

export function watchFolder(path: string): FolderWatch {
  let pending = false;
  let wake: (() => void) | null = null;
  const note = () => {
    pending = true;
    wake?.();
  };
  let close = () => {};
  try {
    const watcher = watch(path, note);
    // Out of watches, or the folder is gone: from now on only looking helps.
    watcher.on("error", note);
    close = () => watcher.close();
  } catch {
    // The same.
  }
  return {
    async changed(signal) {
      const change = new Promise<void>((resolve) => {
        wake = resolve;
      });
      if (!pending) await untilAbort(change, signal);
      wake = null;
      pending = false;
    },
    close: () => close(),
  };
}
