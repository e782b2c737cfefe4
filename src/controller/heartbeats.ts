/** Writes down when hosts were last heard: many at a time, so that thousands of them cost the store a write a second. */
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Queries } from "../store/store.ts";

/** Between two writes. The first after a quiet time is at once. */
export const writeEveryMs = 1_000;

export interface HeartbeatsOptions {
  store: Pick<Queries, "nodeHeartbeats">;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
}

/** Of one host that is heard often only the last time is kept. */
export function createHeartbeats({ store, clock, time, log }: HeartbeatsOptions): (nodeId: string) => void {
  const never = new AbortController().signal;
  let heard = new Map<string, number>();
  let writing = false;

  async function write(): Promise<void> {
    writing = true;
    while (heard.size > 0) {
      const batch = heard;
      heard = new Map();
      await store
        .nodeHeartbeats(batch)
        .catch((error: unknown) => log.error("store_failed", { hosts: batch.size, error: AegisError.from(error) }));
      await clock.sleep(writeEveryMs, never);
    }
    writing = false;
  }

  return (nodeId) => {
    heard.set(nodeId, time());
    if (!writing) void write();
  };
}
