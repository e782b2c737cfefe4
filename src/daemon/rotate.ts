/**
 * Asks the controller for a new token, for the key this host has or for a new one, and believes the answer only with a
 * grant that the controller's command key made for this very request: a faked "done" would lock this host out.
 */
import { randomBytes } from "node:crypto";
import { advance, type TrustedKeyset } from "../envelope/keyset.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { rotationNonceBytes, signRotation, verifyRotateGrant } from "../envelope/rotation.ts";
import { AegisError } from "../errors.ts";
import { aegis, type google } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";
import type { ControllerLink } from "./link.ts";
import { judgeNodeToken } from "./node-token.ts";

const { SignedKeySet } = aegis.cluster.v1;

export interface RotationAsked {
  nodeId: string;
  tenantId: string;
  /** Signs for the change: the key that the controller is thought to have. */
  oldKey: SigningKey;
  /** The same one asks for a token alone. */
  newKey: SigningKey;
  /** Null with `seal: compat`: that controller proves nothing. */
  keyset: TrustedKeyset | null;
}

export interface Granted {
  token: string;
  /** Null when the token does not say. */
  expiresAtMs: number | null;
  /** What is trusted from now on: not older than what was asked with. */
  keyset: TrustedKeyset | null;
}

export async function askForRotation(
  rotate: ControllerLink["rotate"],
  { nodeId, tenantId, oldKey, newKey, keyset }: RotationAsked,
): Promise<Granted> {
  const nonce = randomBytes(rotationNonceBytes);
  const { bytes, oldSignature, newSignature } = signRotation({ nodeId, oldKey, newKey, nonce });
  const answer = await rotate({
    // The old token is not shown: the key proves the host, and the token may have expired.
    currentEnvelope: { nodeSecurityToken: "", payload: bytes, signature: oldSignature },
    newPublicKey: newKey.raw,
    signatureWithNewKey: newSignature,
    ...(keyset ? { keysetVersion: toLong(keyset.version) } : {}),
  });
  const token = answer.nodeSecurityToken;
  const granted = (trusted: TrustedKeyset | null): Granted => {
    const verdict = judgeNodeToken(token, { nodeId, tenantId, key: newKey }, trusted);
    if (verdict.kind === "refused") throw untrue(verdict.reason);
    return { token, keyset: trusted, expiresAtMs: verdict.expiresAtMs };
  };
  if (!keyset) return granted(null);

  const chain = answer.keysetChain.map((signed) => SignedKeySet.encode(signed).finish());
  const moved = chain.length > 0 ? advance(keyset, chain) : ({ kind: "trusted", keyset } as const);
  if (moved.kind === "refused") throw untrue(`its keys do not follow from those this host trusts (${moved.reason})`);
  const overlapUntilMs = epochMs(answer.overlapUntil);
  if (overlapUntilMs === null) throw untrue("its overlap_until is out of range");
  const grant = { nodeId, rotation: bytes, nodeToken: Buffer.from(token), overlapUntilMs };
  if (!verifyRotateGrant(moved.keyset.commandKey, grant, answer.rotateGrant))
    throw untrue("its grant is not signed by the controller's command key");
  return granted(moved.keyset);
}

/** 0 when absent, as the grant has it. */
function epochMs(time: google.protobuf.ITimestamp | null | undefined): number | null {
  if (!time) return 0;
  const seconds = whole(time.seconds);
  return seconds === null ? null : seconds * 1000 + Math.floor((time.nanos ?? 0) / 1_000_000);
}

const untrue = (what: string) =>
  new AegisError("unavailable", `the answer did not come unchanged from this host's controller: ${what}`, {
    hint: "nothing was changed, and the old key is in use; something between this host and the controller may alter what passes",
  });
