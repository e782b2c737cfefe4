import type { Access } from "../../src/policy/access.ts";
import type { Tool, ToolContext, ToolResult } from "../../src/tools/tool.ts";

export const toolContext = (more: Partial<ToolContext> = {}): ToolContext => ({
  signal: new AbortController().signal,
  output: async () => {},
  maxOutputBytes: 1024 * 1024,
  allows: () => true,
  owner: { tenant: "acme", context: "default" },
  ...more,
});

export type Called =
  | { kind: "ran"; result: ToolResult; accesses: readonly Access[] }
  | { kind: "denied"; access: Access }
  | { kind: "invalid_args"; message: string };

/** A call as the daemon makes it: prepared, judged by `allows`, run or let go. */
export async function callTool(tool: Tool, args: unknown, more: Partial<ToolContext> = {}): Promise<Called> {
  const prepared = await tool.prepare(args);
  if (prepared.kind === "invalid_args") return prepared;
  const { call } = prepared;
  const context = toolContext(more);
  const denied = call.accesses.find((access) => !context.allows(access));
  if (denied) {
    await call.dispose?.();
    return { kind: "denied", access: denied };
  }
  return { kind: "ran", result: await call.run(context), accesses: call.accesses };
}

/** The structured answer of a call that must succeed. */
export async function answerOf(
  tool: Tool,
  args: unknown,
  more: Partial<ToolContext> = {},
): Promise<Record<string, unknown>> {
  const called = await callTool(tool, args, more);
  if (called.kind !== "ran" || !called.result.ok || !called.result.structured)
    throw new Error(`no answer: ${JSON.stringify(called)}`);
  return called.result.structured;
}

/** Why a call was refused or failed, in the words of its caller. */
export async function refusalOf(tool: Tool, args: unknown, more: Partial<ToolContext> = {}): Promise<string> {
  const called = await callTool(tool, args, more);
  if (called.kind === "invalid_args") return called.message;
  if (called.kind === "denied") return `denied: ${JSON.stringify(called.access)}`;
  if (called.result.ok) throw new Error(`it succeeded: ${JSON.stringify(called.result.structured)}`);
  return called.result.errorMessage ?? "";
}
