/** Whether one capability accepts all that a call will touch. */
import type { Access } from "./access.ts";
import { beginsWith, deniesArgument, envProblem, grantsCommand, isShell, narrowsCommand } from "./command-rules.ts";
import type { Capability } from "./context.ts";
import { matchesText } from "./match.ts";
import {
  deniesPath,
  grantsPath,
  type PathWorld,
  protectedBy,
  segmentsOf,
  styleOf,
  usualDenylist,
} from "./path-rules.ts";
import { quote } from "./quote.ts";

/** Why something is not allowed. The higher `closeness`, the more of the call had been accepted. */
export interface Refusal {
  reason: string;
  closeness: number;
}

/** Null when every access is accepted. That the tool's name fits is for the caller to see. */
export function refusalOf(capability: Capability, accesses: readonly Access[], world: PathWorld): Refusal | null {
  const [unknownKey] = capability.unknownKeys;
  if (unknownKey !== undefined)
    return { reason: `its key ${unknownKey} is unknown, so it accepts nothing until that is corrected`, closeness: 0 };
  for (const [index, access] of accesses.entries()) {
    const refusal = refuseAccess(capability, access, world);
    if (refusal) return { ...refusal, closeness: index * 10 + refusal.closeness };
  }
  return null;
}

/** Judges one access alone: also for a tool that meets further paths while it runs. */
export function refuseAccess(capability: Capability, access: Access, world: PathWorld): Refusal | null {
  switch (access.kind) {
    case "path":
      return refusePath(capability, access, world);
    case "command":
      return refuseCommand(capability, access, world);
    case "shell":
      return refuseShell(capability);
    case "env": {
      const reason = envProblem(capability.envAllowlist, access.name);
      return reason === null ? null : { reason, closeness: 1 };
    }
    case "host":
      return { reason: "no capability grants access to the network", closeness: 1 };
  }
}

function refusePath(
  { pathAllowlist, pathDenylist }: Capability,
  { path, mode }: Extract<Access, { kind: "path" }>,
  world: PathWorld,
): Refusal | null {
  const shown = quote(path);
  const segments = segmentsOf(path, styleOf(world));
  if (!segments) return { reason: `${shown} is no absolute path in its plain form`, closeness: 1 };
  const kept = protectedBy(segments, mode, world);
  if (kept !== undefined) return { reason: `${shown} is closed to every tool: ${kept} is protected`, closeness: 3 };
  const denial = (pathDenylist ?? usualDenylist).find((entry) => deniesPath(entry, segments, world));
  if (denial !== undefined) {
    const source = pathDenylist ? "path_denylist" : "the usual path_denylist, which stands where none is written,";
    return { reason: `${source} holds ${denial}, which denies ${shown}`, closeness: 3 };
  }
  if (pathAllowlist.some((entry) => grantsPath(entry, segments, world))) return null;
  return { reason: `path_allowlist does not hold ${shown}`, closeness: 1 };
}

function refuseCommand(
  capability: Capability,
  command: Extract<Access, { kind: "command" }>,
  world: PathWorld,
): Refusal | null {
  const { commandAllowlist, argsAllowlist, argsDenylist, subcommandAllowlist, runAsShell } = capability;
  const { name, executable, args } = command;
  const shown = name === executable ? quote(name) : `${quote(name)}, which is ${quote(executable)}`;
  const segments = segmentsOf(executable, styleOf(world));
  if (!segments) return { reason: `${shown} is not resolved to an executable`, closeness: 1 };
  if (args.some((arg) => arg.includes("\0"))) return { reason: "an argument holds a zero byte", closeness: 1 };
  if (!commandAllowlist.some((entry) => grantsCommand(entry, command, world)))
    return { reason: `command_allowlist does not hold ${shown}`, closeness: 1 };
  if (isShell(command) && !runAsShell)
    return { reason: `${shown} is a shell and run_as_shell is not set`, closeness: 2 };
  const narrowing = [...subcommandAllowlist].filter(([key]) => narrowsCommand(key, command));
  for (const [key, allowed] of narrowing) {
    const fits = allowed.length === 0 ? args.length === 0 : allowed.some((entry) => beginsWith(entry, args));
    if (fits) continue;
    const given = args.length === 0 ? "no arguments" : quote(args[0] ?? "");
    return { reason: `subcommand_allowlist of ${key} does not hold ${given}`, closeness: 3 };
  }
  for (const arg of args) {
    const denial = argsDenylist.find((rule) => deniesArgument(rule, arg));
    if (denial !== undefined)
      return { reason: `args_denylist holds ${denial}, which denies ${quote(arg)}`, closeness: 3 };
    if (argsAllowlist && !argsAllowlist.some((rule) => matchesText(rule, arg)))
      return { reason: `args_allowlist does not hold ${quote(arg)}`, closeness: 3 };
  }
  return null;
}

/** What a shell makes of a line cannot be judged, so it is allowed only where everything it could run is. */
function refuseShell(capability: Capability): Refusal | null {
  const { runAsShell, commandAllowlist, argsAllowlist, argsDenylist, subcommandAllowlist } = capability;
  if (!runAsShell) return { reason: "run_as_shell is not set", closeness: 1 };
  const free = commandAllowlist.includes("*") && !argsAllowlist && argsDenylist.length + subcommandAllowlist.size === 0;
  if (free) return null;
  return {
    reason: "a shell can run anything, and this capability does not allow any command with any arguments",
    closeness: 2,
  };
}
