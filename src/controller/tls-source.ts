/** Where the controller's certificate comes from: made here, brought by the operator, or that of a front end that ends TLS. */
import type { Clock } from "../platform/clock.ts";
import type { Store } from "../store/store.ts";
import { confirmWithinMs } from "./key-changes.ts";
import { privateKeys } from "./keys.ts";
import type { Sessions } from "./sessions.ts";
import { expiresAt, loadTls, madeAt, nextTls, prepareNextTls, switchTls } from "./tls.ts";
import { listedSince } from "./tls-pins.ts";
import { requireFit, type TlsSource } from "./tls-renewal.ts";

const dayMs = 24 * 60 * 60_000;
/** A certificate of ours gets its successor this long before it ends, */
export const renewBeforeMs = 90 * dayMs;
/** and hosts that are away have this long to hear of it. */
export const hearWithinMs = 60 * dayMs;
/** Whoever judges dates would be locked out after that. */
const latestMs = dayMs;

export interface OwnSourceOptions {
  dataDir: string;
  /** The name that hosts dial. */
  host: string;
  store: Pick<Store, "keysetsAfter" | "nodesBehind" | "compatNodeCount" | "newestKeyset">;
  clock: Clock;
}

/** A new CA and a new leaf: the CA's key was used once and is gone. */
export function ownSource({ dataDir, host, store, clock }: OwnSourceOptions): TlsSource {
  /** Without the root key nothing could be published, and a certificate that no host knows must not be served. */
  const hasRoot = async () => {
    const rootKey = (await store.newestKeyset())?.rootKey;
    return [...(await privateKeys(dataDir)).values()].some((key) => rootKey && Buffer.from(key.raw).equals(rootKey));
  };
  return {
    async next(current) {
      const prepared = await nextTls(dataDir);
      if (prepared || clock.now() < expiresAt(current) - renewBeforeMs || !(await hasRoot())) return prepared;
      return await prepareNextTls(dataDir, host, clock.now());
    },
    async heard(next, current) {
      if (clock.now() >= Math.min(madeAt(next) + hearWithinMs, expiresAt(current) - latestMs)) return true;
      const version = await listedSince(store, next.pins[0] ?? "");
      if (version === null) return false;
      return (await store.nodesBehind(version)).length === 0 && (await store.compatNodeCount()) === 0;
    },
    take: () => switchTls(dataDir),
    alsoPublished: () => [],
  };
}

export interface BroughtSourceOptions {
  dataDir: string;
  files: { certPath: string; keyPath: string };
  store: Pick<Store, "keysetsAfter">;
  sessions: Pick<Sessions, "behind">;
  clock: Clock;
}

/** Files that somebody else renews. Nobody says beforehand, so those hosts hear in time that are connected. */
export function broughtSource({ dataDir, files, store, sessions, clock }: BroughtSourceOptions): TlsSource {
  let seen: { certPem: string; at: number } | null = null;
  return {
    async next(current) {
      const found = await loadTls(dataDir, files);
      if (found.certPem === current.certPem && found.keyPem === current.keyPem) return null;
      requireFit(found);
      return found;
    },
    async heard(next) {
      if (seen?.certPem !== next.certPem) seen = { certPem: next.certPem, at: clock.monotonic() };
      if (clock.monotonic() - seen.at >= confirmWithinMs) return true;
      const version = await listedSince(store, next.pins[0] ?? "");
      return version !== null && sessions.behind(version).length === 0;
    },
    async take() {},
    alsoPublished: () => [],
  };
}

/** The certificate of what stands in front of us: only its pins matter, and it is used when its owner says so. */
export function frontSource(dataDir: string, certPath: string): TlsSource {
  return {
    async next(current) {
      const found = await loadTls(dataDir, { certPath });
      return found.certPem === current.certPem ? null : found;
    },
    heard: async () => true,
    async take() {},
    // Its former keys, the newest: nobody tells us when it has changed.
    alsoPublished: (listed) => listed,
  };
}
