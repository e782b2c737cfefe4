/** Makes an operator's bearer token: shown once, kept as its SHA-256. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Clock } from "../platform/clock.ts";
import { Secret } from "../platform/log.ts";
import { openStore } from "../store/open.ts";
import type { Queries } from "../store/store.ts";
import { hashApiToken, newApiToken } from "./http/auth.ts";

export const databasePath = (dataDir: string): string => join(dataDir, "controller.db");

export interface OperatorTokenRequest {
  name: string;
  tenantId: string;
  scopes: readonly string[];
  contexts: readonly string[];
  /** Epoch milliseconds; null = never. */
  expiresAt: number | null;
}

export async function addOperatorToken(
  store: Queries,
  request: OperatorTokenRequest,
  at: number,
): Promise<{ tokenId: string; token: Secret }> {
  const token = newApiToken();
  const tokenId = randomUUID();
  await store.ensureTenant(request.tenantId, at);
  const { name, tenantId, scopes, contexts, expiresAt } = request;
  await store.insertApiToken({
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
  });
  return { tokenId, token: new Secret(token) };
}

/** Works beside a running controller: both open the same database. */
export async function createOperatorToken({
  dataDir,
  clock,
  ...request
}: OperatorTokenRequest & { dataDir: string; clock: Clock }): Promise<{ tokenId: string; token: Secret }> {
  const store = await openStore(databasePath(dataDir));
  try {
    return await store.transaction((tx) => addOperatorToken(tx, request, clock.now()));
  } finally {
    await store.close();
  }
}
