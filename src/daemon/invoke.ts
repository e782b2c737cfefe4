/**
 * The whole security story of one call: who asks, under which context, with what arguments, touching what.
 * Only a call that passed every line above `run` starts anything, and every refusal is a value that says why.
 */
import { parseArgs } from "../envelope/canonical-json.ts";
import type { Caller, UserVerifier } from "../envelope/user.ts";
import type { SecurityContext } from "../policy/context.ts";
import { evaluate } from "../policy/evaluate.ts";
import type { Registry } from "../tools/registry.ts";
import {
  type ErrorKind,
  nothingCaptured,
  type PreparedCall,
  type ToolContext,
  type ToolResult,
} from "../tools/tool.ts";
import type { ReceivedCall } from "./received.ts";
import type { ReplayGuard } from "./replay.ts";

/** What this host judges by. Only its owner's config and its enrollment make it. */
export interface Host {
  nodeId: string;
  tenantId: string;
  users: UserVerifier;
  contexts: ReadonlyMap<string, SecurityContext>;
  tools: Registry;
  replay: ReplayGuard;
  /** Never touched by any tool, whatever a context says. */
  protectedPaths: readonly string[];
}

export interface Invoked {
  result: ToolResult;
  /** False: refused, and nothing ran. */
  started: boolean;
}

type Permission =
  | { kind: "permitted"; call: PreparedCall; caller: Caller; rule: string; maxOutputBytes: number }
  | { kind: "refused"; errorKind: ErrorKind; message: string };

const refuse = (errorKind: ErrorKind, message: string): Permission => ({ kind: "refused", errorKind, message });

export async function invoke(
  received: ReceivedCall,
  host: Host,
  context: Omit<ToolContext, "maxOutputBytes">,
): Promise<Invoked> {
  const permission = await permit(received, host);
  if (permission.kind === "refused")
    return { result: refusal(permission.errorKind, permission.message), started: false };
  const { call, maxOutputBytes } = permission;
  return { result: await call.run({ ...context, maxOutputBytes }), started: true };
}

async function permit(received: ReceivedCall, host: Host): Promise<Permission> {
  const { nodeId, tenantId } = host;
  const { commandId, tenant, tool: toolName, argsJson, deadlineMs, operator } = received;

  if (tenant !== tenantId) return refuse("envelope_invalid", `this host belongs to tenant ${tenantId}`);
  const said = { nodeId, commandId, tenant, context: received.context, tool: toolName, argsJson, deadlineMs, operator };
  const user = host.users.verify(received.userToken, received.signature, said, received.frameTimeMs);
  if (user.kind === "refused") return refuse("envelope_invalid", `the caller could not be verified: ${user.reason}`);
  if (!host.replay.firstSight(commandId))
    return refuse("replayed", `command ${commandId} was seen within the last hour`);

  const context = host.contexts.get(received.context);
  if (!context)
    return refuse(
      "security_context_not_found",
      `this host has no security context named ${JSON.stringify(received.context)}`,
    );
  if (operator.length > 0) return refuse("envelope_invalid", "this version does not judge operator signatures");

  const args = parseArgs(argsJson);
  if (args.kind === "refused") return refuse("envelope_invalid", `args_json is refused: ${args.reason}`);
  const tool = host.tools.get(toolName);
  if (!tool) return refuse("tool_not_found", `this host has no tool named ${JSON.stringify(toolName)}`);
  const prepared = await tool.prepare(args.value);
  if (prepared.kind === "invalid_args") return refuse("invalid_args", prepared.message);

  const { call } = prepared;
  const { protectedPaths } = host;
  const verdict = evaluate(
    context,
    { tool: toolName, accesses: call.accesses, caller: user.caller },
    { protectedPaths },
  );
  if (verdict.kind === "denied") return refuse("policy_violation", verdict.reason);
  return { kind: "permitted", call, caller: user.caller, rule: verdict.rule, maxOutputBytes: verdict.maxOutputBytes };
}

export const refusal = (errorKind: ErrorKind, errorMessage: string): ToolResult => ({
  ok: false,
  exitCode: 0,
  stdout: nothingCaptured,
  stderr: nothingCaptured,
  errorKind,
  errorMessage,
});
