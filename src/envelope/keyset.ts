/**
 * The controller's public keys, vouched for by a root key that the host pinned when it enrolled.
 * A host moves only forward along a chain of signed keysets; it never learns a root from anything but its current one.
 */
import { aegis } from "../wire/gen/messages.js";
import { whole } from "../wire/whole.ts";
import { importPublicKey, type PublicKey } from "./public-key.ts";
import { sha256, statement, uuidFromBytes } from "./statement.ts";

const { ControllerKeySet, KeyAlg, SignedKeySet } = aegis.cluster.v1;

/** A keyset that verified. Only this module makes one. */
export interface TrustedKeyset {
  readonly controllerId: string;
  readonly version: number;
  readonly rootKey: PublicKey;
  /** SHA-256 of the keyset bytes. */
  readonly digest: Uint8Array;
  /** The one that signs commands now. */
  readonly commandKey: PublicKey;
  /** Keys that may have signed a token, by `kid`: any state but REVOKED. */
  readonly tokenKeys: ReadonlyMap<string, PublicKey>;
  /** Every key of a use, algorithm and state that this version knows. */
  readonly keys: readonly KeysetKey[];
  /** `spki-sha256:` of every TLS key that the controller may be met with; empty = this keyset does not say. */
  readonly tlsPins: readonly string[];
  /** Those that an earlier keyset listed and this one does not, at most 64: nobody's settings bring them back. */
  readonly withdrawnPins: readonly string[];
  /** The controller's clock when it was made. */
  readonly createdMs: number;
  /** The serialised SignedKeySet, as received. */
  readonly signed: Uint8Array;
  /** The serialised ControllerKeySet inside it. */
  readonly bytes: Uint8Array;
  /**
   * Serialised SignedKeySets that lead from the first root to this one's: one for each root there was. With them and the
   * first root's id `trustFirst` comes to this keyset again.
   */
  readonly anchors: readonly Uint8Array[];
}

export const keyUses = ["command", "token"] as const;
export const keyStates = ["active", "next", "retiring", "revoked"] as const;

export interface KeysetKey {
  readonly key: PublicKey;
  readonly use: (typeof keyUses)[number];
  readonly state: (typeof keyStates)[number];
}

export type KeysetFailure =
  | "keyset_malformed"
  | "keyset_missing"
  | "keyset_signature"
  | "keyset_root"
  | "keyset_controller"
  | "keyset_rollback"
  | "keyset_equivocation"
  | "keyset_no_active_key";

export type KeysetOutcome = { kind: "trusted"; keyset: TrustedKeyset } | { kind: "refused"; reason: KeysetFailure };

const refuse = (reason: KeysetFailure): KeysetOutcome => ({ kind: "refused", reason });

/** The start of trust: a chain whose first keyset carries, and is signed by, the root with this key id (the token's `crk`). */
export function trustFirst(rootKeyId: Uint8Array, chain: readonly Uint8Array[]): KeysetOutcome {
  const [first, ...rest] = chain;
  if (!first) return refuse("keyset_missing");
  const candidate = decode(first);
  if (!candidate) return refuse("keyset_malformed");
  if (!Buffer.from(candidate.rootKey.keyId).equals(rootKeyId)) return refuse("keyset_root");
  // By which of the two signatures depends on whether it is the one that brought this root.
  if (!candidate.signedBy(candidate.rootKey) && !candidate.alsoSignedBy(candidate.rootKey))
    return refuse("keyset_signature");
  const trusted = trust(candidate, { anchors: [first], withdrawnPins: [] });
  return trusted.kind === "trusted" && rest.length > 0 ? advance(trusted.keyset, rest) : trusted;
}

/** A keyset this host stored earlier: its root must have signed it, in whichever of the two places. */
export function trustStored(rootKey: PublicKey, signed: Uint8Array): KeysetOutcome {
  const candidate = decode(signed);
  if (!candidate) return refuse("keyset_malformed");
  if (candidate.rootKey.kid !== rootKey.kid) return refuse("keyset_root");
  if (!candidate.signedBy(rootKey) && !candidate.alsoSignedBy(rootKey)) return refuse("keyset_signature");
  return trust(candidate, { anchors: [signed], withdrawnPins: [] });
}

