/**
 * The order of judgement: who asks, what is denied by name, then the first capability that accepts; else no.
 * Nothing is allowed that no rule allows.
 */
import { limits } from "../platform/limits.ts";
import type { Access } from "./access.ts";
import { refusalOf } from "./capability.ts";
import type { Capability, Principal, SecurityContext } from "./context.ts";
import { matchesTool } from "./match.ts";
import type { PathWorld } from "./path-rules.ts";
import { quote } from "./quote.ts";

export interface CallToJudge {
  tool: string;
  accesses: readonly Access[];
  /** As the verified token says. */
  caller: { sub: string; scopes: readonly string[] };
}

export type Verdict =
  /** `rule` is where the deciding rule stands: `default.capabilities[3]`. */
  | { kind: "allowed"; rule: string; capability: Capability; maxOutputBytes: number }
  | { kind: "denied"; rule: string; reason: string };

/** What one capability said. */
export interface Step {
  rule: string;
  toolPattern: string;
  outcome: "accepted" | "other_tool" | "refused" | "not_asked";
  /** Why it refused; empty otherwise. */
  reason: string;
}

/** Bytes of each captured stream where a capability says nothing, and the most it may say: a result stays below 4 MiB. */
const defaultMaxOutputBytes = limits.outputBytes;
export const maxOutputBytesCap = 1900 * 1024;

export const evaluate = (context: SecurityContext, call: CallToJudge, host: PathWorld): Verdict =>
  explain(context, call, host).verdict;

/** The verdict and how it came about. */
export function explain(
  context: SecurityContext,
  call: CallToJudge,
  host: PathWorld,
): { verdict: Verdict; steps: readonly Step[] } {
  const { name } = context;
  const denied = (rule: string, reason: string, steps: readonly Step[] = []) => ({
    verdict: { kind: "denied", rule: `${name}.${rule}`, reason: `context ${name}: ${reason}` } as const,
    steps,
  });

  const [unknownKey] = context.unknownKeys;
  if (unknownKey !== undefined)
    return denied(unknownKey, `its key ${unknownKey} is unknown, so it allows nothing until that is corrected`);
  if (!context.principals.some((principal) => isCaller(principal, call.caller)))
    return denied("principals", `caller ${quote(call.caller.sub)} is none of its principals`);
  const denial = context.denyList.find((pattern) => matchesTool(pattern, call.tool));
  if (denial !== undefined) return denied("deny_list", `deny_list holds ${denial}, which denies ${call.tool}`);
  const missing = unstated(call);
  if (missing) return denied("tool", `${call.tool} states no ${missing} it touches, so it cannot be judged`);

  const steps: Step[] = [];
  let closest = { reason: `no capability is for ${call.tool}`, closeness: -1, rule: "capabilities" };
  let accepted: { rule: string; capability: Capability } | null = null;
  for (const [index, capability] of context.capabilities.entries()) {
    const { toolPattern } = capability;
    const rule = `capabilities[${index}]`;
    const step = (outcome: Step["outcome"], reason = "") =>
      steps.push({ rule: `${name}.${rule}`, toolPattern, outcome, reason });
    if (!matchesTool(toolPattern, call.tool)) step("other_tool");
    else if (accepted) step("not_asked");
    else {
      const refusal = refusalOf(capability, call.accesses, host);
      if (refusal && refusal.closeness > closest.closeness) closest = { ...refusal, rule };
      else if (refusal?.closeness === closest.closeness) closest.rule = "capabilities";
      if (!refusal) accepted = { rule, capability };
      step(refusal ? "refused" : "accepted", refusal?.reason);
    }
  }
  if (!accepted) return denied(closest.rule, `${call.tool} is not allowed: ${closest.reason}`, steps);
  const { rule, capability } = accepted;
  const maxOutputBytes = Math.min(capability.maxResponseSize ?? defaultMaxOutputBytes, maxOutputBytesCap);
  return { verdict: { kind: "allowed", rule: `${name}.${rule}`, capability, maxOutputBytes }, steps };
}

function isCaller({ sub, scope, unknownKeys }: Principal, caller: CallToJudge["caller"]): boolean {
  if (unknownKeys.length > 0 || (sub === undefined && scope === undefined)) return false;
  const isSub = sub === undefined || sub === "*" || sub === caller.sub;
  return isSub && (scope === undefined || caller.scopes.includes(scope));
}

/** What such a tool always touches and this call does not state: it must not pass because there is nothing to judge. */
function unstated({ tool, accesses }: CallToJudge): string | null {
  const states = (...kinds: Access["kind"][]) => accesses.some((access) => kinds.includes(access.kind));
  if (tool.startsWith("fs.") && !states("path")) return "path";
  if (tool.startsWith("cmd.") && !states("command", "shell")) return "command";
  return null;
}
