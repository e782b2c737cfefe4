/** Every run of this controller: planned here, remembered here and in the store, stopped from here. */
import { randomUUID } from "node:crypto";
import type { CommandResult, RunOutcome } from "../api/events.ts";
import { apiLimits } from "../api/limits.ts";
import type { Target } from "../api/target.ts";
import type { CancelAnswer, Preview, RunPolicy } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { TraceContext } from "../platform/trace-context.ts";
import { noTracer, type Tracer } from "../platform/tracer.ts";
import type { CommandRow, RunRow, Store } from "../store/store.ts";
import { recordAudit } from "./audit.ts";
import { commandResult, storedResult } from "./call-result.ts";
import type { CallAbort, Dispatcher, LiveNodes, Principal } from "./dispatch-types.ts";
import { defaultPlan, type LiveRun, type Run, type RunEnd, type RunPlan, startRun } from "./fleet-run.ts";
import { hostStatus, type KnownHost } from "./host-view.ts";
import { keptRuns } from "./kept-runs.ts";
import { replayedEvents, runRecord } from "./run-history.ts";
import type { Targets } from "./targets.ts";

export interface FleetRequest {
  target: Target;
  tool: string;
  /** Exact JSON text. */
  argsJson: string;
  context: string;
  policy: RunPolicy;
  abortOnDisconnect: boolean;
  /** Whether somebody wants live output. */
  progress: boolean;
  via: "rest" | "mcp" | "cli";
  /** Node id -> a serialised OperatorProof. */
  operatorProofs?: Readonly<Record<string, Uint8Array>>;
  /** The trace of whoever asks. */
  trace?: TraceContext | null;
}

export interface FleetRuns {
  preview(tenantId: string, target: Target): Promise<Preview>;
  /** Resolves once the run is stored and under way. `idempotency` names an earlier request that this may repeat. */
  start(request: FleetRequest, principal: Principal, idempotency?: { key: string; bodyHash: Uint8Array }): Promise<Run>;
  /** A run that goes on, or ended a while ago at most; null for one that is in the store only, or nowhere. */
  get(tenantId: string, runId: string): Run | null;
  /** Any run of the tenant; one that is in the store only tells its events again. Throws `not_found`. */
  find(tenantId: string, runId: string): Promise<Run>;
  /** Throws `not_found` for a run the tenant does not have. `note` is why, in the words of `by`. */
  cancel(
    tenantId: string,
    runId: string,
    reason?: CallAbort,
    who?: { by?: string; note?: string },
  ): Promise<CancelAnswer>;
  /** New proofs for hosts that wait for them, by node id; an empty one declines. Answers the nodes that did wait. */
  sign(tenantId: string, runId: string, proofs: Readonly<Record<string, Uint8Array>>): Promise<string[]>;
  /** Takes no more runs; gives those under way `graceMs` to end, then stops them. */
  close(graceMs: number): Promise<void>;
}

export interface FleetOptions {
  store: Store;
  nodes: LiveNodes;
  targets: Targets;
  dispatcher: Dispatcher;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  tracer?: Tracer;
  /** How a run ended, and why hosts were passed over. */
  onRun?: (outcome: RunOutcome, skippedFor: readonly string[]) => void;
}

