/** One run: asks every host of every wave, tells what happens, and ends by itself, whoever is listening. */
import { randomUUID } from "node:crypto";
import type { CommandResult, RunOutcome, RunSummary } from "../api/events.ts";
import { apiLimits } from "../api/limits.ts";
import type { SkippedHost } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { TraceContext } from "../platform/trace-context.ts";
import { short, type Tracer } from "../platform/tracer.ts";
import { commandResult, missingResult } from "./call-result.ts";
import { watchCall } from "./call-watch.ts";
import type { CallAbort, CallRequest, Dispatcher, Principal, ResultEvent } from "./dispatch-types.ts";
import { maxSignaturesAgain, signatureDesk, signaturePatienceMs } from "./fleet-signatures.ts";
import { isoTime } from "./host-view.ts";
import { type PieceMaker, pieceMaker } from "./output-text.ts";
import { createRunLog, type RunLog } from "./run-log.ts";

export interface RunTarget {
  nodeId: string;
  name: string;
}

/** A run's policy with nothing left open. */
export interface RunPlan {
  mode: "parallel" | "sequential" | "rolling";
  /** Hosts of a wave; for rolling only. */
  batch: number;
  maxConcurrency: number;
  onError: "fail-fast" | "continue" | "stop-after";
  stopAfter: number;
  requireMin: number;
  deadlineMs: number;
}

export interface RunInput {
  runId: string;
  principal: Principal;
  call: Pick<CallRequest, "via" | "context" | "tool" | "argsJson" | "progress">;
  /** Node id -> a serialised OperatorProof. */
  operatorProofs: Readonly<Record<string, Uint8Array>>;
  plan: RunPlan;
  resolved: readonly RunTarget[];
  skipped: readonly SkippedHost[];
  abortOnDisconnect: boolean;
  startedAt: number;
  /** The trace of whoever asked. */
  trace: TraceContext | null;
}

export interface RunEnd {
  outcome: RunOutcome;
  summary: RunSummary;
  endedAt: number;
}

export interface Run {
  readonly runId: string;
  readonly principal: Principal;
  readonly abortOnDisconnect: boolean;
  readonly events: Pick<RunLog, "read">;
  /** Null while it goes on. */
  readonly end: RunEnd | null;
  readonly done: Promise<RunEnd>;
  /** Stops what is under way and starts nothing more. Counts the hosts that this ends, and those that had ended. */
  cancel(reason: CallAbort): { cancelled: number; alreadyTerminal: number };
}

/** One that this process carries, or carried a while ago. */
export interface LiveRun extends Run {
  readonly events: RunLog;
  /** A new proof for a node that waits for one, or an empty one; false when it does not. */
  sign(nodeId: string, proof: Uint8Array): boolean;
}

export interface RunSurroundings {
  dispatcher: Dispatcher;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  tracer: Tracer;
  recall(commandId: string, name: string): Promise<CommandResult | null>;
  /** Keeps how the run ended, before its last event is told. */
  settle(end: RunEnd): Promise<void>;
}