/** Follows `chain` (oldest first) from what is trusted now. A change of root needs the old root's signature and the new one's. */
export function advance(current: TrustedKeyset, chain: readonly Uint8Array[]): KeysetOutcome {
  let at = current;
  if (chain.length === 0) return refuse("keyset_missing");
  for (const signed of chain) {
    const next = decode(signed);
    if (!next) return refuse("keyset_malformed");
    if (next.controllerId !== at.controllerId) return refuse("keyset_controller");
    if (next.version < at.version) return refuse("keyset_rollback");
    if (next.version === at.version) {
      if (!Buffer.from(next.digest).equals(at.digest)) return refuse("keyset_equivocation");
      continue;
    }
    if (!next.signedBy(at.rootKey)) return refuse("keyset_signature");
    const newRoot = next.rootKey.kid !== at.rootKey.kid;
    if (newRoot && !next.alsoSignedBy(next.rootKey)) return refuse("keyset_root");
    const outcome = trust(next, {
      anchors: newRoot ? [...at.anchors, signed] : at.anchors,
      withdrawnPins: withdrawn([...at.withdrawnPins, ...at.tlsPins], next.tlsPins),
    });
    if (outcome.kind === "refused") return outcome;
    at = outcome.keyset;
  }
  return { kind: "trusted", keyset: at };
}

/** A keyset that a host stored, with the pins that it knew to be withdrawn then. */
export const withWithdrawn = (keyset: TrustedKeyset, pins: readonly string[]): TrustedKeyset => ({
  ...keyset,
  withdrawnPins: withdrawn([...pins, ...keyset.withdrawnPins], keyset.tlsPins),
});

/** The oldest are those that a host has in its settings since it enrolled; of later ones the newest matter. */
const oldestWithdrawn = 8;
const newestWithdrawn = 56;
const maxPins = 16;
const pinForm = /^spki-sha256:[A-Za-z0-9_-]{43}$/;

const withdrawn = (known: readonly string[], listed: readonly string[]): string[] =>
  [...new Set(known)]
    .filter((pin) => !listed.includes(pin))
    .filter((_, at, all) => at < oldestWithdrawn || at >= all.length - newestWithdrawn);

interface Candidate {
  controllerId: string;
  version: number;
  rootKey: PublicKey;
  digest: Uint8Array;
  keys: readonly aegis.cluster.v1.IControllerKey[];
  tlsPins: readonly string[];
  createdMs: number;
  signed: Uint8Array;
  bytes: Uint8Array;
  signedBy(key: PublicKey): boolean;
  alsoSignedBy(key: PublicKey): boolean;
}

function decode(signed: Uint8Array): Candidate | null {
  try {
    const envelope = SignedKeySet.decode(signed);
    const bytes = envelope.keyset;
    const keyset = ControllerKeySet.decode(bytes);
    const version = whole(keyset.version);
    const rootKey = importPublicKey(keyset.rootKey);
    if (!rootKey || !version || keyset.controllerId.length !== 16) return null;
    const controllerId = uuidFromBytes(keyset.controllerId);
    const said = statement("keyset", { controllerId, version, keyset: bytes });
    return {
      controllerId,
      version,
      rootKey,
      digest: sha256(bytes),
      keys: keyset.keys,
      tlsPins: keyset.tlsPins.filter((pin) => pinForm.test(pin)).slice(0, maxPins),
      createdMs: whole(keyset.createdMs) ?? 0,
      signed,
      bytes,
      signedBy: (key) => key.verify(said, envelope.signature),
      alsoSignedBy: (key) => key.verify(said, envelope.newRootSignature),
    };
  } catch {
    return null;
  }
}

/** Entries of a use, algorithm or state this version does not know are passed over; exactly one command key must be active. */
function trust(
  { keys: entries, ...candidate }: Candidate,
  { anchors, withdrawnPins }: Pick<TrustedKeyset, "anchors" | "withdrawnPins">,
): KeysetOutcome {
  const keys: KeysetKey[] = [];
  for (const entry of entries) {
    const key = entry.alg === KeyAlg.KEY_ALG_ED25519 && entry.public ? importPublicKey(entry.public) : null;
    const use = keyUses[(entry.use ?? 0) - 1];
    const state = keyStates[(entry.state ?? 0) - 1];
    if (!key || !use || !state || !Buffer.from(entry.keyId ?? []).equals(key.keyId)) continue;
    keys.push({ key, use, state });
  }
  const [commandKey, ...others] = keys.filter(({ use, state }) => use === "command" && state === "active");
  if (!commandKey || others.length > 0) return refuse("keyset_no_active_key");
  const tokenKeys = keys.filter(({ use, state }) => use === "token" && state !== "revoked");
  const { controllerId, version, rootKey, digest, tlsPins, createdMs, signed, bytes } = candidate;
  return {
    kind: "trusted",
    keyset: {
      ...{ controllerId, version, rootKey, digest, tlsPins, withdrawnPins, createdMs, signed, bytes, anchors, keys },
      commandKey: commandKey.key,
      tokenKeys: new Map(tokenKeys.map(({ key }) => [key.kid, key])),
    },
  };
}

/** The number that stands for each on the wire. */
export const keyUseNumber = (use: KeysetKey["use"]): number => keyUses.indexOf(use) + 1;
export const keyStateNumber = (state: KeysetKey["state"]): number => keyStates.indexOf(state) + 1;
