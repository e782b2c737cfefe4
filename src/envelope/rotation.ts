/**
 * A new key for a known node, asked for with the old key and the new one; the same key on both sides asks for a new token.
 * The request is the peer's, byte for byte; the grant is ours, without which anybody in between could fake the answer.
 */
import { aegis } from "../wire/gen/messages.js";
import { importPublicKey, type PublicKey, type SigningKey } from "./public-key.ts";
import { type StatementValues, sha256, statement, uuidBytes } from "./statement.ts";

const { RotateEdgeKeyInner } = aegis.cluster.v1;

export const rotationNonceBytes = 32;
/** ASCII, before what the new key signs. */
const label = "aegis-edge-rotate";

export interface Rotation {
  nodeId: string;
  newKey: PublicKey;
  /** 32 bytes, new for each request: a request counts once. */
  nonce: Uint8Array;
  /** The serialised RotateEdgeKeyInner, which the old key signs. */
  bytes: Uint8Array;
}

/** What goes into RotateEdgeKeyRequest, besides a token that nobody needs. */
export interface SignedRotation {
  bytes: Uint8Array;
  /** By the old key, over `bytes`. */
  oldSignature: Uint8Array;
  /** By the new key, over the digest of what is asked for. */
  newSignature: Uint8Array;
}

export function signRotation(input: {
  nodeId: string;
  oldKey: SigningKey;
  newKey: SigningKey;
  nonce: Uint8Array;
}): SignedRotation {
  const { nodeId, oldKey, newKey, nonce } = input;
  const bytes = RotateEdgeKeyInner.encode({ nodeId, newPublicKey: newKey.raw, nonce }).finish();
  return {
    bytes,
    oldSignature: oldKey.sign(bytes),
    newSignature: newKey.sign(rotationDigest(nodeId, newKey.raw, nonce)),
  };
}

/** What a request asks for, or null when it can be nobody's. Nothing in it is verified. */
export function readRotation(bytes: Uint8Array): Rotation | null {
  try {
    const { nodeId, newPublicKey, nonce } = RotateEdgeKeyInner.decode(bytes);
    const newKey = importPublicKey(newPublicKey);
    if (!uuidBytes(nodeId) || !newKey || nonce.length !== rotationNonceBytes) return null;
    return { nodeId, newKey, nonce, bytes };
  } catch {
    return null;
  }
}

/** Whether both keys asked for this: the old one that something be changed, the new one that it be to itself. */
export const verifyRotation = (
  { nodeId, newKey, nonce, bytes }: Rotation,
  oldKey: PublicKey,
  { oldSignature, newSignature }: Omit<SignedRotation, "bytes">,
): boolean =>
  oldKey.verify(bytes, oldSignature) && newKey.verify(rotationDigest(nodeId, newKey.raw, nonce), newSignature);

/** The key that `from` became by these changes, the oldest first: each must be asked for by the key before it and the new one. */
export function followRotations(nodeId: string, from: PublicKey, changes: readonly SignedRotation[]): PublicKey {
  let at = from;
  for (const change of changes) {
    const rotation = readRotation(change.bytes);
    if (rotation?.nodeId === nodeId && verifyRotation(rotation, at, change)) at = rotation.newKey;
  }
  return at;
}

/** 32 bytes; Ed25519 signs them as they are. Throws RangeError when the id is no UUID. */
export function rotationDigest(nodeId: string, newPublicKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  const id = uuidBytes(nodeId);
  if (!id) throw new RangeError(`${nodeId} is not a UUID`);
  return sha256(Buffer.concat([Buffer.from(label, "latin1"), id, newPublicKey, nonce]));
}

export type RotateGrant = StatementValues<"rotateGrant">;

export const signRotateGrant = (key: SigningKey, grant: RotateGrant): Uint8Array =>
  key.sign(statement("rotateGrant", grant));
export const verifyRotateGrant = (key: PublicKey, grant: RotateGrant, signature: Uint8Array): boolean =>
  key.verify(statement("rotateGrant", grant), signature);
