/**
 * A call as the other implementation's controller sends it, which signs nothing and leaves fields empty. Lenient only
 * where that controller cannot do better; whatever it does say must be consistent.
 */
import { uuidBytes } from "../envelope/statement.ts";
import type { UserVerifier } from "../envelope/user.ts";
import type { aegis } from "../wire/gen/messages.js";
import { structToJson } from "../wire/json.ts";
import { whole } from "../wire/whole.ts";
import { maxArgsBytes, type Reading } from "./received.ts";

/** Who asks, as policy sees it: a principal that names somebody never matches, only one that is everybody. */
const unverifiedCaller = "unverified";

/** Null when no answer could name the call. */
export function readCompatInvoke(
  command: aegis.cluster.v1.InvokeToolCommand.$Properties,
  { receivedAt, nowMs }: { receivedAt: number; nowMs: number },
): Reading | null {
  const commandId = command.commandId ?? "";
  if (!uuidBytes(commandId)) return null;
  const malformed = (reason: string): Reading => ({ kind: "malformed", commandId, reason });
  const envelope = command.sealEnvelope;
  if (!envelope) return malformed("seal_envelope is missing");
  const context = command.securityContextName ?? "";
  if (envelope.securityContextName && envelope.securityContextName !== context)
    return malformed("the two security context names differ");
  const userToken = envelope.userSecurityToken ?? "";
  if (userToken.trim() !== "" && userToken.split(".").length !== 3)
    return malformed("user_security_token is neither empty nor a JWT");
  const argsJson = Buffer.from(JSON.stringify(args(command)), "utf8");
  if (argsJson.length > maxArgsBytes)
    return malformed(`the arguments have ${argsJson.length} bytes, the limit is ${maxArgsBytes}`);
  return {
    kind: "call",
    call: {
      commandId,
      // There are no receipts on a compat session, so there is nothing to cover.
      commandBody: new Uint8Array(),
      frameTimeMs: nowMs,
      receivedAt,
      tool: command.toolName ?? "",
      context,
      tenant: envelope.tenantId ?? "",
      userToken,
      signature: new Uint8Array(),
      argsJson,
      deadlineMs: deadline(command.deadline),
      // No credit is ever granted here: the transport alone holds output back.
      initialCredit: Number.MAX_SAFE_INTEGER,
      onNoCredit: "wait",
      operator: new Uint8Array(),
      trace: null,
    },
  };
}

/** The peer leaves what its own routing read among the arguments, where no tool knows it. */
function args({ args: struct }: aegis.cluster.v1.InvokeToolCommand.$Properties): Record<string, unknown> {
  const { target, ...rest } = structToJson(struct ?? {});
  const isRoute =
    typeof target === "object" && target !== null && ("edge_node_id" in target || "edge_selector" in target);
  return target === undefined || isRoute ? rest : { ...rest, target };
}

/** Whole milliseconds, 0 = none: the peer takes what is not positive for no deadline. */
function deadline(duration: aegis.cluster.v1.InvokeToolCommand.$Properties["deadline"]): number {
  const seconds = whole(duration?.seconds);
  const nanos = duration?.nanos ?? 0;
  if (seconds === null || nanos < 0) return 0;
  const ms = seconds * 1000 + Math.ceil(nanos / 1_000_000);
  return Number.isSafeInteger(ms) ? ms : 0;
}

/** Believes that somebody asked, and nothing about who: `invoke` compares the tenant, and the context is this host's own. */
export const compatUsers: UserVerifier = {
  verify: (_token, _signature, call) => ({
    kind: "caller",
    caller: { sub: unverifiedCaller, tenantId: call.tenant, context: call.context, scopes: [], via: "rest" },
  }),
};
