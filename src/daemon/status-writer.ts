/** Keeps the status file up to date without ever making the daemon wait for a disk. */
import { AegisError } from "../errors.ts";
import type { Log } from "../platform/log.ts";
import { type StatusReport, writeStatus } from "./status.ts";

export interface StatusWriter {
  /** Takes what changed; the rest stays. Nothing is written when nothing but the time changed. */
  update(change: Partial<Omit<StatusReport, "at">>): void;
  /** Resolves once what was last said is on disk. */
  flush(): Promise<void>;
}

export function statusWriter(stateDir: string, first: StatusReport, now: () => string, log: Log): StatusWriter {
  let current = first;
  let written = "";
  let writing: Promise<void> | null = null;
  let complained = false;

  async function write(): Promise<void> {
    for (;;) {
      const { at: _at, ...rest } = current;
      const text = JSON.stringify(rest);
      if (text === written) return;
      written = text;
      await writeStatus(stateDir, { ...current, at: now() }).catch((error: unknown) => {
        if (!complained) log.warn("status_not_written", { error: AegisError.from(error) });
        complained = true;
      });
    }
  }
  const start = () => {
    writing ??= write().finally(() => {
      writing = null;
    });
    return writing;
  };

  return {
    update(change) {
      current = { ...current, ...change };
      void start();
    },
    async flush() {
      await start();
      await start();
    },
  };
}
