/**
 * The controller's public keys, vouched for by a root key that the host pinned when it enrolled.
 * A host moves only forward along a chain of signed keysets; it never learns a root from anything but its current one.
 */
import { aegis } from "../wire/gen/messages.js";
import { whole } from "../wire/whole.ts";
import { importPublicKey, type PublicKey } from "./public-key.ts";
import { sha256, statement, uuidFromBytes } from "./statement.ts";

const { ControllerKeySet, KeyAlg, KeyState, KeyUse, SignedKeySet } = aegis.cluster.v1;

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
  /** The serialised SignedKeySet, as received. */
  readonly signed: Uint8Array;
  /** The serialised ControllerKeySet inside it. */
  readonly bytes: Uint8Array;
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
  if (!candidate.signedBy(candidate.rootKey)) return refuse("keyset_signature");
  const trusted = trust(candidate);
  return trusted.kind === "trusted" && rest.length > 0 ? advance(trusted.keyset, rest) : trusted;
}

/** A keyset this host stored earlier: its root must have signed it, in whichever of the two places. */
export function trustStored(rootKey: PublicKey, signed: Uint8Array): KeysetOutcome {
  const candidate = decode(signed);
  if (!candidate) return refuse("keyset_malformed");
  if (candidate.rootKey.kid !== rootKey.kid) return refuse("keyset_root");
  if (!candidate.signedBy(rootKey) && !candidate.alsoSignedBy(rootKey)) return refuse("keyset_signature");
  return trust(candidate);
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
    if (next.rootKey.kid !== at.rootKey.kid && !next.alsoSignedBy(next.rootKey)) return refuse("keyset_root");
    const outcome = trust(next);
    if (outcome.kind === "refused") return outcome;
    at = outcome.keyset;
  }
  return { kind: "trusted", keyset: at };
}

interface Candidate {
  controllerId: string;
  version: number;
  rootKey: PublicKey;
  digest: Uint8Array;
  keys: readonly aegis.cluster.v1.IControllerKey[];
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
function trust({ keys, controllerId, version, rootKey, digest, signed, bytes }: Candidate): KeysetOutcome {
  const active: PublicKey[] = [];
  const tokenKeys = new Map<string, PublicKey>();
  for (const entry of keys) {
    const key = entry.alg === KeyAlg.KEY_ALG_ED25519 && entry.public ? importPublicKey(entry.public) : null;
    if (!key || !Buffer.from(entry.keyId ?? []).equals(key.keyId)) continue;
    if (entry.use === KeyUse.KEY_USE_COMMAND && entry.state === KeyState.KEY_STATE_ACTIVE) active.push(key);
    if (entry.use === KeyUse.KEY_USE_TOKEN && isLive(entry.state)) tokenKeys.set(key.kid, key);
  }
  const [commandKey, ...others] = active;
  if (!commandKey || others.length > 0) return refuse("keyset_no_active_key");
  return { kind: "trusted", keyset: { controllerId, version, rootKey, digest, commandKey, tokenKeys, signed, bytes } };
}

function isLive(state: aegis.cluster.v1.KeyState | null | undefined): boolean {
  return (
    state === KeyState.KEY_STATE_ACTIVE || state === KeyState.KEY_STATE_NEXT || state === KeyState.KEY_STATE_RETIRING
  );
}
