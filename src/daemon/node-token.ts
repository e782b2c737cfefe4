/** Whether the node token that a controller gave is this host's: asked at enrollment, and when the token or the key changes. */
import { verifyJwt } from "../envelope/jwt.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import type { PublicKey } from "../envelope/public-key.ts";
import { type TokenFacts, tokenFacts } from "../identity/keyring.ts";

export interface TokenOwner {
  nodeId: string;
  tenantId: string;
  key: Pick<PublicKey, "raw">;
}

export type TokenVerdict =
  /** Epoch milliseconds of its end; null when it does not say. */
  { kind: "good"; expiresAtMs: number | null } | { kind: "refused"; reason: string };

type Said = Pick<TokenFacts, "nodeId" | "tenantId" | "publicKey" | "expMs">;

/** Without a keyset (the other implementation's controller) nothing proves it: what it says is only compared with what was asked for. */
export function judgeNodeToken(token: string, owner: TokenOwner, keyset: TrustedKeyset | null): TokenVerdict {
  const said = keyset ? verified(token, keyset) : (tokenFacts(token) ?? "cannot be read");
  if (typeof said === "string") return refused(said);
  const fault = faultOf(said, owner);
  return fault === null ? { kind: "good", expiresAtMs: said.expMs } : refused(fault);
}

const refused = (what: string): TokenVerdict => ({ kind: "refused", reason: `its node token ${what}` });

function verified(token: string, keyset: TrustedKeyset): Said | string {
  const outcome = verifyJwt("node", token, { keys: keyset.tokenKeys, issuer: keyset.controllerId });
  if (outcome.kind === "refused") return `does not verify (${outcome.reason})`;
  const { sub, tid, cnf, exp } = outcome.claims;
  return { nodeId: sub, tenantId: tid, publicKey: cnf.jwk.x, expMs: exp * 1000 };
}

function faultOf(said: Said, { nodeId, tenantId, key }: TokenOwner): string | null {
  if (said.nodeId !== nodeId) return `is for host ${said.nodeId}, not for ${nodeId}`;
  if (said.tenantId !== null && said.tenantId !== tenantId)
    return `is for tenant ${said.tenantId}, not for ${tenantId}`;
  if (said.publicKey !== null && said.publicKey !== Buffer.from(key.raw).toString("base64url"))
    return "is for another key";
  return null;
}
