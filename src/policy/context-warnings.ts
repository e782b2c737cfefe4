/** What is valid in a security context and yet hardly what its owner means. */
import { nearest } from "../platform/nearest.ts";
import { type Capability, knownKeys, type SecurityContext } from "./context.ts";
import { maxOutputBytesCap } from "./evaluate.ts";
import { usualDenylist } from "./path-rules.ts";

/** One sentence each, beginning with where it is; `at` is the path of the list, such as `spec.security_contexts`. */
export function securityContextWarnings(
  contexts: readonly SecurityContext[],
  written: unknown,
  at = "spec.security_contexts",
): string[] {
  return contexts.flatMap((context, index) => {
    const where = `${at}[${index}]`;
    const found = unknown(where, "context", context.unknownKeys, knownKeys.context);
    for (const [position, principal] of context.principals.entries())
      found.push(
        ...unknown(`${where}.principals[${position}]`, "principal", principal.unknownKeys, knownKeys.principal),
      );
    if (context.principals.length === 0)
      found.push(`${where}: ${context.name} names no principals, so nobody may use it; - sub: "*" is every caller`);
    for (const [position, capability] of context.capabilities.entries())
      found.push(...capabilityWarnings(`${where}.capabilities[${position}]`, capability));
    return [...found, ...domainWarnings(written, index, where)];
  });
}

function unknown(where: string, what: string, keys: readonly string[], known: readonly string[]): string[] {
  return keys.map((key) => {
    const inside = key.slice(0, key.indexOf(".") + 1); // `rate_limit.` or nothing
    const meant = nearest(
      key.slice(inside.length),
      known.filter((one) => one.startsWith(inside)).map((one) => one.slice(inside.length)),
    );
    const guess = meant ? `; did you mean ${inside}${meant}?` : "";
    return `${where}.${key} is unknown, so this ${what} allows nothing until it is corrected${guess}`;
  });
}

function capabilityWarnings(where: string, capability: Capability): string[] {
  const found = unknown(where, "capability", capability.unknownKeys, knownKeys.capability);
  const { pathDenylist, pathAllowlist, runAsShell, commandAllowlist, maxResponseSize } = capability;
  const open = pathDenylist ? usualDenylist.filter((entry) => !pathDenylist.includes(entry)) : [];
  if (open.length > 0 && pathAllowlist.length > 0)
    found.push(`${where}.path_denylist leaves out ${open.join(" ")}: what is granted there may be touched`);
  if (runAsShell && !commandAllowlist.includes("*"))
    found.push(`${where}.run_as_shell needs "*" in command_allowlist: a line for a shell can run any command`);
  if (maxResponseSize !== null && maxResponseSize > maxOutputBytesCap)
    found.push(`${where}.max_response_size is cut to ${maxOutputBytesCap}, so that a result stays below 4 MiB`);
  return found;
}

/** Part of the peer's format, and there are no web tools here that it could bind. */
function domainWarnings(written: unknown, index: number, where: string): string[] {
  const context = Array.isArray(written) ? (written[index] as { capabilities?: unknown }) : {};
  const capabilities = Array.isArray(context.capabilities) ? (context.capabilities as object[]) : [];
  return [...capabilities.entries()]
    .filter(([, capability]) => "domain_allowlist" in capability)
    .map(
      ([position]) => `${where}.capabilities[${position}].domain_allowlist has no effect: there are no web tools here`,
    );
}
