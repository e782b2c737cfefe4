/** Cuts the streams of hosts that were revoked in the database, whoever did it: this process or one beside it. */
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import type { Sessions } from "./sessions.ts";

const { GoodbyeReason } = aegis.cluster.v1;

/** A command line that changes the database beside this process is noticed this soon. */
const watchEveryMs = 500;

export interface Revocations {
  /** Ends the session of every connected host whose row is revoked. */
  enforce(): Promise<void>;
  /** Looks after changes of other processes until `signal` aborts. */
  watch(signal: AbortSignal): Promise<void>;
}

export interface RevocationOptions {
  store: Store;
  sessions: Pick<Sessions, "end" | "nodeIds">;
  clock: Clock;
  log: Log;
}

export function createRevocations({ store, sessions, clock, log }: RevocationOptions): Revocations {
  async function enforce(): Promise<void> {
    for (const nodeId of sessions.nodeIds()) {
      const row = await store.node(nodeId);
      if (row?.revokedAt === null) continue;
      sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REVOKED, "this host was revoked");
      log.info("host_revoked", { node_id: nodeId });
    }
  }
  return {
    enforce,
    async watch(signal) {
      let seen: number | null = null;
      while (!signal.aborted) {
        try {
          const now = await store.foreignChanges();
          if (seen !== null && now !== seen) await enforce();
          seen = now;
        } catch (error) {
          log.error("revocations_not_checked", { error: AegisError.from(error) });
        }
        await clock.sleep(watchEveryMs, signal);
      }
    },
  };
}
