/** The command for one call as the peer's daemon takes it: base fields only, and an inner envelope that it does not refuse. */
import { AegisError } from "../errors.ts";
import { aegis } from "../wire/gen/messages.js";
import { jsonToStruct } from "../wire/json.ts";
import { toLong } from "../wire/whole.ts";
import type { CallRequest } from "./dispatch-types.ts";

/**
 * The peer wants a token of three parts, a tenant and the context's name a second time; it verifies none of them. Args
 * travel as a Struct, so whole numbers above 2^53 lose digits.
 */
export function compatCommand(request: CallRequest, userToken: string): Uint8Array {
  const { commandId, context, tool, principal } = request;
  const args: unknown = JSON.parse(request.argsJson);
  if (typeof args !== "object" || args === null || Array.isArray(args))
    throw new AegisError("invalid_request", `the args of ${tool} are no JSON object, and a compat host takes no other`);
  const deadlineSecs = deadline(request.deadlineMs, args as Record<string, unknown>);
  return aegis.cluster.v1.EdgeCommand.encode({
    invokeTool: {
      commandId,
      securityContextName: context,
      sealEnvelope: { userSecurityToken: userToken, tenantId: principal.tenantId, securityContextName: context },
      toolName: tool,
      args: jsonToStruct(args as Record<string, unknown>),
      ...(deadlineSecs > 0 ? { deadline: { seconds: toLong(deadlineSecs), nanos: 0 } } : {}),
    },
  }).finish();
}

/**
 * Whole seconds, rounded up, since the peer drops the rest; 0 = none. Its daemon reads `timeout_secs` as a whole number,
 * which a Struct cannot hold, so the shorter of the two goes where it is heeded.
 */
function deadline(deadlineMs: number, { timeout_secs: timeout }: Record<string, unknown>): number {
  const asked = typeof timeout === "number" && timeout > 0 ? timeout * 1000 : Number.POSITIVE_INFINITY;
  const shorterMs = Math.min(deadlineMs > 0 ? deadlineMs : Number.POSITIVE_INFINITY, asked);
  return Number.isFinite(shorterMs) ? Math.ceil(shorterMs / 1000) : 0;
}
