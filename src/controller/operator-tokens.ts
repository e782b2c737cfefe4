/** Makes an operator's bearer token: shown once, kept as its SHA-256. */
import { randomUUID } from "node:crypto";
import { scopes as scopeNames } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { Secret } from "../platform/log.ts";
import { nearest } from "../platform/nearest.ts";
import type { ApiTokenRow, Queries } from "../store/store.ts";
import { recordAudit } from "./audit.ts";
import { onDatabase } from "./database.ts";
import { hashApiToken, newApiToken } from "./http/auth.ts";

export interface OperatorTokenRequest {
  name: string;
  tenantId: string;
  scopes: readonly string[];
  contexts: readonly string[];
  /** Epoch milliseconds; null = never. */
  expiresAt: number | null;
}

const tenantName = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Throws `usage` for what no tenant can be called. */
export function requireTenantName(tenantId: string): void {
  if (tenantName.test(tenantId)) return;
  throw new AegisError(
    "usage",
    `the tenant ${JSON.stringify(tenantId)} is not 1-63 characters of a-z, 0-9 and inner hyphens`,
    { hint: "for example --tenant default" },
  );
}

/** `store` is a transaction. `by` is who asks for it; empty on the controller's own command line. */
export async function addOperatorToken(
  store: Queries,
  request: OperatorTokenRequest,
  at: number,
  by = "",
): Promise<{ tokenId: string; token: Secret; row: ApiTokenRow }> {
  requireTenantName(request.tenantId);
  const unknown = request.scopes.find((scope) => !scopeNames.some((known) => known === scope));
  if (unknown !== undefined) {
    const meant = nearest(unknown, scopeNames);
    throw new AegisError("usage", `there is no scope ${unknown}${meant ? `; did you mean ${meant}?` : ""}`, {
      hint: `the scopes are: ${scopeNames.join(" ")}`,
    });
  }
  const token = newApiToken();
  const tokenId = randomUUID();
  await store.ensureTenant(request.tenantId, at);
  const { name, tenantId, scopes, contexts, expiresAt } = request;
  const row: ApiTokenRow = {
    tokenId,
    hash: hashApiToken(token),
    name,
    tenantId,
    scopes,
    contexts,
    createdAt: at,
    expiresAt,
    lastUsedAt: null,
    revokedAt: null,
  };
  await store.insertApiToken(row);
  const expires = expiresAt === null ? null : new Date(expiresAt).toISOString();
  const detail = { token_id: tokenId, name, scopes, contexts, expires_at: expires };
  await recordAudit(store, { at, kind: "token_created", tenantId, principal: by, detail });
  return { tokenId, token: new Secret(token), row };
}

/** Works beside a running controller: both open the same database. */
export async function createOperatorToken({
  dataDir,
  clock,
  ...request
}: OperatorTokenRequest & { dataDir: string; clock: Clock }): Promise<{ tokenId: string; token: Secret }> {
  return await onDatabase(dataDir, (store) => store.transaction((tx) => addOperatorToken(tx, request, clock.now())));
}

/** False when the tenant has no such token that is good. */
export async function endOperatorToken(
  tx: Queries,
  { tenantId, tokenId }: { tenantId: string; tokenId: string },
  at: number,
  by = "",
): Promise<boolean> {
  if (!(await tx.revokeApiToken(tenantId, tokenId, at))) return false;
  await recordAudit(tx, { at, kind: "token_revoked", tenantId, principal: by, detail: { token_id: tokenId } });
  return true;
}
