/**
 * The whole security story of one call: who asks, under which context, with what arguments, touching what.
 * Only a call that passed every line above `run` starts anything, and every refusal is a value that says why.
 */

import { parseArgs } from "../envelope/canonical-json.ts";
import type { Caller, UserVerifier } from "../envelope/user.ts";
import type { Secret } from "../platform/log.ts";
import type { Access } from "../policy/access.ts";
import { refuseAccess } from "../policy/capability.ts";
import type { SecurityContext } from "../policy/context.ts";
import { evaluate } from "../policy/evaluate.ts";
import { quote } from "../policy/quote.ts";
import type { Registry } from "../tools/registry.ts";
import { failed } from "../tools/results.ts";
import type { ErrorKind, PreparedCall, ToolContext, ToolResult } from "../tools/tool.ts";
import type { CallLimits } from "./call-limits.ts";
import { explainHidden, type Hidden } from "./hidden-places.ts";
import type { OperatorRefusal, Operators, SignAgain } from "./operators.ts";
import type { ReceivedCall } from "./received.ts";
import type { ReplayGuard } from "./replay.ts";

/** What this host judges by. Only its owner's config and its enrollment make it. */
export interface Host {
  nodeId: string;
  tenantId: string;
  users: UserVerifier;
  contexts: ReadonlyMap<string, SecurityContext>;
  /** True: every context behaves as if it required an operator's signature. */
  requireOperatorSignature: boolean;
  operators: Pick<Operators, "judge">;
  tools: Registry;
  replay: ReplayGuard;
  limits: CallLimits;
  /** Whether the owner has paused this host. */
  paused(): boolean;
  /** A secret the owner keeps on this host; null when there is none of that name. Absent: this host keeps none. */
  secret?(name: string): Promise<Secret | null>;
  /** Real paths that no tool touches, whatever a context says. */
  protectedPaths: readonly string[];
  /** The real path of the home directory. */
  home: string;
  /** What the service's sandbox keeps from tools. */
  hidden: Hidden;
}

export interface Invoked {
  result: ToolResult;
  /** False: refused, and nothing ran. */
  started: boolean;
  /** Who asked, once that is proven. */
  caller?: Caller;
  /** Which trusted operator signed the call, once that is proven. */
  operator?: string;
  /** The rule that decided, once policy was asked: `default.capabilities[3]`. */
  rule?: string;
  /** Only with `operator_signature_stale`. */
  signAgain?: SignAgain;
}

/** What policy adds to a tool's surroundings. */
type Granted = Required<Pick<ToolContext, "maxOutputBytes" | "allows" | "owner" | "secretEnv">>;
export type Proven = Pick<Invoked, "caller" | "operator" | "rule" | "signAgain">;
type Permission = Proven &
  (
    | { kind: "permitted"; call: PreparedCall; granted: Granted; release: () => void }
    | { kind: "refused"; errorKind: ErrorKind; message: string }
  );

/** `onBegin` is told what is proven right before the tool starts; it neither refuses nor waits. */
export async function invoke(
  received: ReceivedCall,
  host: Host,
  context: Omit<ToolContext, keyof Granted>,
  onBegin?: (proven: Proven) => void,
): Promise<Invoked> {
  const permission = await permit(received, host);
  const { kind, caller, operator, rule, signAgain } = permission;
  const proven: Proven = {
    ...(caller && { caller }),
    ...(operator !== undefined && { operator }),
    ...(rule && { rule }),
    ...(signAgain && { signAgain }),
  };
  if (kind === "refused")
    return { result: failed(permission.errorKind, permission.message), started: false, ...proven };
  const { call, granted, release } = permission;
  try {
    onBegin?.(proven);
    const result = await call.run({ ...context, ...granted });
    return { result: await explainHidden(result, call.accesses, host.hidden), started: true, ...proven };
  } finally {
    release();
  }
}

