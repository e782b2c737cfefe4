/** Runs: which hosts a target means, calls to them with their events, and how to stop them. */
import { createHash } from "node:crypto";
import type { Hono } from "hono";
import { cancelRequestSchema, invokeRequestSchema, previewRequestSchema } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FleetRuns } from "../fleet.ts";
import type { Run } from "../fleet-run.ts";
import { requireScope } from "./auth.ts";
import { eventStream } from "./event-stream.ts";
import { type HttpContext, type HttpEnv, pathId, readJson } from "./request.ts";

export interface FleetRoutes {
  fleet: FleetRuns;
  clock: Clock;
}

const idempotencyKey = /^[\x21-\x7e]{1,128}$/;

export function fleetRoutes(app: Hono<HttpEnv>, { fleet, clock }: FleetRoutes): void {
  const stream = (c: HttpContext, run: Run, after: number) =>
    eventStream(run, {
      clock,
      after,
      client: c.req.raw.signal,
      onGone: () => {
        if (run.abortOnDisconnect) run.cancel("client_gone");
      },
    });

  app.post("/v1/edge/fleet/preview", async (c) => {
    const { tenantId } = requireScope(c.var.principal, "aegis.edge.fleet.read");
    const { value } = await readJson(c, previewRequestSchema);
    return c.json(await fleet.preview(tenantId, value.target));
  });

  app.post("/v1/edge/fleet/invoke", async (c) => {
    const principal = requireScope(c.var.principal, "aegis.edge.fleet.manage");
    const { value: request, text } = await readJson(c, invokeRequestSchema);
    const key = c.req.header("idempotency-key");
    if (key !== undefined && !idempotencyKey.test(key))
      throw new AegisError("invalid_request", "Idempotency-Key is not 1-128 printable ASCII characters", {
        hint: "a new UUID for each request is best",
      });
    const bodyHash = createHash("sha256").update(text).digest();
    const run = await fleet.start(
      {
        target: request.target,
        tool: request.tool,
        argsJson: argsText(request),
        context: request.context,
        policy: request.policy,
        abortOnDisconnect: request.abort_on_disconnect,
        progress: request.progress,
        via: "rest",
        operatorProofs: Object.fromEntries(
          Object.entries(request.operator_proofs).map(([node, proof]) => [node, Buffer.from(proof, "base64url")]),
        ),
      },
      principal,
      key === undefined ? undefined : { key, bodyHash },
    );
    return stream(c, run, 0);
  });

  app.post("/v1/edge/fleet/:id/cancel", async (c) => {
    const { tenantId } = requireScope(c.var.principal, "aegis.edge.fleet.manage");
    await readJson(c, cancelRequestSchema);
    return c.json(await fleet.cancel(tenantId, pathId(c)));
  });

  app.get("/v1/edge/fleet/runs/:id/events", async (c) => {
    const { tenantId } = requireScope(c.var.principal, "aegis.edge.fleet.read");
    const run = fleet.get(tenantId, pathId(c));
    if (!run) throw new AegisError("not_found", `no run ${pathId(c)} is under way in this tenant`);
    const last = c.req.header("last-event-id") ?? "0";
    if (!/^\d{1,15}$/.test(last))
      throw new AegisError("invalid_request", `Last-Event-ID ${JSON.stringify(last)} is no event's number`);
    return stream(c, run, Number(last));
  });
}

/** The text that is signed and sent: the caller's own, or what its object says. */
function argsText({ args, args_json: text }: { args?: unknown; args_json: string | null }): string {
  if (text === null) return JSON.stringify(args ?? {});
  if (args !== undefined) throw new AegisError("invalid_request", "give args or args_json, not both");
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return text;
  } catch {
    // Said below.
  }
  throw new AegisError("invalid_request", "args_json is no JSON object");
}
