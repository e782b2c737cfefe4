/**
 * Changes of the controller's keys, made in its data directory beside the controller that may be running on it: that one
 * notices, tells its hosts, and goes on with the new keys.
 */
import { loadControllerConfig } from "../config/controller.ts";
import { type KeysetKey, type TrustedKeyset, trustFirst } from "../envelope/keyset.ts";
import { fingerprint, importSigningKey, newSeed, type PublicKey, type SigningKey } from "../envelope/public-key.ts";
import { sha256 } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { writeFileAtomic } from "../platform/private-file.ts";
import type { KeysetRow, Queries, Store } from "../store/store.ts";
import { recordAudit } from "./audit.ts";
import { addPrivateKey, loadKey, newestKeyset, privateKeys, removePrivateKey } from "./keys.ts";
import {
  activated,
  announced,
  type KeysetContent,
  nextContent,
  revoked,
  signKeyset,
  without,
} from "./keyset-content.ts";

/** A key that signs no more is vouched for this long: hosts that were away longer follow by the root. */
const retiringMs = 365 * 24 * 60 * 60 * 1000;

export interface KeyChangeOptions {
  dataDir: string;
  store: Store;
  /** Where the root key lies, when it is not in keys/. */
  offlineRoot?: string;
  clock: Clock;
}

export interface KeyChange {
  /** The keyset that is in force now. */
  version: number;
  /** The one that follows by itself, once every connected host knows this one; null when this is all. */
  plannedVersion: number | null;
  key: PublicKey;
  former: PublicKey | null;
  /** Where the new root key is; null when the root stays. */
  rootPath: string | null;
}

/** A new command or token key: published first, in use once the connected hosts know it. */
export async function rotateKey(use: KeysetKey["use"], options: KeyChangeOptions): Promise<KeyChange> {
  const { store, dataDir, clock } = options;
  const { keyset, root } = await currentKeys(options);
  if (await store.plannedKeyset())
    throw new AegisError("conflict", "a change of keys is under way: a key is published and not in use yet", {
      hint: "aegis controller keys ls shows it; it ends by itself while the controller runs",
    });
  const now = clock.now();
  // Left by a change that a revocation overtook: the hosts know it already.
  const left = keyset.keys.find((one) => one.use === use && one.state === "next")?.key;
  const key = left ?? (await addPrivateKey(dataDir, use));
  const kept = without(await retired(store, keyset, now));
  const first = left ? keyset : nextContent(keyset, now, (keys) => announced(key, use)(kept(keys)));
  const second = nextContent(first, now, activated(key, use));
  await store.transaction(async (tx) => {
    const said = `${use} key ${fingerprint(key)} is published`;
    if (!left) await publish(tx, keyset, rowOf(first, root), said, now);
    await tx.planKeyset(rowOf(second, root));
  });
  const former = keyset.keys.find((one) => one.use === use && one.state === "active")?.key ?? null;
  return { version: first.version, plannedVersion: second.version, key, former, rootPath: null };
}

/** A key is denied from now on. When it is the one that signs, another takes its place in the same step. */
export async function revokeKey(wanted: string, options: KeyChangeOptions): Promise<KeyChange> {
  const { store, dataDir, clock } = options;
  const { keyset, root } = await currentKeys(options);
  const found = namedKey(keyset, wanted);
  const now = clock.now();
  if (found.state === "revoked")
    throw new AegisError("conflict", `the ${found.use} key ${fingerprint(found.key)} was revoked before`);
  const instead = found.state === "active" ? await addPrivateKey(dataDir, found.use) : null;
  const content = nextContent(keyset, now, revoked(found.key, instead));
  await store.transaction(async (tx) => {
    await publish(tx, keyset, rowOf(content, root), `${found.use} key ${fingerprint(found.key)} is revoked`, now);
    // What was planned was planned for another keyset; a key that it would have put in use stays published.
    await tx.planKeyset(null);
  });
  return {
    version: content.version,
    plannedVersion: null,
    key: instead ?? found.key,
    former: found.key,
    rootPath: null,
  };
}

/** Another root: the one before and the new one both sign. The new one lies beside the old one. */
export async function rotateRoot(options: KeyChangeOptions): Promise<KeyChange> {
  const { store, dataDir, offlineRoot, clock } = options;
  const { keyset, root } = await currentKeys(options);
  if (await store.plannedKeyset())
    throw new AegisError("conflict", "a change of keys is under way, and the new root would not have signed its end", {
      hint: "it ends by itself while the controller runs; then try again",
    });
  const now = clock.now();
  const { key, path } = offlineRoot === undefined ? await newRootHere(dataDir) : await newRootBeside(offlineRoot);
  const content = { ...nextContent(keyset, now, (keys) => [...keys]), rootKey: key };
  await store.transaction((tx) =>
    publish(tx, keyset, rowOf(content, key, root), `the root key is ${fingerprint(key)}`, now),
  );
  // It signs nothing any more, and whoever finds it could lead astray a host that has not followed yet.
  if (offlineRoot === undefined) await removePrivateKey(dataDir, root);
  return { version: content.version, plannedVersion: null, key, former: root, rootPath: path };
}