/** The order is fixed: who speaks, to whom, whether again; then what for; then what is touched; then how often. */
async function permit(received: ReceivedCall, host: Host): Promise<Permission> {
  const { nodeId, tenantId } = host;
  const { commandId, tenant, tool: toolName, argsJson, deadlineMs, operator } = received;
  const proven: Proven = {};
  const refuse = (errorKind: ErrorKind, message: string): Permission => ({
    kind: "refused",
    errorKind,
    message,
    ...proven,
  });

  if (tenant !== tenantId) return refuse("envelope_invalid", `this host belongs to tenant ${tenantId}`);
  const said = { nodeId, commandId, tenant, context: received.context, tool: toolName, argsJson, deadlineMs, operator };
  const user = host.users.verify(received.userToken, received.signature, said, received.frameTimeMs);
  if (user.kind === "refused") return refuse("envelope_invalid", `the caller could not be verified: ${user.reason}`);
  proven.caller = user.caller;
  if (!host.replay.firstSight(commandId))
    return refuse("replayed", `command ${commandId} was seen within the last hour`);
  if (host.paused()) return refuse("paused", "the owner of this host has paused it; aegis edge resume ends that");

  const contextName = quote(received.context);
  const context = host.contexts.get(received.context);
  if (!context) return refuse("security_context_not_found", `this host has no security context named ${contextName}`);
  const unsigned = ({ errorKind, message, again }: OperatorRefusal): Permission => {
    if (again) proven.signAgain = again;
    return refuse(errorKind, message);
  };
  // A proof that nobody asked for is judged like any other: what is signed wrongly does not run.
  const signed = operator.length > 0 ? host.operators.judge(operator, said) : null;
  if (signed?.kind === "refused") return unsigned(signed);
  if (signed) proven.operator = signed.operator;
  else if ((host.requireOperatorSignature || context.requireOperatorSignature) && !host.tools.get(toolName)?.followsUp)
    return refuse(
      "operator_signature_required",
      `context ${contextName} runs only what a trusted operator has signed; aegis edge fleet run signs, where the key is`,
    );

  const args = parseArgs(argsJson);
  if (args.kind === "refused") return refuse("envelope_invalid", `args_json is refused: ${args.reason}`);
  const tool = host.tools.get(toolName);
  if (!tool) return refuse("tool_not_found", `this host has no tool named ${quote(toolName)}`);
  const prepared = await tool.prepare(args.value);
  if (prepared.kind === "invalid_args") return refuse("invalid_args", prepared.message);

  const { call } = prepared;
  const letGo = async (...refused: Parameters<typeof refuse>): Promise<Permission> => {
    await call.dispose?.();
    return refuse(...refused);
  };
  const verdict = evaluate(context, { tool: toolName, accesses: call.accesses, caller: user.caller }, host);
  proven.rule = verdict.rule;
  if (verdict.kind === "denied") return letGo("policy_violation", verdict.reason);
  const { rule, capability, maxOutputBytes } = verdict;
  const secretEnv: Record<string, Secret> = {};
  for (const [variable, name] of capability.secretEnv) {
    const secret = await host.secret?.(name);
    if (!secret) return letGo("policy_violation", `secret_env of ${rule}: this host keeps no secret named ${name}`);
    secretEnv[variable] = secret;
  }
  const admission = host.limits.admit(rule, capability);
  if (admission.kind === "refused") return letGo(admission.errorKind, admission.message);
  // The statement is used up here, in one step and last: nothing that can still refuse or wait comes between it and `run`.
  const unspent = signed?.spend() ?? null;
  if (unspent) {
    admission.release();
    await call.dispose?.();
    return unsigned(unspent);
  }
  const allows = (access: Access) => refuseAccess(capability, access, host) === null;
  return {
    kind: "permitted",
    call,
    granted: { maxOutputBytes, allows, owner: { tenant, context: received.context }, secretEnv },
    release: admission.release,
    ...proven,
  };
}
