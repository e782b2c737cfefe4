/** Answers what this host would say to a call, without one: the same preparation and the same judgement as in `invoke`. */
import type { Access } from "../policy/access.ts";
import type { SecurityContext } from "../policy/context.ts";
import { type CallToJudge, explain, type Step, type Verdict } from "../policy/evaluate.ts";
import type { PathWorld } from "../policy/path-rules.ts";
import type { Registry } from "../tools/registry.ts";

export interface PolicyQuestion {
  config: { contexts: ReadonlyMap<string, SecurityContext>; requireOperatorSignature: boolean };
  tools: Registry;
  /** What is protected, and whose home `~` is: as the daemon of this host has it. */
  world: PathWorld;
  context: string;
  tool: string;
  args: unknown;
  /** Who asks. Absent: somebody whom the context's first principal lets in. */
  caller?: CallToJudge["caller"];
}

export type PolicyAnswer =
  | { kind: "security_context_not_found"; known: readonly string[] }
  | { kind: "tool_not_found"; known: readonly string[] }
  | { kind: "invalid_args"; message: string }
  | {
      kind: "judged";
      verdict: Verdict;
      /** What each capability said, in the order they were asked. */
      steps: readonly Step[];
      /** What the call would touch, as its tool states it. */
      accesses: readonly Access[];
      caller: CallToJudge["caller"];
      /** Besides the verdict, a trusted operator must have signed the call. */
      needsOperatorSignature: boolean;
    };

export async function testPolicy(question: PolicyQuestion): Promise<PolicyAnswer> {
  const { config, tools, world } = question;
  const context = config.contexts.get(question.context);
  if (!context) return { kind: "security_context_not_found", known: [...config.contexts.keys()] };
  const tool = tools.get(question.tool);
  if (!tool) return { kind: "tool_not_found", known: tools.list().map(({ name }) => name) };
  const prepared = await tool.prepare(question.args);
  if (prepared.kind === "invalid_args") return prepared;
  const { accesses } = prepared.call;
  await prepared.call.dispose?.();
  const caller = question.caller ?? somebody(context);
  const { verdict, steps } = explain(context, { tool: question.tool, accesses, caller }, world);
  const needsOperatorSignature =
    !tool.followsUp && (config.requireOperatorSignature || context.requireOperatorSignature);
  return { kind: "judged", verdict, steps, accesses, caller, needsOperatorSignature };
}

function somebody({ principals }: SecurityContext): CallToJudge["caller"] {
  const [first] = principals;
  const sub = first?.sub === undefined || first.sub === "*" ? "anybody" : first.sub;
  return { sub, scopes: first?.scope === undefined ? [] : [first.scope] };
}
