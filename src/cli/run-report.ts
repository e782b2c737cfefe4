/** Follows one run from its first event to its last, and says how it ended. */
import type { ApiClient } from "../api/client.ts";
import type { CommandResult, FleetEvent, RunOutcome, RunSummary } from "../api/events.ts";
import type { InvokeRequest, SkippedHost } from "../api/types.ts";
import { AegisError, errorTable, isErrorCode } from "../errors.ts";
import type { SignedRun } from "./signed-run.ts";
import type { Terminal } from "./terminal.ts";

export interface RunReport {
  runId: string;
  outcome: RunOutcome;
  summary: RunSummary;
  /** Host's node id -> what it answered. */
  results: ReadonlyMap<string, CommandResult>;
  /** Node id -> the host's name, as far as they were heard of. */
  names: ReadonlyMap<string, string>;
  skipped: readonly SkippedHost[];
  /** Why the run was refused as a whole. */
  refusal: { code: string; message: string } | null;
  /** Node id -> why what is told of that host is not proven. Of signed calls only. */
  doubts: ReadonlyMap<string, string>;
}

export interface RunView {
  show(event: FleetEvent): Promise<void>;
  /** What is still held back; called once, also when reading failed. */
  end(): Promise<void>;
}

/** When `stop` aborts, the run is cancelled at the controller and followed to its end: hosts then tell what they stopped. */
export async function followRun(
  client: Pick<ApiClient, "invoke" | "cancel" | "sign">,
  request: InvokeRequest,
  view: RunView,
  stop: AbortSignal,
  signed: SignedRun | null = null,
): Promise<RunReport> {
  const results = new Map<string, CommandResult>();
  const names = new Map<string, string>();
  const doubts = new Map<string, string>();
  let started: { runId: string; skipped: readonly SkippedHost[] } | null = null;
  let refusal: RunReport["refusal"] = null;
  let cancelling: Promise<unknown> | null = null;
  const hardStop = new AbortController();
  const cancel = () => {
    if (!started) return;
    cancelling = client.cancel(started.runId, "the operator stopped it").catch((error: unknown) => {
      hardStop.abort();
      throw error;
    });
    // Awaited below; until then a failure must not count as nobody's.
    cancelling.catch(() => {});
  };
  const doubt = (result: CommandResult) => {
    const why = signed?.judge(result);
    if (why) doubts.set(result.node_id, why);
  };
  stop.addEventListener("abort", cancel, { once: true });
  try {
    for await (const event of client.invoke(request, { signal: hardStop.signal })) {
      await view.show(event);
      switch (event.event) {
        case "started":
          started = { runId: event.data.run_id, skipped: event.data.skipped };
          if (stop.aborted) cancel();
          break;
        case "node_started":
          names.set(event.data.node_id, event.data.name);
          break;
        case "command_progress":
          signed?.shown(event.data);
          break;
        case "signature_needed": {
          const { node_id: nodeId } = event.data;
          const answer = signed?.again(event.data) ?? { kind: "declined", why: "nothing was signed in this run" };
          if (answer.kind === "declined") doubts.set(nodeId, answer.why);
          const proof = answer.kind === "signed" ? answer.proof : "";
          if (started) await client.sign(started.runId, { operator_proofs: { [nodeId]: proof } });
          break;
        }
        case "command_result":
          names.set(event.data.node_id, event.data.name);
          results.set(event.data.node_id, event.data);
          doubt(event.data);
          break;
        case "error":
          refusal = event.data;
          break;
        case "fleet_result": {
          const { run_id: runId, outcome, summary } = event.data;
          return { runId, outcome, summary, results, names, refusal, doubts, skipped: started?.skipped ?? [] };
        }
      }
    }
    throw new AegisError("unavailable", "the controller's events ended before the run did");
  } finally {
    stop.removeEventListener("abort", cancel);
    await view.end();
    await cancelling;
  }
}

/** Reasons for leaving a host out that say that it could not be reached. */
const unreachable = new Set<SkippedHost["reason"]>(["disconnected", "unhealthy", "draining", "revoked"]);

/** A failed host is never 0, nor is a run in which nothing ran, nor one of which something is not proven that should be. */
export function exitOf({ outcome, summary, refusal, skipped, results, doubts }: RunReport): number {
  const { ok, err, timed_out, edge_disconnected } = summary;
  if (outcome === "cancelled") return errorTable.cancelled.exit;
  if (refusal) return isErrorCode(refusal.code) ? errorTable[refusal.code].exit : errorTable.internal.exit;
  if (timed_out > 0 && err + edge_disconnected === 0) return errorTable.deadline_exceeded.exit;
  if (outcome !== "complete" || err + edge_disconnected + timed_out > 0) return errorTable.fleet_failed.exit;
  if (doubts.size > 0 || [...results.values()].some((result) => !result.ok)) return errorTable.fleet_failed.exit;
  if (ok > 0) return 0;
  const isThere = skipped.length > 0 && skipped.every(({ reason }) => !unreachable.has(reason));
  return isThere ? errorTable.fleet_failed.exit : errorTable.edge_unavailable.exit;
}

/** What became of one call, in a few words. */
export function inWords(result: CommandResult): string {
  if (result.ok) return "ok";
  const note = noteOf(result);
  if (result.error_kind === "nonzero_exit") return `exit ${result.exit_code}${note === null ? "" : `; ${note}`}`;
  if (result.error_kind === "signal") return `ended by ${result.signal ?? "a signal"}`;
  const kind = result.error_kind ?? result.outcome;
  return result.error_message ? `${kind}: ${result.error_message}` : kind;
}

/** What the host adds to a failure; null when nothing. */
export function noteOf({ structured }: Pick<CommandResult, "structured">): string | null {
  const note = typeof structured === "object" && structured !== null && "note" in structured ? structured.note : null;
  return typeof note === "string" ? note : null;
}

/** `3 ok, 1 failed, 1 skipped`. */
export function summaryWords(summary: RunSummary): string {
  const words: [keyof RunSummary, string][] = [
    ["ok", "ok"],
    ["err", "failed"],
    ["timed_out", "timed out"],
    ["cancelled", "cancelled"],
    ["edge_disconnected", "lost"],
    ["not_started", "not started"],
    ["skipped", "skipped"],
  ];
  const parts = words.filter(([key]) => key === "ok" || summary[key] > 0);
  return parts.map(([key, word]) => `${summary[key]} ${word}`).join(", ");
}

/** Says what of a signed run is not proven, and what to do where a host wanted a signature and got none. */
export function tellDoubts({ doubts, names, results }: RunReport, terminal: Pick<Terminal, "warn" | "note">): void {
  for (const [nodeId, why] of doubts) terminal.warn(`${names.get(nodeId) ?? nodeId}: ${why}`);
  const wanting = [...results.values()].some((result) => result.error_kind === "operator_signature_required");
  if (wanting) terminal.note("to sign calls: aegis operator key create; the host's owner then adds the key it shows");
}

/** `1 host`, `3 hosts`. */
export const hostsInWords = (count: number): string => `${count} host${count === 1 ? "" : "s"}`;
