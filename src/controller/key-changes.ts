/**
 * New keysets in a running controller: noticed in the database, told to every host that is connected, and followed by the
 * planned one once all of those have said that they know it.
 */
import { advance, type TrustedKeyset } from "../envelope/keyset.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { recordAudit } from "./audit.ts";
import type { ControllerKeyring } from "./keys.ts";
import type { Sessions } from "./sessions.ts";

const { GoodbyeReason } = aegis.cluster.v1;

/** How often the database is looked at. */
const keyWatchMs = 500;
/** A host that has not confirmed a keyset after this long says Hello again, which brings it. */
export const confirmWithinMs = 60_000;

/** A keyset with the key that signs from then on. */
export interface KeysetStep {
  keyset: TrustedKeyset;
  commandKey: SigningKey;
}

export interface KeyChanges {
  /** Every keyset since `version`, in order: what a session lacks that was begun with that one. */
  since(version: number): readonly KeysetStep[];
  /** Looks for a newer keyset, and whether the planned one may follow. */
  look(): Promise<void>;
  /** Looks until `signal` aborts. */
  watch(signal: AbortSignal): Promise<void>;
}

export interface KeyChangesOptions {
  store: Store;
  keys: ControllerKeyring;
  sessions: Pick<Sessions, "bring" | "behind" | "end">;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  /** Another process has changed the database. */
  onForeign?(): void;
}

export function createKeyChanges({
  store,
  keys,
  sessions,
  clock,
  time,
  log,
  onForeign,
}: KeyChangesOptions): KeyChanges {
  const steps: KeysetStep[] = [];
  let toldAt = clock.monotonic();

  async function follow(): Promise<void> {
    for (const { signed } of await store.keysetsAfter(keys.keyset.version)) {
      const outcome = advance(keys.keyset, [signed]);
      if (outcome.kind === "refused")
        throw new AegisError("config_invalid", `the newest keyset in the database is refused: ${outcome.reason}`);
      await keys.use(outcome.keyset);
      const step = { keyset: keys.keyset, commandKey: keys.command };
      steps.push(step);
      sessions.bring(step);
      toldAt = clock.monotonic();
      log.info("keyset_in_use", { version: step.keyset.version });
    }
  }

  /** The planned keyset follows when no session is behind; one that stays behind is ended, and comes back with it. */
  async function proceed(): Promise<void> {
    const planned = await store.plannedKeyset();
    const { version } = keys.keyset;
    if (planned?.version !== version + 1) return;
    const behind = sessions.behind(version);
    if (behind.length > 0) {
      if (clock.monotonic() - toldAt < confirmWithinMs) return;
      for (const nodeId of behind) {
        log.warn("keyset_unconfirmed", { node_id: nodeId, version });
        sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REBALANCE, "the controller's new keys were not confirmed");
      }
    }
    await store.transaction(async (tx) => {
      if ((await tx.newestKeyset())?.version !== version) return;
      await tx.insertKeyset(planned);
      await tx.planKeyset(null);
      const detail = { version: planned.version, change: "the published key is in use" };
      await recordAudit(tx, { at: time(), kind: "keyset_changed", detail });
    });
    await follow();
  }

  const look = async () => {
    await follow();
    await proceed();
  };

  return {
    since: (version) => steps.filter(({ keyset }) => keyset.version > version),
    look,
    async watch(signal) {
      let seen: number | null = null;
      while (!signal.aborted) {
        try {
          const now = await store.foreignChanges();
          if (now !== seen) {
            await look();
            if (seen !== null) onForeign?.();
          } else if (await store.plannedKeyset()) await proceed();
          seen = now;
        } catch (error) {
          log.error("keyset_not_followed", { error: AegisError.from(error) });
        }
        await clock.sleep(keyWatchMs, signal);
      }
    },
  };
}
