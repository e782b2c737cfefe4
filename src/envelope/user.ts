/**
 * Who asks for one call: a short-lived token about the caller and a statement, by the key the token names, that ties the
 * caller to this node, command, context, tool, arguments and deadline. When the caller has no key of their own, that key
 * is the controller's and the statement is the controller's word about the caller, no more.
 */

import { type Claims, type JwtFailure, verifyJwt } from "./jwt.ts";
import { importPublicKey, type PublicKey, type SigningKey } from "./public-key.ts";
import { sha256, statement } from "./statement.ts";

/** Longest life of a user token, and the tolerance around it, in seconds of controller time. */
export const maxUserTokenSecs = 300;
const userTokenLeewaySecs = 60;

/** What the caller's signature covers besides the token. */
export interface UserCall {
  nodeId: string;
  commandId: string;
  tenant: string;
  context: string;
  tool: string;
  /** Exact bytes of args_json. */
  argsJson: Uint8Array;
  /** Whole milliseconds; 0 = none. */
  deadlineMs: number;
  /** InvokeToolCommand.operator as received; empty when absent. */
  operator: Uint8Array;
}

export const signUserCall = (key: SigningKey, userToken: string, call: UserCall): Uint8Array =>
  key.sign(statement("user", { ...call, userToken: Buffer.from(userToken) }));

export interface Caller {
  sub: string;
  tenantId: string;
  context: string;
  scopes: readonly string[];
  via: Claims<"user">["via"];
}

export type UserFailure =
  | JwtFailure
  | "key"
  | "lifetime"
  | "expired"
  | "not_yet_valid"
  | "tenant"
  | "context"
  | "call_signature";
export type UserOutcome = { kind: "caller"; caller: Caller } | { kind: "refused"; reason: UserFailure };

/** Judges callers for one node; remembers the last tokens it verified, so that a burst of calls costs one check each. */
export interface UserVerifier {
  /** `frameTimeMs` is the COMMAND frame's authenticated time: controller time against controller time. */
  verify(userToken: string, signature: Uint8Array, call: UserCall, frameTimeMs: number): UserOutcome;
}

const cacheEntries = 256;

export function userVerifier({
  tokenKeys,
  controllerId,
  tenantId,
}: {
  tokenKeys: ReadonlyMap<string, PublicKey>;
  controllerId: string;
  tenantId: string;
}): UserVerifier {
  const verified = new Map<string, { claims: Claims<"user">; key: PublicKey }>();

  function token(text: string): { claims: Claims<"user">; key: PublicKey } | { failure: UserFailure } {
    const id = Buffer.from(sha256(text)).toString("base64");
    const known = verified.get(id);
    if (known) {
      verified.delete(id);
      verified.set(id, known);
      return known;
    }
    const outcome = verifyJwt("user", text, { keys: tokenKeys, issuer: controllerId });
    if (outcome.kind === "refused") return { failure: outcome.reason };
    const key = importPublicKey(Buffer.from(outcome.claims.cnf.jwk.x, "base64url"));
    if (!key) return { failure: "key" };
    const entry = { claims: outcome.claims, key };
    if (verified.size >= cacheEntries) verified.delete(verified.keys().next().value ?? "");
    verified.set(id, entry);
    return entry;
  }

  return {
    verify(userToken, signature, call, frameTimeMs) {
      const refuse = (reason: UserFailure): UserOutcome => ({ kind: "refused", reason });
      const known = token(userToken);
      if ("failure" in known) return refuse(known.failure);
      const { claims, key } = known;
      const frameSecs = frameTimeMs / 1000;
      if (claims.exp > claims.iat + maxUserTokenSecs) return refuse("lifetime");
      if (frameSecs > claims.exp + userTokenLeewaySecs) return refuse("expired");
      if (frameSecs < claims.iat - userTokenLeewaySecs) return refuse("not_yet_valid");
      if (claims.tid !== tenantId || call.tenant !== tenantId) return refuse("tenant");
      if (claims.scp !== call.context) return refuse("context");
      const said = statement("user", { ...call, userToken: Buffer.from(userToken) });
      if (!key.verify(said, signature)) return refuse("call_signature");
      const { sub, scopes, via } = claims;
      return { kind: "caller", caller: { sub, tenantId: claims.tid, context: claims.scp, scopes, via } };
    },
  };
}
