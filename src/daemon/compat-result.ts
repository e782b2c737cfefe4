/** A result as the other implementation's controller reads it: seven fields, with output that stands for itself. */
import type { aegis, google } from "../wire/gen/messages.js";
import { structToJson } from "../wire/json.ts";
import { whole } from "../wire/whole.ts";

type EdgeResult = aegis.cluster.v1.EdgeResult.$Properties;

export function compatResult(said: EdgeResult): EdgeResult {
  const { ok, exitCode, structuredResult, errorKind, errorMessage } = said;
  const stdout = output(said.stdout, said.stdoutHead, whole(said.stdoutBytes));
  return {
    ...{ ok: ok ?? false, exitCode: exitCode ?? 0, errorKind: errorKind ?? "", errorMessage: errorMessage ?? "" },
    // The peer drops `structured_result` on its way to the caller, so what has no other output is written out.
    stdout: stdout.length === 0 && structuredResult ? jsonText(structuredResult) : stdout,
    stderr: output(said.stderr, said.stderrHead, whole(said.stderrBytes)),
    ...(structuredResult ? { structuredResult } : {}),
  };
}

const jsonText = (struct: google.protobuf.Struct.$Properties): Uint8Array =>
  Buffer.from(JSON.stringify(structToJson(struct)), "utf8");

/** The peer knows no head and tail, so a gap between them is said in words. */
function output(
  bytes: Uint8Array | null | undefined,
  head: number | null | undefined,
  total: number | null,
): Uint8Array {
  const kept = bytes ?? new Uint8Array();
  const omitted = (total ?? 0) - kept.length;
  if (omitted <= 0) return kept;
  const cut = Math.min(head ?? kept.length, kept.length);
  const gap = Buffer.from(`\n[${omitted} bytes omitted]\n`, "utf8");
  return Buffer.concat([kept.subarray(0, cut), gap, kept.subarray(cut)]);
}