export function startRun(input: RunInput, around: RunSurroundings): LiveRun {
  const { runId, plan, resolved, skipped, call } = input;
  const { dispatcher, time, log, tracer } = around;
  const events = createRunLog(around.recall);
  const stop = new AbortController();
  const desk = signatureDesk(around.clock);
  const summary: RunSummary = {
    ...{ ok: 0, err: 0, timed_out: 0, cancelled: 0, edge_disconnected: 0 },
    ...{ skipped: skipped.length, not_started: 0 },
  };
  const span = tracer.begin(`run ${short(call.tool)}`, "server", input.trace, {
    ...{ "aegis.run_id": runId, "aegis.tool": short(call.tool), "aegis.context": short(call.context) },
    ...{ "aegis.via": call.via, "aegis.hosts": resolved.length },
  });
  let end: RunEnd | null = null;
  let failures = 0;
  let underWay = 0;
  let ended = 0;
  /** No more hosts are asked; those under way may go on. */
  let halted = false;
  let cutShort: CallAbort | null = null;

  const waves = plan.mode === "rolling" ? chunks(resolved, plan.batch) : [resolved];
  const concurrency = plan.mode === "sequential" ? 1 : plan.maxConcurrency;

  function told(target: RunTarget, commandId: string, result: ResultEvent): void {
    ended++;
    summary[result.outcome]++;
    events.add({ event: "command_result", data: commandResult(target, commandId, result) });
    if (result.ok || result.outcome === "not_started") return;
    failures++;
    if (plan.onError === "continue" || (plan.onError === "stop-after" && failures < plan.stopAfter)) return;
    halted = true;
    if (plan.onError === "fail-fast" && !stop.signal.aborted && underWay > 0) abort("fleet_halted");
  }

  function abort(reason: CallAbort): void {
    cutShort ??= reason;
    halted = true;
    stop.abort(reason);
  }

  async function ask(target: RunTarget): Promise<void> {
    const proof = input.operatorProofs[target.nodeId] ?? nothing;
    // What an operator signed a while ago is worth nothing any more, and nobody is there to sign it again.
    if (proof.length > 0 && desk.operatorGone) return leftOut(target);
    underWay++;
    const last = await attempts(target, proof);
    underWay--;
    if (last) told(target, last.commandId, last.result);
    else leftOut(target);
  }

  /** Commands until one is answered otherwise than by asking for a new signature; null when that never came. */
  async function attempts(
    target: RunTarget,
    signed: Uint8Array,
  ): Promise<{ commandId: string; result: ResultEvent } | null> {
    const { nodeId } = target;
    let proof = signed;
    for (let again = 0; ; again++) {
      const commandId = randomUUID();
      const result = await attempt(target, commandId, proof);
      const { signAgain } = result;
      const receipt = commandResult(target, commandId, result).receipt_proof;
      if (proof.length === 0 || !signAgain || !receipt || again >= maxSignaturesAgain) return { commandId, result };
      const answer = desk.wait(nodeId, stop.signal);
      const operator_challenge = Buffer.from(signAgain).toString("base64url");
      const wanted = { node_id: nodeId, reason: "operator_signature_stale", receipt, operator_challenge };
      events.add({ event: "signature_needed", data: wanted });
      const next = await answer;
      if (next.kind === "gone") return null;
      if (next.kind === "declined") return { commandId, result };
      proof = next.proof;
    }
  }

  /** The operator of a signed call is gone: the host is passed over, which is no failure of its own. */
  function leftOut(target: RunTarget): void {
    ended++;
    summary.skipped++;
    const why = `operator_gone: nobody signed the call again within ${signaturePatienceMs / 1000} s`;
    const result = { ...missingResult("not_started", why, 0), errorKind: "operator_signature_stale" };
    events.add({ event: "command_result", data: commandResult(target, "", result) });
  }

  /** A reader slows the one host that it reads; of many hosts none waits for another's reader. */
  const alone = resolved.length === 1;
  const taken = (go: () => void) => (alone ? events.whenRead(go) : go());

  /** One command, from its first event to its result. */
  async function attempt({ nodeId, name }: RunTarget, commandId: string, operator: Uint8Array): Promise<ResultEvent> {
    events.add({ event: "node_started", data: { run_id: runId, node_id: nodeId, name, command_id: commandId } });
    const pipes: Record<"stdout" | "stderr", PieceMaker> = { stdout: pieceMaker(), stderr: pieceMaker() };
    let seq = 0;
    const tell = (stream: "stdout" | "stderr", pieces: ReturnType<PieceMaker["rest"]>) => {
      for (const { offset, skippedBytes, ...text } of pieces) {
        const where = { node_id: nodeId, command_id: commandId, stream, seq: seq++, offset };
        events.add({ event: "command_progress", data: { ...where, ...text, skipped_bytes: skippedBytes } });
      }
    };
    const startedAt = time();
    const { tool, context } = call;
    const watch = watchCall({ commandId, runId, nodeId, name, tool, context }, { log, tracer, run: span.context });
    let result: ResultEvent | null = null;
    try {
      const request: CallRequest = {
        ...call,
        ...{ commandId, runId, nodeId, principal: input.principal, deadlineMs: plan.deadlineMs, operator },
        trace: watch.trace,
        onNoCredit: alone ? "wait" : "drop",
      };
      for await (const event of dispatcher.call(request, stop.signal)) {
        if (event.kind === "result") result ??= event;
        else if (!result) {
          tell(event.stream, pipes[event.stream].add(event.chunk, event.offset, event.skippedBytes));
          if (event.taken) taken(event.taken);
        }
      }
    } catch (thrown) {
      const error = AegisError.from(thrown);
      log.error("call_failed", { run_id: runId, command_id: commandId, node_id: nodeId, error });
      result ??= missingResult("err", `the controller could not carry the call: ${error.message}`, time() - startedAt);
    }
    for (const stream of ["stdout", "stderr"] as const) tell(stream, pipes[stream].rest());
    result ??= missingResult("err", "the call ended without a result", time() - startedAt);
    watch.ended(result);
    return result;
  }

  async function wave(targets: readonly RunTarget[]): Promise<void> {
    const queue = targets[Symbol.iterator]();
    const lane = async () => {
      for (const target of queue) {
        if (halted) told(target, "", notStarted(cutShort));
        else await ask(target);
      }
    };
    await Promise.all(Array.from({ length: Math.min(concurrency, targets.length) }, lane));
  }

  async function go(): Promise<RunEnd> {
    const of = plan.mode === "rolling" ? waves.length : null;
    events.add({
      event: "started",
      data: { run_id: runId, resolved: resolved.map(({ nodeId }) => nodeId), skipped: [...skipped], waves: of },
    });
    let refused = false;
    if (resolved.length < plan.requireMin) {
      refused = true;
      const message = `matched ${resolved.length}, required ${plan.requireMin}`;
      events.add({ event: "error", data: { code: "require_min_not_met", message } });
      summary.not_started = resolved.length;
    } else {
      for (const [index, targets] of waves.entries()) {
        if (of !== null && !halted) {
          const nodes = targets.map(({ nodeId }) => nodeId);
          events.add({ event: "wave_started", data: { run_id: runId, wave: index + 1, of, nodes } });
        }
        await wave(targets);
      }
    }
    const outcome = refused ? "refused" : outcomeOf(cutShort, summary);
    const finished = { outcome, summary, endedAt: time() };
    await around.settle(finished).catch((error: unknown) => {
      log.error("run_not_stored", { run_id: runId, error: AegisError.from(error) });
    });
    end = finished;
    span.end({ "aegis.outcome": outcome }, outcome === "complete" && summary.ok === resolved.length ? null : outcome);
    events.add({
      event: "fleet_result",
      data: {
        ...{ run_id: runId, outcome, summary },
        ...{ started_at: isoTime(input.startedAt), ended_at: isoTime(finished.endedAt) },
      },
    });
    events.end();
    return finished;
  }

  return {
    runId,
    principal: input.principal,
    abortOnDisconnect: input.abortOnDisconnect,
    events,
    get end() {
      return end;
    },
    done: go(),
    sign: desk.give,
    cancel(reason) {
      const alreadyTerminal = end ? resolved.length : ended;
      const cancelled = resolved.length - alreadyTerminal;
      if (cancelled > 0 && !stop.signal.aborted) abort(reason);
      return { cancelled, alreadyTerminal };
    },
  };
}

const nothing = new Uint8Array();

function outcomeOf(cutShort: CallAbort | null, summary: RunSummary): RunOutcome {
  if (cutShort === "shutdown") return "interrupted";
  if (cutShort === "caller" || cutShort === "client_gone") return "cancelled";
  return cutShort === "fleet_halted" || summary.not_started > 0 ? "halted" : "complete";
}

const notStarted = (cutShort: CallAbort | null): ResultEvent =>
  missingResult(
    "not_started",
    cutShort === null || cutShort === "fleet_halted"
      ? "not started: the run was halted by failures before"
      : "not started: the run was cancelled before",
    0,
  );

function chunks<T>(items: readonly T[], size: number): T[][] {
  const out: T[][] = [];
  for (let at = 0; at < items.length; at += size) out.push(items.slice(at, at + size));
  return out;
}

export const defaultPlan = {
  mode: "parallel",
  batch: 1,
  maxConcurrency: apiLimits.concurrencyDefault,
  onError: "fail-fast",
  stopAfter: 1,
  requireMin: 0,
  deadlineMs: apiLimits.deadlineDefaultSecs * 1000,
} as const satisfies RunPlan;
