/** Who is asking: an operator's opaque bearer token, looked up by its hash, as the principal it stands for. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Scope } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import type { Log } from "../../platform/log.ts";
import type { Store } from "../../store/store.ts";
import type { Principal } from "../dispatch-types.ts";
import type { OidcIssuer } from "./oidc.ts";

/** By this a scanner of leaked secrets knows one of ours. */
const apiTokenPrefix = "aegis_";

/** 256 random bits behind the prefix, in base64url. */
export const newApiToken = (): string => `${apiTokenPrefix}${randomBytes(32).toString("base64url")}`;

/** What is kept of a token: random enough that a plain SHA-256 cannot be searched. */
export const hashApiToken = (token: string): Uint8Array => createHash("sha256").update(token).digest();

const sameHash = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b);

/** The last use is written down this often at most. */
const touchEveryMs = 60_000;
/** Longest token that is looked at, in characters: an issuer's hold all its claims. */
const maxTokenChars = 12_288;
const jwt = /^[\w-]+\.[\w-]+\.[\w-]+$/;

export interface Authenticated extends Principal {
  tokenId: string;
  /** Epoch milliseconds; null = never. */
  expiresAt: number | null;
}

export interface Authenticator {
  /** Throws `unauthenticated` for anything but a token that is known and good now. */
  authenticate(authorization: string | undefined): Promise<Authenticated>;
}

export function createAuthenticator({
  store,
  time,
  log,
  oidc = null,
}: {
  store: Store;
  time: () => number;
  log: Log;
  /** Whose tokens count besides our own. */
  oidc?: OidcIssuer | null;
}): Authenticator {
  /** Token -> when its last use was last written down. */
  const touched = new Map<string, number>();

  function touch(tokenId: string, lastUsedAt: number | null, now: number): void {
    if (now - Math.max(lastUsedAt ?? 0, touched.get(tokenId) ?? 0) < touchEveryMs) return;
    touched.delete(tokenId);
    if (touched.size >= 1_000) touched.delete(touched.keys().next().value ?? "");
    touched.set(tokenId, now);
    void store.touchApiToken(tokenId, now).catch((error: unknown) => log.warn("token_not_touched", { error }));
  }

  return {
    async authenticate(authorization) {
      if (!authorization) throw refuse("a bearer token is needed");
      const [, token] = /^Bearer +(\S+) *$/i.exec(authorization) ?? [];
      if (!token || token.length > maxTokenChars) throw refuse("the Authorization header is not: Bearer TOKEN");
      if (oidc && !token.startsWith(apiTokenPrefix) && jwt.test(token)) return await oidc.authenticate(token);
      const hash = hashApiToken(token);
      const row = await store.apiTokenByHash(hash);
      if (!row || !sameHash(row.hash, hash)) throw refuse("the token is not one of this controller's");
      const now = time();
      if (row.revokedAt !== null) throw refuse("the token was revoked");
      if (row.expiresAt !== null && now >= row.expiresAt)
        throw refuse(`the token expired at ${new Date(row.expiresAt).toISOString()}`);
      touch(row.tokenId, row.lastUsedAt, now);
      const { tokenId, name, tenantId, scopes, contexts, expiresAt } = row;
      return { tokenId, name, tenantId, scopes, contexts, expiresAt };
    },
  };
}

const refuse = (message: string) =>
  new AegisError("unauthenticated", message, {
    hint: "sign in: aegis login URL; a token is made with: aegis controller token create",
  });

/** `aegis.admin` holds for everything within its tenant. */
export const hasScope = ({ scopes }: Principal, scope: Scope): boolean =>
  scopes.includes(scope) || scopes.includes("aegis.admin");

/** The principal, or `forbidden`. */
export function requireScope<P extends Principal>(principal: P, scope: Scope): P {
  if (hasScope(principal, scope)) return principal;
  throw new AegisError(
    "forbidden",
    `this needs the scope ${scope}; the token has: ${principal.scopes.join(", ") || "none"}`,
    {
      hint: `ask for a token with it: aegis controller token create --scope ${scope}`,
    },
  );
}
