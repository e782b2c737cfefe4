/** An InvokeTool as it arrived in an authenticated frame, checked for form and turned into plain values. */
import { uuidBytes } from "../envelope/statement.ts";
import { limits } from "../platform/limits.ts";
import { readTraceContext, type TraceContext } from "../platform/trace-context.ts";
import { aegis } from "../wire/gen/messages.js";
import { whole } from "../wire/whole.ts";

type InvokeTool = aegis.cluster.v1.InvokeToolCommand.$Properties;

export interface ReceivedCall {
  commandId: string;
  /** The EdgeCommand as it stood in the frame: the receipt covers it. */
  commandBody: Uint8Array;
  /** The frame's authenticated time: controller time. */
  frameTimeMs: number;
  /** Monotonic time of arrival; the deadline counts from here. */
  receivedAt: number;
  tool: string;
  context: string;
  tenant: string;
  userToken: string;
  signature: Uint8Array;
  argsJson: Uint8Array;
  deadlineMs: number;
  initialCredit: number;
  /** What happens when that is used up: the command waits, or the newest output is kept and the rest counted. */
  onNoCredit: "wait" | "drop";
  /** Serialised OperatorProof as received; empty when absent. */
  operator: Uint8Array;
  /** The trace that the controller says it belongs to; decides nothing. */
  trace: TraceContext | null;
}

export type Reading = { kind: "call"; call: ReceivedCall } | { kind: "malformed"; commandId: string; reason: string };

/** Longest arguments of a call, in bytes of JSON text. */
export const maxArgsBytes = limits.argsBytes;

const noCredit: Readonly<Record<number, ReceivedCall["onNoCredit"]>> = {
  [aegis.cluster.v1.OnNoCredit.ON_NO_CREDIT_WAIT]: "wait",
  [aegis.cluster.v1.OnNoCredit.ON_NO_CREDIT_DROP]: "drop",
};

/** `initial_credit` above this is nobody's need. */
const maxInitialCredit = limits.creditPerCommandBytes;

export function readInvoke(
  command: InvokeTool,
  frame: { body: Uint8Array; timeMs: number; receivedAt: number },
): Reading | null {
  const commandId = command.commandId ?? "";
  if (!uuidBytes(commandId)) return null;
  const malformed = (reason: string): Reading => ({ kind: "malformed", commandId, reason });
  const envelope = command.sealEnvelope;
  if (!envelope) return malformed("seal_envelope is missing");
  if (envelope.payload) return malformed("seal_envelope.payload must be absent on a strict session");
  if (command.args) return malformed("args must be absent on a strict session; args_json carries them");
  if (envelope.securityContextName !== command.securityContextName)
    return malformed("the two security context names differ");
  const argsJson = command.argsJson ?? new Uint8Array();
  if (argsJson.length > maxArgsBytes)
    return malformed(`args_json has ${argsJson.length} bytes, the limit is ${maxArgsBytes}`);
  const deadlineMs = milliseconds(command.deadline);
  if (deadlineMs === null) return malformed("deadline is not a whole number of milliseconds");
  const initialCredit = whole(command.initialCredit);
  if (initialCredit === null || initialCredit > maxInitialCredit)
    return malformed(`initial_credit is above ${maxInitialCredit}`);
  const onNoCredit = noCredit[command.onNoCredit ?? 0];
  if (initialCredit > 0 && !onNoCredit)
    return malformed("on_no_credit must be WAIT or DROP: this version knows no other");
  return {
    kind: "call",
    call: {
      commandId,
      commandBody: frame.body,
      frameTimeMs: frame.timeMs,
      receivedAt: frame.receivedAt,
      tool: command.toolName ?? "",
      context: command.securityContextName ?? "",
      tenant: envelope.tenantId ?? "",
      userToken: envelope.userSecurityToken ?? "",
      signature: envelope.signature ?? new Uint8Array(),
      argsJson,
      deadlineMs,
      initialCredit,
      onNoCredit: onNoCredit ?? "wait",
      operator: command.operator ?? new Uint8Array(),
      trace: readTraceContext(command.traceparent, command.tracestate),
    },
  };
}

function milliseconds(duration: InvokeTool["deadline"]): number | null {
  if (!duration) return 0;
  const seconds = whole(duration.seconds);
  const nanos = duration.nanos ?? 0;
  if (seconds === null || nanos < 0 || nanos % 1_000_000 !== 0 || nanos >= 1_000_000_000) return null;
  const ms = seconds * 1000 + nanos / 1_000_000;
  return Number.isSafeInteger(ms) ? ms : null;
}