async function newRootHere(dataDir: string): Promise<{ key: SigningKey; path: string | null }> {
  return { key: await addPrivateKey(dataDir, "root"), path: null };
}

async function newRootBeside(offlineRoot: string): Promise<{ key: SigningKey; path: string }> {
  const seed = newSeed();
  const key = importSigningKey(seed);
  const path = `${offlineRoot}-${Buffer.from(key.keyId).toString("hex", 0, 8)}`;
  await writeFileAtomic(path, seed);
  return { key, path };
}

/** The newest keyset and the private root key that signs the next one. */
export async function currentKeys(options: KeyChangeOptions): Promise<{ keyset: TrustedKeyset; root: SigningKey }> {
  const { dataDir, store, offlineRoot } = options;
  await loadControllerConfig(dataDir);
  const keyset = await newestKeyset(store);
  const { kid } = keyset.rootKey;
  const root =
    offlineRoot === undefined ? (await privateKeys(dataDir)).get(kid) : await loadKey(offlineRoot).then(only(kid));
  if (root) return { keyset, root };
  throw new AegisError(
    "precondition_failed",
    offlineRoot === undefined
      ? `the root key ${fingerprint(keyset.rootKey)} is not in ${dataDir}/keys`
      : `${offlineRoot} is not the root key ${fingerprint(keyset.rootKey)}`,
    { hint: "bring the file that controller init wrote, and name it: --offline-root FILE" },
  );
}

const only =
  (kid: string) =>
  (key: SigningKey): SigningKey | undefined =>
    key.kid === kid ? key : undefined;

export const rowOf = (content: KeysetContent, root: SigningKey, formerRoot?: SigningKey): KeysetRow => ({
  version: content.version,
  signed: signKeyset(content, root, formerRoot),
  rootKey: root.raw,
  createdAt: content.createdMs,
});

export async function publish(
  tx: Queries,
  before: TrustedKeyset,
  row: KeysetRow,
  change: string,
  at: number,
): Promise<void> {
  const newest = await tx.newestKeyset();
  if (newest?.version !== before.version)
    throw new AegisError("conflict", "another command has changed the keys meanwhile; look, and try again", {
      hint: "aegis controller keys ls",
    });
  await tx.insertKeyset(row);
  await recordAudit(tx, { at, kind: "keyset_changed", detail: { version: row.version, change } });
}

/** Keys that have been retiring for longer than they are vouched for. */
async function retired(queries: Queries, keyset: TrustedKeyset, now: number): Promise<Set<string>> {
  const since = new Map<string, number>();
  for (const row of await queries.keysetsAfter(0)) {
    const outcome = trustFirst(keyIdOf(row), [row.signed]);
    if (outcome.kind === "refused") continue;
    for (const { key, state } of outcome.keyset.keys)
      if (state === "retiring" && !since.has(key.kid)) since.set(key.kid, row.createdAt);
  }
  const old = keyset.keys.filter(({ key, state }) => {
    return state === "retiring" && now - (since.get(key.kid) ?? now) > retiringMs;
  });
  return new Set(old.map(({ key }) => key.kid));
}

const keyIdOf = ({ rootKey }: KeysetRow): Uint8Array => sha256(rootKey);

/** By its use, which means the one that signs, or by the beginning of its id. */
function namedKey(keyset: TrustedKeyset, wanted: string): KeysetKey {
  const byUse = keyset.keys.filter(({ use, state }) => use === wanted && state === "active");
  const text = wanted.replace(/^SHA256:/, "");
  const byId = keyset.keys.filter(({ key }) => text.length >= 6 && plainId(key).startsWith(text));
  const [found, ...others] = byUse.length > 0 ? byUse : byId;
  if (found && others.length === 0) return found;
  throw new AegisError(
    others.length > 0 ? "conflict" : "not_found",
    `${JSON.stringify(wanted)} is ${others.length > 0 ? "more than one" : "none"} of the controller's keys`,
    { hint: "command, token, or at least 6 characters of an id: aegis controller keys ls" },
  );
}

const plainId = (key: PublicKey): string => fingerprint(key).replace(/^SHA256:/, "");
