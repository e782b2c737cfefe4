/** Tokens of an OpenID Connect issuer: its keys found where it says, what a token claims weighed by the owner's own grants. */
import { createHash } from "node:crypto";
import { createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import { z } from "zod";
import { scopes } from "../../api/types.ts";
import type { OidcConfig } from "../../config/controller.ts";
import { AegisError } from "../../errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Log } from "../../platform/log.ts";
import { nearest } from "../../platform/nearest.ts";
import type { Store } from "../../store/store.ts";
import type { Authenticated } from "./auth.ts";

export interface OidcIssuer {
  /** Throws `unauthenticated`, or `unavailable` when the issuer cannot be asked for its keys. */
  authenticate(jwt: string): Promise<Authenticated>;
}

export interface OidcOptions {
  config: OidcConfig;
  store: Store;
  clock: Clock;
  time: () => number;
  log: Log;
  /** An unknown key makes us ask the issuer anew, at most this often. */
  askAgainMs?: number;
}

/** Signatures that only the issuer can make: no shared secret, and never `none`. */
const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
const clockToleranceSecs = 30;
const askAgainMs = 10_000;
/** How long an issuer may take to answer. */
const patienceMs = 5_000;
const keysAgeMs = 10 * 60_000;
/** Longest document of an issuer that is read, in bytes. */
const maxDocumentBytes = 256 * 1024;
const maxNameChars = 200;

const discoverySchema = z.object({ issuer: z.string(), jwks_uri: z.url() });

export function createOidc({ config, store, clock, time, log, ...options }: OidcOptions): OidcIssuer {
  const cooldown = options.askAgainMs ?? askAgainMs;
  let found: { keys: Promise<JWTVerifyGetKey>; failedAt: number | null } | null = null;
  const known = new Set<string>();

  /** Found once; a failure is remembered for a while, so that nobody can make us ask at will. */
  function keysOf(): Promise<JWTVerifyGetKey> {
    if (found && (found.failedAt === null || time() - found.failedAt < cooldown)) return found.keys;
    const entry = { keys: discover(config.issuer, cooldown, clock), failedAt: null as number | null };
    entry.keys.catch((error: unknown) => {
      entry.failedAt = time();
      log.error("oidc_not_discovered", { issuer: config.issuer, error: AegisError.from(error) });
    });
    found = entry;
    return entry.keys;
  }

  async function verified(jwt: string): Promise<JWTPayload> {
    const keys = await keysOf();
    try {
      const { payload } = await jwtVerify(jwt, keys, {
        ...{ issuer: config.issuer, audience: config.audience, algorithms },
        ...{ currentDate: new Date(time()), clockTolerance: clockToleranceSecs, requiredClaims: ["exp", "sub"] },
      });
      return payload;
    } catch (thrown) {
      throw refusal(config.issuer, thrown);
    }
  }

  return {
    async authenticate(jwt) {
      const claims = await verified(jwt);
      const name = claims[config.nameClaim];
      if (typeof name !== "string" || name === "" || name.length > maxNameChars || /\p{C}/u.test(name))
        throw refuse(`the token's claim ${config.nameClaim} is no name`);
      const grants = config.grants.filter(({ claim, value }) => valuesOf(claims[claim]).includes(value));
      const [tenantId, ...others] = new Set(grants.map(({ tenant }) => tenant));
      if (tenantId === undefined)
        throw refuse(
          "nothing is granted to this token here",
          "a grant for one of its claims is added in controller.yaml",
        );
      if (others.length > 0)
        throw refuse(`the token's claims belong to several tenants: ${[tenantId, ...others].sort().join(", ")}`);
      if (!known.has(tenantId)) await store.ensureTenant(tenantId, time());
      else if (!(await store.tenant(tenantId))) throw refuse(`the tenant ${tenantId} was removed`);
      known.add(tenantId);
      return {
        // The same over renewed tokens, so that what was begun with one goes on with the next.
        tokenId: `oidc-${createHash("sha256").update(`${config.issuer}\0${claims.sub}`).digest("hex").slice(0, 32)}`,
        ...{ name, tenantId, expiresAt: (claims.exp ?? 0) * 1000 },
        scopes: [...new Set(grants.flatMap((grant) => grant.scopes))],
        contexts: [...new Set(grants.flatMap((grant) => grant.contexts))],
      };
    },
  };
}

/** Throws for a grant of a scope that there is not: it would give nothing, and nobody would know why. */
export function knownScopes(config: OidcConfig): OidcConfig {
  for (const [at, grant] of config.grants.entries())
    for (const scope of grant.scopes) {
      if (scopes.some((known) => known === scope)) continue;
      const meant = nearest(scope, scopes);
      throw new AegisError(
        "config_invalid",
        `controller.yaml: oidc.grants[${at}].scopes: there is no scope ${scope}${meant ? `; did you mean ${meant}?` : ""}`,
        { hint: `the scopes are: ${scopes.join(" ")}` },
      );
    }
  return config;
}

/** The issuer's keys. The document must be the issuer's own: another name in it is somebody else's. */
async function discover(issuer: string, cooldownMs: number, clock: Clock): Promise<JWTVerifyGetKey> {
  const url = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const failed = (why: string, cause?: unknown) =>
    new AegisError("unavailable", `the issuer's settings at ${url} cannot be used: ${why}`, { cause });
  const [patience, over] = [new AbortController(), new AbortController()];
  void clock.sleep(patienceMs, over.signal).then(() => patience.abort());
  const text = await (async () => {
    const response = await fetch(url, { redirect: "error", signal: patience.signal });
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    return await response.text();
  })()
    .catch((cause: Error) => {
      throw failed(patience.signal.aborted ? `it did not answer within ${patienceMs} ms` : cause.message, cause);
    })
    .finally(() => over.abort());
  if (text.length > maxDocumentBytes) throw failed(`it has more than ${maxDocumentBytes} characters`);
  const document = discoverySchema.safeParse(parsed(text));
  if (!document.success) throw failed("it is no OpenID configuration");
  if (document.data.issuer !== issuer) throw failed(`it is that of ${JSON.stringify(document.data.issuer)}`);
  const keys = new URL(document.data.jwks_uri);
  if (keys.protocol !== "https:" && keys.hostname !== new URL(issuer).hostname)
    throw failed(`its keys would come unencrypted from ${keys.host}`);
  return createRemoteJWKSet(keys, {
    cooldownDuration: cooldownMs,
    cacheMaxAge: keysAgeMs,
    timeoutDuration: patienceMs,
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A list's texts, or a text's words and itself. */
function valuesOf(claim: unknown): string[] {
  if (typeof claim === "string") return [claim, ...claim.split(" ")];
  return Array.isArray(claim) ? claim.filter((one) => typeof one === "string") : [];
}

const refuse = (message: string, hint?: string) =>
  new AegisError("unauthenticated", message, { hint: hint ?? "ask the issuer for a new token" });

function refusal(issuer: string, thrown: unknown): AegisError {
  if (thrown instanceof errors.JWTExpired) return refuse("the token has expired");
  if (thrown instanceof errors.JWTClaimValidationFailed)
    return refuse(`the token's claim ${thrown.claim} is not as it must be`);
  if (thrown instanceof errors.JWKSNoMatchingKey) return refuse("the token is signed with no key of its issuer");
  if (thrown instanceof errors.JWSSignatureVerificationFailed) return refuse("the token's signature is wrong");
  if (thrown instanceof errors.JOSEAlgNotAllowed) return refuse("the token is signed in a way that is not allowed");
  if (thrown instanceof errors.JWTInvalid || thrown instanceof errors.JWSInvalid) return refuse("the token is no JWT");
  const { message, code = "" } = thrown as Error & { code?: string };
  if (/^ERR_J(?!OSE_GENERIC|WKS_TIMEOUT|WKS_INVALID)/.test(code))
    return refuse(`the token cannot be verified: ${message}`);
  return new AegisError("unavailable", `the keys of ${issuer} cannot be had: ${message}`, { cause: thrown });
}
