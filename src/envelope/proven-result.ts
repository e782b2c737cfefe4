/** A receipt with what it is about, read by somebody who knows the host's key and trusts nobody in between. */
import { aegis } from "../wire/gen/messages.js";
import { structToJson } from "../wire/json.ts";
import { whole } from "../wire/whole.ts";
import { type OperatorCall, type OperatorProof, readOperatorProof } from "./operator.ts";
import type { PublicKey } from "./public-key.ts";
import { verifyReceipt } from "./receipt.ts";

/** One pipe as the host kept it: `kept` is its first `head` bytes and its last ones, of `bytes` in all. */
export interface ProvenOutput {
  kept: Uint8Array;
  head: number;
  bytes: number;
}

export interface ProvenResult {
  commandId: string;
  /** What the host was told to do. */
  call: OperatorCall;
  /** The operator's proof in it. */
  proof: OperatorProof | null;
  /** False: refused, and nothing ran. */
  started: boolean;
  ok: boolean;
  exitCode: number;
  signal: string | null;
  errorKind: string | null;
  errorMessage: string | null;
  stdout: ProvenOutput;
  stderr: ProvenOutput;
  structured: unknown;
  /** A serialised OperatorChallenge, when a newer one is wanted. */
  challenge: Uint8Array | null;
  /** Nothing has run by that proof, and nothing ever will. */
  statementVoid: boolean;
}

export interface ReceiptBytes {
  commandBody: Uint8Array;
  result: Uint8Array;
  signature: Uint8Array;
}

/** Null unless `key` has signed exactly these bytes for this node. */
export function proveResult(
  { commandBody, result, signature }: ReceiptBytes,
  { nodeId, key }: { nodeId: string; key: PublicKey },
): ProvenResult | null {
  try {
    const { invokeTool } = aegis.cluster.v1.EdgeCommand.decode(commandBody);
    const commandId = invokeTool?.commandId;
    if (!invokeTool || !commandId) return null;
    if (!verifyReceipt(key, { nodeId, commandId, commandBody, result }, signature)) return null;
    const event = aegis.cluster.v1.CommandResultEvent.decode(result);
    const answer: aegis.cluster.v1.EdgeResult.$Properties = event.result ?? {};
    const seconds = whole(invokeTool.deadline?.seconds) ?? 0;
    return {
      commandId,
      call: {
        nodeId,
        tenant: invokeTool.sealEnvelope?.tenantId ?? "",
        context: invokeTool.securityContextName ?? "",
        tool: invokeTool.toolName ?? "",
        argsJson: invokeTool.argsJson ?? new Uint8Array(),
        deadlineMs: seconds * 1000 + (invokeTool.deadline?.nanos ?? 0) / 1_000_000,
      },
      proof: invokeTool.operator?.length ? readOperatorProof(invokeTool.operator) : null,
      started: event.started,
      ok: answer.ok ?? false,
      exitCode: answer.exitCode ?? 0,
      signal: answer.signal || null,
      errorKind: answer.errorKind || null,
      errorMessage: answer.errorMessage || null,
      stdout: output(answer.stdout, answer.stdoutHead, whole(answer.stdoutBytes)),
      stderr: output(answer.stderr, answer.stderrHead, whole(answer.stderrBytes)),
      structured: answer.structuredResult ? structToJson(answer.structuredResult) : null,
      challenge: event.challenge ? aegis.cluster.v1.OperatorChallenge.encode(event.challenge).finish() : null,
      statementVoid: event.statementVoid,
    };
  } catch {
    return null;
  }
}

function output(
  bytes: Uint8Array | null | undefined,
  head: number | null | undefined,
  total: number | null,
): ProvenOutput {
  const kept = bytes ?? new Uint8Array();
  return { kept, head: Math.min(head ?? kept.length, kept.length), bytes: Math.max(total ?? 0, kept.length) };
}
