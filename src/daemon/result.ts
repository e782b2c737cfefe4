/** A tool's answer as the bytes that are signed and sent. */
import type { Captured, ToolResult } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";
import { jsonToStruct } from "../wire/json.ts";
import { toLong } from "../wire/whole.ts";
import type { SignAgain } from "./operators.ts";

export interface ResultInput {
  commandId: string;
  result: ToolResult;
  started: boolean;
  durationMs: number;
  progressFrames: number;
  progressChain: Uint8Array;
  progressDroppedBytes: number;
  /** Only with `operator_signature_stale`. */
  signAgain?: SignAgain;
}

/** A serialised CommandResultEvent. Below 4 MiB because captured output is: see `maxOutputBytes` in tools. */
export function encodeResult({ result, signAgain, ...input }: ResultInput): Uint8Array {
  return aegis.cluster.v1.CommandResultEvent.encode({
    commandId: input.commandId,
    result: {
      ok: result.ok,
      exitCode: result.exitCode,
      stdout: joined(result.stdout),
      stderr: joined(result.stderr),
      stdoutBytes: toLong(result.stdout.bytes),
      stdoutHead: result.stdout.head.length,
      stderrBytes: toLong(result.stderr.bytes),
      stderrHead: result.stderr.head.length,
      errorKind: result.errorKind ?? "",
      errorMessage: result.errorMessage ?? "",
      signal: result.signal ?? "",
      jobId: result.jobId ?? "",
      ...(result.structured ? { structuredResult: jsonToStruct(result.structured) } : {}),
    },
    progressFrames: toLong(input.progressFrames),
    progressChain: input.progressChain,
    started: input.started,
    durationMs: toLong(Math.round(input.durationMs)),
    progressDroppedBytes: toLong(input.progressDroppedBytes),
    ...(signAgain
      ? {
          challenge: aegis.cluster.v1.OperatorChallenge.decode(signAgain.challenge),
          statementVoid: signAgain.statementVoid,
        }
      : {}),
  }).finish();
}

const joined = ({ head, tail }: Captured): Uint8Array => (tail.length === 0 ? head : Buffer.concat([head, tail]));
