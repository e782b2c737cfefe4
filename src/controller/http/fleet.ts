/** Runs over HTTP: which hosts a target means, calls to them with their events, their history, and how to stop them. */
import { createHash } from "node:crypto";
import type { BodyOf } from "../../api/operations.ts";
import { AegisError } from "../../errors.ts";
import type { Clock } from "../../platform/clock.ts";
import { readTraceContext } from "../../platform/trace-context.ts";
import type { RunRow, Store } from "../../store/store.ts";
import { type FleetRuns, unknownRun } from "../fleet.ts";
import type { Run } from "../fleet-run.ts";
import { runDetail, runRecord } from "../run-history.ts";
import { onePage, readCursor } from "./cursor.ts";
import { eventStream } from "./event-stream.ts";
import type { HttpContext } from "./request.ts";
import { type Routes, route } from "./route.ts";

export interface FleetRoutes {
  fleet: FleetRuns;
  store: Store;
  clock: Clock;
}

const idempotencyKey = /^[\x21-\x7e]{1,128}$/;

export function fleetRoutes(app: Routes, { fleet, store, clock }: FleetRoutes): void {
  const stream = (c: HttpContext, run: Run, after: number) =>
    eventStream(run, {
      clock,
      after,
      client: c.req.raw.signal,
      onGone: () => {
        if (run.abortOnDisconnect) run.cancel("client_gone");
      },
    });

  route(app, "previewTarget", ({ tenantId, body }) => fleet.preview(tenantId, body.target));

  route(app, "invoke", async ({ c, principal, body, text }) => {
    const key = c.req.header("idempotency-key");
    if (key !== undefined && !idempotencyKey.test(key))
      throw new AegisError("invalid_request", "Idempotency-Key is not 1-128 printable ASCII characters", {
        hint: "a new UUID for each request is best",
      });
    const bodyHash = createHash("sha256").update(text).digest();
    const run = await fleet.start(
      {
        target: body.target,
        tool: body.tool,
        argsJson: argsText(body),
        context: body.context,
        policy: body.policy,
        abortOnDisconnect: body.abort_on_disconnect,
        progress: body.progress,
        via: "rest",
        operatorProofs: proofBytes(body.operator_proofs),
        trace: readTraceContext(c.req.header("traceparent"), c.req.header("tracestate")),
      },
      principal,
      key === undefined ? undefined : { key, bodyHash },
    );
    return stream(c, run, 0);
  });

  route(app, "cancelRun", ({ principal, tenantId, id, body }) =>
    fleet.cancel(tenantId, id, "caller", { by: principal.name, note: body.reason ?? "" }),
  );

  route(app, "signRun", async ({ tenantId, id, body }) => ({
    run_id: id,
    taken: await fleet.sign(tenantId, id, proofBytes(body.operator_proofs)),
  }));

  route(app, "runEvents", async ({ c, tenantId, id }) => {
    const last = c.req.header("last-event-id") ?? "0";
    if (!/^\d{1,15}$/.test(last))
      throw new AegisError("invalid_request", `Last-Event-ID ${JSON.stringify(last)} is no event's number`);
    return stream(c, await fleet.find(tenantId, id), Number(last));
  });

  route(app, "listRuns", async ({ tenantId, query }) => {
    const start = readCursor("runs", tenantId, query.cursor);
    const { tool, outcome, limit } = query;
    const filter = {
      ...(tool === undefined ? {} : { tool }),
      ...(outcome === undefined ? {} : { outcome }),
      ...(start ? { before: { startedAt: start.at, runId: start.id } } : {}),
    };
    const rows = await store.runs(tenantId, filter, limit + 1);
    const position = ({ startedAt, runId }: RunRow) => ({ at: startedAt, id: runId });
    const page = onePage("runs", tenantId, { rows, limit, position });
    return { ...page, items: page.items.map(runRecord) };
  });

  route(app, "getRun", async ({ tenantId, id }) => {
    const row = await store.run(id);
    if (row?.tenantId !== tenantId) throw unknownRun(id);
    return runDetail(row, await store.commandsOfRun(id));
  });
}

const proofBytes = (proofs: Readonly<Record<string, string>>): Record<string, Uint8Array> =>
  Object.fromEntries(Object.entries(proofs).map(([node, proof]) => [node, Buffer.from(proof, "base64url")]));

/** The text that is signed and sent: the caller's own, or what its object says. */
function argsText({ args, args_json: text, operator_proofs: proofs }: BodyOf<"invoke">): string {
  if (text === null && Object.keys(proofs).length > 0)
    throw new AegisError("invalid_request", "operator_proofs are about exact text: give the arguments as args_json");
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
