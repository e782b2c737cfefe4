/** The token that a host shows with its Hello. It names the host's key, so it is worth nothing without it. */
import { createHash, randomUUID } from "node:crypto";
import { type Claims, signJwt } from "../envelope/jwt.ts";
import type { PublicKey, SigningKey } from "../envelope/public-key.ts";

const nodeTokenLifeMs = 30 * 24 * 60 * 60 * 1000;

/** A host whose token has expired proves itself by its key for this long; then it enrolls again. */
export const reconnectGraceMs = 365 * 24 * 60 * 60 * 1000;

/** Of the peer's NodeCapabilities with every field at its default, in the peer's spelling. */
const emptyCapabilitiesHash = createHash("sha256")
  .update('{"gpu_count":0,"vram_gb":0,"cpu_cores":0,"available_memory_gb":0,"supported_runtimes":[],"tags":[]}')
  .digest("hex");

export interface NodeTokenInput {
  nodeId: string;
  tenantId: string;
  nodeKey: PublicKey;
  /** URL that the host dials. */
  endpoint: string;
  controllerId: string;
  tokenKey: SigningKey;
  /** Controller time. */
  nowMs: number;
}

export interface NodeToken {
  token: string;
  jti: string;
  expiresAtMs: number;
}

export function mintNodeToken(input: NodeTokenInput): NodeToken {
  const { nodeId, tenantId, nodeKey, endpoint, controllerId, tokenKey, nowMs } = input;
  const jti = randomUUID();
  const exp = Math.floor((nowMs + nodeTokenLifeMs) / 1000);
  const claims: Claims<"node"> = {
    ...{ sub: nodeId, role: "edge", tid: tenantId, cep: endpoint, cap_hash: emptyCapabilitiesHash },
    ...{ iss: controllerId, aud: "aegis-controller", jti, iat: Math.floor(nowMs / 1000), exp },
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: Buffer.from(nodeKey.raw).toString("base64url") } },
  };
  return { token: signJwt("node", claims, tokenKey), jti, expiresAtMs: exp * 1000 };
}

/** Whether this is the key that the token is bound to. */
export const isBoundTo = ({ cnf }: Claims<"node">, key: PublicKey): boolean =>
  cnf.jwk.x === Buffer.from(key.raw).toString("base64url");
