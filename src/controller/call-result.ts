/** What came of a call: from the bytes a host signed, from the store, or from the lack of either. */
import type { CommandResult } from "../api/events.ts";
import type { CommandRow, NodeOutcome } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { structToJson } from "../wire/json.ts";
import { whole } from "../wire/whole.ts";
import type { ResultEvent, StreamResult } from "./dispatch-types.ts";
import { capturedText } from "./output-text.ts";
import { nodeOutcome } from "./result-ledger.ts";

const nothing: StreamResult = { head: new Uint8Array(), tail: new Uint8Array(), bytes: 0 };

const errorKinds: Partial<Record<NodeOutcome, string>> = {
  timed_out: "timeout",
  cancelled: "cancelled",
  edge_disconnected: "edge_disconnected",
  err: "internal",
};

/** A call whose host gave no result, or that never reached one. */
export const missingResult = (outcome: NodeOutcome, errorMessage: string, durationMs: number): ResultEvent => ({
  kind: "result",
  ok: false,
  outcome,
  exitCode: null,
  signal: null,
  errorKind: errorKinds[outcome] ?? null,
  errorMessage,
  durationMs,
  stdout: nothing,
  stderr: nothing,
  structured: null,
  jobId: null,
  late: false,
  output: "incomplete",
  receipt: "missing",
  receiptProof: null,
});

export interface ReceivedResult {
  commandBody: Uint8Array;
  /** A serialised CommandResultEvent. */
  result: Uint8Array;
  signature: Uint8Array;
  keyId: Uint8Array;
  receipt: ResultEvent["receipt"];
  outputComplete: boolean;
  /** Measured here; told where the host does not say how long it took, as the peer does not. */
  roundTripMs: number;
}

/** A host's own result. */
export function receivedResult({ commandBody, result, signature, keyId, ...judged }: ReceivedResult): ResultEvent {
  const event = aegis.cluster.v1.CommandResultEvent.decode(result);
  const answer: aegis.cluster.v1.EdgeResult.$Properties = event.result ?? {};
  return {
    kind: "result",
    outcome: nodeOutcome(event),
    ok: answer.ok ?? false,
    exitCode: answer.exitCode ?? 0,
    signal: answer.signal || null,
    errorKind: answer.errorKind || null,
    errorMessage: answer.errorMessage || null,
    durationMs: judged.receipt === "peer_id_only" ? judged.roundTripMs : (whole(event.durationMs) ?? 0),
    stdout: stream(answer.stdout, answer.stdoutHead, whole(answer.stdoutBytes)),
    stderr: stream(answer.stderr, answer.stderrHead, whole(answer.stderrBytes)),
    structured: answer.structuredResult ? structToJson(answer.structuredResult) : null,
    jobId: answer.jobId || null,
    late: false,
    output: judged.outputComplete ? "complete" : "incomplete",
    receipt: judged.receipt,
    // The peer's signature covers neither command nor result: it is no receipt that anyone could check.
    receiptProof: judged.receipt === "peer_id_only" ? null : { commandBody, result, signature, keyId },
    ...signAgain(event, judged.receipt),
  };
}

/** Only what a host has proven to have said, about a call that did not run. */
function signAgain(
  { result, started, challenge }: ReturnType<typeof aegis.cluster.v1.CommandResultEvent.decode>,
  receipt: ResultEvent["receipt"],
): Pick<ResultEvent, "signAgain"> {
  const isStale = result?.errorKind === "operator_signature_stale" && !started && receipt === "verified";
  return isStale && challenge ? { signAgain: aegis.cluster.v1.OperatorChallenge.encode(challenge).finish() } : {};
}

function stream(
  bytes: Uint8Array | null | undefined,
  head: number | null | undefined,
  total: number | null,
): StreamResult {
  const all = bytes ?? new Uint8Array();
  // The peer says nothing of lengths: what it sends is the whole.
  const cut = total ? Math.min(head ?? all.length, all.length) : all.length;
  return { head: all.subarray(0, cut), tail: all.subarray(cut), bytes: Math.max(total ?? 0, all.length) };
}

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** As the API tells it. */
export function commandResult(
  { nodeId, name }: { nodeId: string; name: string },
  commandId: string,
  event: ResultEvent,
): CommandResult {
  const { receiptProof: proof } = event;
  return {
    node_id: nodeId,
    name,
    command_id: commandId,
    ok: event.ok,
    outcome: event.outcome,
    exit_code: event.exitCode,
    signal: event.signal,
    error_kind: event.errorKind,
    error_message: event.errorMessage,
    duration_ms: event.durationMs,
    stdout: capturedText(event.stdout),
    stderr: capturedText(event.stderr),
    structured: event.structured,
    job_id: event.jobId,
    late: event.late,
    output: event.output,
    receipt: event.receipt,
    receipt_proof: proof && {
      command_body: base64url(proof.commandBody),
      result: base64url(proof.result),
      signature: base64url(proof.signature),
      key_id: base64url(proof.keyId),
    },
  };
}

/** A stored call; one that goes on has no result. */
export function storedResult(row: CommandRow): ResultEvent | null {
  const { result, receiptSignature, receiptKeyId, receipt, commandBody, outputComplete, outcome } = row;
  if (row.endedAt === null || outcome === null) return null;
  if (result && receiptSignature && receiptKeyId && receipt)
    return receivedResult({
      ...{ commandBody, result, receipt, outputComplete },
      ...{ signature: receiptSignature, keyId: receiptKeyId, roundTripMs: row.endedAt - row.dispatchedAt },
    });
  return missingResult(outcome, "no result of the host is stored", row.endedAt - row.dispatchedAt);
}