export function createFleet(options: FleetOptions): FleetRuns {
  const { store, nodes, targets, dispatcher, clock, time, log } = options;
  /** Those that go on. */
  const runs = new Map<string, LiveRun>();
  const ended = keptRuns(clock);
  let closing = false;

  const recall = async (commandId: string, name: string): Promise<CommandResult | null> => {
    const row = await store.command(commandId);
    const result = row && storedResult(row);
    return row && result && commandResult({ nodeId: row.nodeId, name }, commandId, result);
  };

  const of = <R extends Run>(tenantId: string, run: R | null | undefined): R | null =>
    run?.principal.tenantId === tenantId ? run : null;
  const get = (tenantId: string, runId: string): Run | null => of(tenantId, runs.get(runId) ?? ended.get(runId));

  async function find(tenantId: string, runId: string): Promise<Run> {
    const run = get(tenantId, runId);
    if (run) return run;
    const row = await store.run(runId);
    if (row?.tenantId !== tenantId) throw unknownRun(runId);
    return storedRun(row, await store.commandsOfRun(runId));
  }

  return {
    get,
    find,

    async preview(tenantId, target) {
      const { resolved, skipped } = await targets.resolve(tenantId, target);
      const view = ({ row, name }: KnownHost) => ({
        ...{ node_id: row.nodeId, name, status: hostStatus(row, nodes) },
        operator_challenge: base64url(nodes.get(row.nodeId)?.operatorChallenge),
      });
      return { resolved: resolved.map(view), skipped: [...skipped] };
    },

    async start(request, principal, idempotency) {
      if (closing) throw new AegisError("unavailable", "this controller is shutting down", { hint: "try again soon" });
      permit(request, principal);
      const { tenantId } = principal;
      const found = await targets.resolve(tenantId, request.target, request.tool);
      const plan = planOf(request.policy, found.resolved, request.tool);
      const runId = randomUUID();
      const startedAt = time();
      const resolved = found.resolved.map(({ row, name }) => ({ nodeId: row.nodeId, name }));
      const skipped = found.skipped.map(({ node_id: nodeId, name, reason }) => ({ nodeId, name, reason }));
      // On disk with the first command: nothing has happened until one is sent.
      const inStore = { wait: "commit" } as const;
      const earlier = await store.transaction(async (tx) => {
        const claim = { tenantId, principal: principal.name, runId, createdAt: startedAt };
        const known = idempotency && (await tx.claimIdempotencyKey({ ...claim, ...idempotency }));
        if (known) return known;
        await tx.insertRun({
          ...{ runId, tenantId, tool: request.tool, context: request.context, principal: principal.name, startedAt },
          target: JSON.stringify(request.target),
          policy: JSON.stringify(request.policy),
          ...{ endedAt: null, outcome: null, summary: null, resolved, skipped },
        });
        return null;
      }, inStore);
      if (earlier) {
        if (Buffer.from(earlier.bodyHash).equals(idempotency?.bodyHash ?? new Uint8Array()))
          return await find(tenantId, earlier.runId);
        throw new AegisError(
          "conflict",
          `this Idempotency-Key belongs to another request, which led to run ${earlier.runId}`,
          { hint: "use a new key for a new request" },
        );
      }
      const { via, context, tool, argsJson, progress } = request;
      const run = startRun(
        {
          ...{ runId, principal, plan, resolved, startedAt, skipped: found.skipped },
          call: { via, context, tool, argsJson, progress },
          operatorProofs: request.operatorProofs ?? {},
          abortOnDisconnect: request.abortOnDisconnect,
          trace: request.trace ?? null,
        },
        {
          ...{ dispatcher, clock, time, log, recall, tracer: options.tracer ?? noTracer },
          settle: ({ outcome, summary, endedAt }) => store.endRun(runId, endedAt, outcome, JSON.stringify(summary)),
        },
      );
      runs.set(runId, run);
      if (closing) run.cancel("shutdown");
      void run.done.then((end) => {
        options.onRun?.(
          end.outcome,
          found.skipped.map(({ reason }) => reason),
        );
        runs.delete(runId);
        ended.add(run, end);
      });
      return run;
    },

    async cancel(tenantId, runId, reason = "caller", { note = "", by = "" } = {}) {
      const run = await find(tenantId, runId);
      const { cancelled, alreadyTerminal } = run.cancel(reason);
      if (cancelled > 0) {
        log.info("run_cancelled", { run_id: runId, tenant_id: tenantId, cancelled, note });
        const detail = { run_id: runId, cancelled, reason, note };
        await recordAudit(store, { at: time(), kind: "run_cancelled", tenantId, principal: by, detail });
      }
      return { run_id: runId, cancelled, already_terminal: alreadyTerminal };
    },

    async sign(tenantId, runId, proofs) {
      const run = of(tenantId, runs.get(runId));
      // One that has ended waits for nothing; one that never was is not found.
      if (!run) await find(tenantId, runId);
      return Object.entries(proofs).flatMap(([nodeId, proof]) => (run?.sign(nodeId, proof) ? [nodeId] : []));
    },

    async close(graceMs) {
      closing = true;
      const open = () => [...runs.values()];
      const settled = async () => {
        for (let left = open(); left.length > 0; left = open()) await Promise.all(left.map((run) => run.done));
      };
      const patience = new AbortController();
      await Promise.race([settled(), clock.sleep(graceMs, patience.signal)]);
      patience.abort();
      for (const run of open()) run.cancel("shutdown");
      await settled();
    },
  };
}

/** A run that ended and was let go of: its events are told from the store, as often as anybody asks. */
function storedRun(row: RunRow, commands: readonly CommandRow[]): Run {
  const { runId, tenantId, principal: name, context } = row;
  const end: RunEnd = {
    outcome: row.outcome ?? "interrupted",
    summary: runRecord(row).summary ?? noSummary,
    endedAt: row.endedAt ?? row.startedAt,
  };
  return {
    runId,
    principal: { name, tenantId, scopes: [], contexts: [context] },
    abortOnDisconnect: false,
    events: {
      async *read(after) {
        yield* replayedEvents(row, commands, after);
      },
    },
    end,
    done: Promise.resolve(end),
    cancel: () => ({ cancelled: 0, alreadyTerminal: row.resolved.length }),
  };
}

const base64url = (bytes: Uint8Array | undefined): string | null =>
  bytes === undefined ? null : Buffer.from(bytes).toString("base64url");

const noSummary = { ok: 0, err: 0, timed_out: 0, cancelled: 0, edge_disconnected: 0, skipped: 0, not_started: 0 };

export const unknownRun = (runId: string): AegisError =>
  new AegisError("not_found", `no run ${runId} in this tenant`, { hint: "aegis edge fleet runs" });

function permit({ context, argsJson }: FleetRequest, { contexts }: Principal): void {
  if (!contexts.includes(context))
    throw new AegisError(
      "forbidden",
      `this token may not use the security context ${JSON.stringify(context)}, only: ${contexts.join(", ") || "none"}`,
      { hint: "name one of those with --context, or ask for a token with it: aegis controller token create --context" },
    );
  const bytes = Buffer.byteLength(argsJson, "utf8");
  if (bytes > apiLimits.argsBytes)
    throw new AegisError("too_large", `the arguments have ${bytes} bytes; ${apiLimits.argsBytes} are allowed`, {
      hint: "send large input as a file: aegis edge cp",
    });
}

/** What is left open is decided by the tool: only one that reads goes on after a failure. */
function planOf(policy: RunPolicy, resolved: readonly KnownHost[], tool: string): RunPlan {
  const readsOnly = resolved.length > 0 && resolved.every(({ tools }) => tools.get(tool)?.readOnly === true);
  return {
    mode: policy.mode,
    batch: policy.batch ?? defaultPlan.batch,
    maxConcurrency: policy.max_concurrency ?? defaultPlan.maxConcurrency,
    onError: policy.on_error ?? (readsOnly ? "continue" : "fail-fast"),
    stopAfter: policy.stop_after ?? defaultPlan.stopAfter,
    requireMin: policy.require_min ?? defaultPlan.requireMin,
    deadlineMs: Math.round((policy.deadline_secs ?? apiLimits.deadlineDefaultSecs) * 1000),
  };
}
