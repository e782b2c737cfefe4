/**
 * Whether nothing can execute or write on this host without an operator's signature: only then does it hold that whoever
 * has the controller can run nothing here, because anything that runs or writes could reach the keys that say so.
 */
import type { SecurityContext } from "../policy/context.ts";
import { matchesTool } from "../policy/match.ts";
import { harmlessCommands } from "../policy/written-contexts.ts";
import type { Registry } from "../tools/registry.ts";

export type OperatorOnly = { holds: true } | { holds: false; context: string; tool: string };

interface Judged {
  requireOperatorSignature: boolean;
  contexts: ReadonlyMap<string, SecurityContext>;
  /** Tools of such servers are not known before they are started, so any of them may write. */
  mcpServers: readonly { name: string }[];
}

export function operatorOnly(
  { requireOperatorSignature, contexts, mcpServers }: Judged,
  tools: Registry,
): OperatorOnly {
  if (requireOperatorSignature) return { holds: true };
  // What only follows up a call was judged when that call began.
  const isChanging = (name: string) => !tools.get(name)?.followsUp;
  const changing = tools.list().flatMap(({ name, readOnly }) => (!readOnly && isChanging(name) ? [name] : []));
  const all = [...changing, ...mcpServers.map(({ name }) => `mcp.${name}.*`)];
  for (const context of contexts.values()) {
    const tool = all.find((one) => allowsUnsigned(context, one));
    if (tool !== undefined) return { holds: false, context: context.name, tool };
  }
  return { holds: true };
}

/** `tool` is a name, or `mcp.SERVER.*` for whatever that server may turn out to have. */
function allowsUnsigned(context: SecurityContext, tool: string): boolean {
  if (context.requireOperatorSignature || context.unknownKeys.length > 0 || context.principals.length === 0)
    return false;
  const isMany = tool.endsWith(".*");
  // A pattern denies all of many only if it stands for all of them, and allows some already if it is one of them.
  const standsForAll = (pattern: string) => pattern === tool || matchesTool(pattern, isMany ? tool.slice(0, -1) : tool);
  if (context.denyList.some(standsForAll)) return false;
  return context.capabilities.some((capability) => {
    const { toolPattern, pathAllowlist, unknownKeys } = capability;
    const isMeant = standsForAll(toolPattern) || (isMany && matchesTool(tool, toolPattern.replace(/\.\*$/, "")));
    if (!isMeant || unknownKeys.length > 0) return false;
    if (tool === "cmd.run") return !isHarmless(capability);
    return tool.startsWith("fs.") ? pathAllowlist.length > 0 : true;
  });
}

/** Only the spellings that enrollment writes, none of which executes, writes or reads a file of the caller's. */
function isHarmless({
  commandAllowlist,
  argsAllowlist,
  runAsShell,
  envAllowlist,
}: SecurityContext["capabilities"][number]) {
  if (commandAllowlist.length === 0 && !runAsShell) return true;
  if (argsAllowlist === null || runAsShell || envAllowlist.length > 0) return false;
  return commandAllowlist.every((command) => {
    const known = Object.hasOwn(harmlessCommands, command) ? harmlessCommands[command] : undefined;
    return known !== undefined && argsAllowlist.every((arg) => known.includes(arg));
  });
}
