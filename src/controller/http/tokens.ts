/** Tokens that let a host enroll. */
import type { Hono } from "hono";
import { type EnrollmentToken, enrollmentTokenRequestSchema } from "../../api/types.ts";
import type { Enrollment } from "../enrollment.ts";
import { isoTime } from "../host-view.ts";
import type { Targets } from "../targets.ts";
import { requireScope } from "./auth.ts";
import { type HttpEnv, readJson } from "./request.ts";

export interface TokenRoutes {
  enrollment: Enrollment;
  targets: Targets;
}

export function tokenRoutes(app: Hono<HttpEnv>, { enrollment, targets }: TokenRoutes): void {
  app.post("/v1/edge/enrollment-tokens", async (c) => {
    const principal = c.var.principal;
    requireScope(principal, "aegis.edge.enroll");
    const { value: request } = await readJson(c, enrollmentTokenRequestSchema);
    const { tenantId } = principal;
    const bound = request.for_node ? await targets.find(tenantId, request.for_node) : null;
    const { token, expiresAt, controllerEndpoint } = await enrollment.issue({
      tenantId,
      issuedTo: request.name || bound?.name || "",
      ttlMs: request.ttl_seconds * 1000,
      tags: request.tags,
      forNode: bound?.row.nodeId ?? null,
      compat: request.compat,
    });
    const answer: EnrollmentToken = {
      token,
      expires_at: isoTime(expiresAt),
      controller_endpoint: controllerEndpoint,
      qr_payload: `aegis-edge-enroll://${token}`,
      command_hint: `aegis edge enroll ${token}`,
      issued_to: request.name || bound?.name || "",
    };
    return c.json(answer, 201);
  });
}
