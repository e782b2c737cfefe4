/** Answers of tools, in the few forms they have. */
import { type ErrorKind, nothingCaptured, type ToolResult } from "./tool.ts";

export const failed = (errorKind: ErrorKind, errorMessage: string): ToolResult => ({
  ok: false,
  exitCode: 0,
  stdout: nothingCaptured,
  stderr: nothingCaptured,
  errorKind,
  errorMessage,
});

/** Longest text of a structured answer that is also printed, so that one result stays below a message. In bytes. */
const maxPrintedBytes = 512 * 1024;

/** A structured answer, also as one line of JSON on stdout for callers that read only that, as far as it has room. */
export function answered(structured: Record<string, unknown>, maxOutputBytes: number): ToolResult {
  const line = Buffer.from(`${JSON.stringify(structured)}\n`);
  const isShort = line.length <= Math.min(maxOutputBytes, maxPrintedBytes);
  const stdout = isShort ? { head: line, tail: new Uint8Array(), bytes: line.length } : nothingCaptured;
  return { ok: true, exitCode: 0, stdout, stderr: nothingCaptured, structured };
}
