/**
 * The conversation of an enrollment: Attest, Challenge, and the judgement of what the controller answers. Nothing that is
 * returned here was believed without a signature that leads to the root key in the token.
 */
import { nonceBytes, signEnrollProof, signRekeyProof, verifyEnrollGrant } from "../envelope/enrollment.ts";
import type { Claims } from "../envelope/jwt.ts";
import { advance, type TrustedKeyset, trustFirst } from "../envelope/keyset.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { sealVersions } from "../envelope/versions.ts";
import { AegisError } from "../errors.ts";
import { aegis } from "../wire/gen/messages.js";
import { EnrollError, type EnrollStep } from "./enroll-error.ts";
import type { ControllerLink } from "./link.ts";
import { judgeNodeToken } from "./node-token.ts";

const { NodeRole, SealMode, SignedKeySet } = aegis.cluster.v1;

export interface ExchangeInput {
  nodeId: string;
  key: SigningKey;
  /** The key this node had, when it is at hand: it may be the same one. */
  oldKey: SigningKey | null;
  token: string;
  claims: Claims<"enrollment">;
  /** What this host trusted until now, when it is the same root: the controller may not fall behind it. */
  known: TrustedKeyset | null;
}

export interface Admitted {
  nodeToken: string;
  /** Null when the token does not say. */
  tokenExpiresAtMs: number | null;
  /** Null when the issuer names no root: then nothing but TLS proves who answered. */
  keyset: TrustedKeyset | null;
}

export async function exchange(link: ControllerLink, input: ExchangeInput): Promise<Admitted> {
  const { nodeId, key, token, claims } = input;
  const rootKeyId = claims.crk === undefined ? null : Buffer.from(claims.crk, "base64url");
  const attested = await step("attest", () =>
    link.attest({
      nodeId,
      role: NodeRole.NODE_ROLE_EDGE,
      publicKey: key.raw,
      capabilities: {},
      sealVersions: rootKeyId ? [...sealVersions] : [],
    }),
  );
  const { challengeNonce: nonce, challengeId } = attested;
  // It is signed as it is: any other length could be a statement with a meaning of its own.
  if (nonce.length !== nonceBytes)
    throw failed(
      "attest",
      `the controller sent a nonce of ${nonce.length} bytes instead of ${nonceBytes}; it is not signed`,
    );

  const answer = await step("challenge", () =>
    link.challenge({
      challengeId,
      nodeId,
      challengeSignature: key.sign(nonce),
      enrollmentToken: token,
      ...(rootKeyId ? proofs(input, nonce, rootKeyId) : {}),
    }),
  );
  const nodeToken = answer.nodeSecurityToken;
  if (!rootKeyId) return { nodeToken, keyset: null, tokenExpiresAtMs: expiryOf(nodeToken, input, null) };

  const expected = claims.seal === "compat" ? SealMode.SEAL_MODE_COMPAT : SealMode.SEAL_MODE_STRICT;
  if (answer.sealMode !== expected)
    throw untrue(
      `it admitted this host for ${SealMode[answer.sealMode] ?? answer.sealMode}, the token is for ${claims.seal ?? "strict"}`,
    );
  const chain = answer.keysetChain.map((signed) => SignedKeySet.encode(signed).finish());
  const trusted = input.known ? advance(input.known, chain) : trustFirst(rootKeyId, chain);
  if (trusted.kind === "refused") throw untrue(`its keys do not lead to the root in the token (${trusted.reason})`);
  const { keyset } = trusted;
  const grant = { nodeId, nodePublicKey: key.raw, nonce, nodeToken: Buffer.from(nodeToken), keyset: keyset.bytes };
  if (!verifyEnrollGrant(keyset.commandKey, grant, answer.enrollGrant))
    throw untrue("its grant is not signed by the controller's command key");
  return { nodeToken, keyset, tokenExpiresAtMs: expiryOf(nodeToken, input, keyset) };
}

function proofs({ nodeId, key, oldKey, token }: ExchangeInput, nonce: Uint8Array, rootKeyId: Uint8Array) {
  const enrollmentToken = Buffer.from(token);
  const enrollProof = signEnrollProof(key, { nodeId, nodePublicKey: key.raw, enrollmentToken, nonce, rootKeyId });
  if (!oldKey) return { enrollProof };
  const rekey = { nodeId, oldPublicKey: oldKey.raw, newPublicKey: key.raw, nonce };
  return { enrollProof, rekeyProof: signRekeyProof(oldKey, rekey), oldPublicKey: oldKey.raw };
}

/** When its token ends, if it is this node's, this tenant's and this key's. */
function expiryOf(token: string, { nodeId, key, claims }: ExchangeInput, keyset: TrustedKeyset | null): number | null {
  const verdict = judgeNodeToken(token, { nodeId, tenantId: claims.tid, key }, keyset);
  if (verdict.kind === "refused") throw untrue(verdict.reason);
  return verdict.expiresAtMs;
}

const failed = (at: EnrollStep, message: string) => new EnrollError(at, new AegisError("unauthenticated", message));

const untrue = (what: string) =>
  new EnrollError(
    "verify",
    new AegisError(
      "unauthenticated",
      `the answer did not come unchanged from the controller that issued the token: ${what}`,
      {
        hint: "nothing was written. Something between this host and the controller may alter what passes: compare the root fingerprint with aegis controller keys ls, then ask for a new token",
      },
    ),
  );

async function step<T>(at: EnrollStep, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (thrown) {
    throw new EnrollError(at, AegisError.from(thrown));
  }
}
