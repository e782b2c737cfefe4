/** Ed25519 keys as the protocol uses them: checked on import, named by the SHA-256 of their raw bytes. */
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign, verify } from "node:crypto";
import { Point } from "@noble/ed25519";
import { sha256 } from "./statement.ts";

export interface PublicKey {
  /** Raw, 32 bytes. */
  readonly raw: Uint8Array;
  /** SHA-256 of `raw`, 32 bytes. */
  readonly keyId: Uint8Array;
  /** The key id in base64url, as JWT `kid` and `crk` spell it. */
  readonly kid: string;
  /** False for a wrong signature and for one that is not 64 bytes. */
  verify(message: Uint8Array, signature: Uint8Array): boolean;
}

export interface SigningKey extends PublicKey {
  /** 64 bytes. */
  sign(message: Uint8Array): Uint8Array;
}

const spkiPrefix = Buffer.from("302a300506032b6570032100", "hex");
const pkcs8Prefix = Buffer.from("302e020100300506032b657004220420", "hex");

/** How many checked keys are kept: a check costs milliseconds, and every session asks again. */
const cacheEntries = 4_096;
const cache = new Map<string, PublicKey>();

/**
 * A usable public key, or null. node:crypto imports keys of small order and then accepts forgeries for them, so what it
 * would import is checked first: canonical encoding, not of small order, in the prime-order subgroup.
 */
export function importPublicKey(raw: Uint8Array): PublicKey | null {
  const kid = Buffer.from(sha256(raw)).toString("base64url");
  const known = cache.get(kid);
  if (known) return known;
  if (raw.length !== 32 || !isStrictPoint(raw)) return null;
  const key = openPublicKey(raw);
  if (cache.size >= cacheEntries) cache.delete(cache.keys().next().value ?? "");
  cache.set(kid, key);
  return key;
}

/**
 * A key that `importPublicKey` took before this program stored it: it is not judged again, which would be a quarter of
 * what letting a host in costs. Null for what has not 32 bytes.
 */
export const importStoredKey = (raw: Uint8Array): PublicKey | null => (raw.length === 32 ? openPublicKey(raw) : null);

const openPublicKey = (raw: Uint8Array): PublicKey =>
  publicKeyOf(createPublicKey({ key: Buffer.concat([spkiPrefix, raw]), format: "der", type: "spki" }), raw);

/** The key whose raw 32-byte seed this is. Throws RangeError on any other length. */
export function importSigningKey(seed: Uint8Array): SigningKey {
  if (seed.length !== 32) throw new RangeError(`an Ed25519 seed has 32 bytes, this one has ${seed.length}`);
  const secret = createPrivateKey({ key: Buffer.concat([pkcs8Prefix, seed]), format: "der", type: "pkcs8" });
  const open = createPublicKey(secret);
  const raw = open.export({ format: "der", type: "spki" }).subarray(spkiPrefix.length);
  return { ...publicKeyOf(open, raw), sign: (message) => sign(null, message, secret) };
}

export const newSeed = (): Uint8Array => randomBytes(32);

function publicKeyOf(key: KeyObject, raw: Uint8Array): PublicKey {
  const keyId = sha256(raw);
  return {
    raw: Uint8Array.from(raw),
    keyId,
    kid: Buffer.from(keyId).toString("base64url"),
    verify: (message, signature) => signature.length === 64 && verify(null, message, key, signature),
  };
}

function isStrictPoint(raw: Uint8Array): boolean {
  try {
    const point = Point.fromBytes(raw);
    return !point.isSmallOrder() && point.isTorsionFree();
  } catch {
    return false;
  }
}

/** `SHA256:` and base64 without padding, as people compare fingerprints. */
export const fingerprint = ({ keyId }: Pick<PublicKey, "keyId">): string =>
  `SHA256:${Buffer.from(keyId).toString("base64").replace(/=+$/, "")}`;
