/** Tokens over HTTP: those that let a host enroll, and those that operators sign in with. */

import { apiLimits } from "../../api/limits.ts";
import type { ApiToken, EnrollmentToken } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { ApiTokenRow, Store } from "../../store/store.ts";
import type { Enrollment } from "../enrollment.ts";
import { isoOrNull, isoTime } from "../host-view.ts";
import { addOperatorToken, endOperatorToken } from "../operator-tokens.ts";
import type { Targets } from "../targets.ts";
import { onePage, readCursor } from "./cursor.ts";
import { rateLimiter } from "./rate-limit.ts";
import { type Routes, route } from "./route.ts";

export interface TokenRoutes {
  store: Store;
  enrollment: Enrollment;
  targets: Targets;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  /** For one tenant. */
  enrollmentTokensPerMinute?: number;
}

export function tokenRoutes(app: Routes, options: TokenRoutes): void {
  const { store, enrollment, targets, clock, time } = options;
  const perMinute = options.enrollmentTokensPerMinute ?? apiLimits.enrollmentTokensPerMinute;
  const issued = rateLimiter(clock, { calls: perMinute, perMs: 60_000 });

  route(app, "issueEnrollmentToken", async ({ principal, tenantId, body }) => {
    issued.take(tenantId, "enrollment tokens for this tenant");
    const bound = body.for_node ? await targets.find(tenantId, body.for_node) : null;
    const name = body.name || bound?.name || "";
    const { token, expiresAt, controllerEndpoint } = await enrollment.issue({
      tenantId,
      issuedTo: name,
      ttlMs: body.ttl_seconds * 1000,
      tags: body.tags,
      forNode: bound?.row.nodeId ?? null,
      compat: body.compat,
      principal: principal.name,
    });
    const answer: EnrollmentToken = {
      token,
      expires_at: isoTime(expiresAt),
      controller_endpoint: controllerEndpoint,
      qr_payload: `aegis-edge-enroll://${token}`,
      command_hint: `aegis edge enroll ${token}`,
      issued_to: name,
    };
    return answer;
  });

  route(app, "createToken", async ({ principal, tenantId, body }) => {
    // Another tenant's token is made on the controller's own machine: no request looks beyond its tenant.
    if (body.tenant_id !== undefined && body.tenant_id !== tenantId)
      throw new AegisError("not_found", `no tenant ${JSON.stringify(body.tenant_id)} for this token`, {
        hint: "on the controller: aegis controller token create --tenant",
      });
    const expiresAt = body.expires_at === null ? null : Date.parse(body.expires_at);
    if (expiresAt !== null && expiresAt <= time())
      throw new AegisError("invalid_request", `expires_at: ${body.expires_at} has passed`);
    const { name, scopes, contexts } = body;
    const request = { name, scopes, contexts, tenantId, expiresAt };
    const { row, token } = await store.transaction((tx) => addOperatorToken(tx, request, time(), principal.name));
    return { ...tokenView(row), token: token.reveal() };
  });

  route(app, "listTokens", async ({ tenantId, query }) => {
    const start = readCursor("tokens", tenantId, query.cursor);
    const after = (row: ApiTokenRow) =>
      !start || row.createdAt > start.at || (row.createdAt === start.at && row.tokenId > start.id);
    const rows = (await store.apiTokens(tenantId)).filter(after);
    const position = ({ createdAt, tokenId }: ApiTokenRow) => ({ at: createdAt, id: tokenId });
    const page = onePage("tokens", tenantId, { rows, limit: query.limit, position });
    return { ...page, items: page.items.map(tokenView) };
  });

  route(app, "revokeToken", async ({ principal, tenantId, id }) => {
    const token = { tenantId, tokenId: id };
    if (await store.transaction((tx) => endOperatorToken(tx, token, time(), principal.name))) return null;
    // Twice is the same as once; what never was is told.
    if ((await store.apiTokens(tenantId)).some(({ tokenId }) => tokenId === id)) return null;
    throw new AegisError("not_found", `no token ${JSON.stringify(id)} in this tenant`, {
      hint: "aegis controller token ls",
    });
  });
}

function tokenView(row: ApiTokenRow): ApiToken {
  return {
    ...{ id: row.tokenId, name: row.name, tenant_id: row.tenantId },
    ...{ scopes: [...row.scopes], contexts: [...row.contexts], created_at: isoTime(row.createdAt) },
    expires_at: isoOrNull(row.expiresAt),
    last_used_at: isoOrNull(row.lastUsedAt),
    revoked_at: isoOrNull(row.revokedAt),
  };
}
