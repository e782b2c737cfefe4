/** The contexts that enrollment writes into a host's configuration, for its owner to change. */
import { AegisError } from "../errors.ts";
import { isGlob } from "./path-rules.ts";

/** Tools that look at files and change none. */
const readingTools = ["fs.read", "fs.list", "fs.stat", "fs.grep", "fs.glob"];

/**
 * Commands that tell about the host, each with every argument it may be given. None of these spellings executes, writes
 * or reads a file the caller names, sets anything, or runs for ever; an argument that is not here is refused, so it does
 * not matter what else a program of some system understands (`date -s`, `date -f FILE`, `hostname -F FILE`,
 * `hostname NAME`, `free -s 1`, `df --sync`).
 */
export const harmlessCommands: Readonly<Record<string, readonly string[]>> = {
  uname: ["-a", "-s", "-n", "-r", "-v", "-m", "-p", "-i", "-o", "-sr", "-srm"],
  uptime: ["-p", "-s"],
  df: ["-h", "-k", "-P", "-T", "-i", "-l", "-hT", "-Pk", "/"],
  free: ["-b", "-k", "-m", "-g", "-h", "-w", "-t"],
  date: ["-u", "-R", "-I", "-Iseconds", "+%s", "+%F", "+%T", "+%FT%T%z", "+%FT%TZ", "+%Y-%m-%d"],
  id: ["-u", "-g", "-G", "-n", "-r", "-un", "-gn", "-Gn"],
  hostname: ["-f", "-s", "-i", "-I", "-d"],
  whoami: [],
};

/** A new list each time: one that is shared would be written as a YAML reference. */
const everybody = () => [{ sub: "*" }];

/** What a host allows after enrollment: looking at itself and into `folders` (absolute real paths), nothing else. */
export function defaultContext({ folders }: { folders: readonly string[] }): unknown {
  const odd = folders.find(isGlob);
  if (odd !== undefined)
    throw new AegisError("usage", `${JSON.stringify(odd)} cannot be allowed: * and ? are patterns in a policy`, {
      hint: "name the folder above it, or give it another name",
    });
  const reading = folders.length > 0 ? readingTools : [];
  return {
    name: "default",
    description: "Look at this host and at the folders its owner chose; change nothing",
    principals: everybody(),
    capabilities: [
      { tool_pattern: "host.info" },
      { tool_pattern: "service.status" },
      ...reading.map((tool) => ({ tool_pattern: tool, path_allowlist: [...folders] })),
      ...Object.entries(harmlessCommands).map(([command, args]) => ({
        tool_pattern: "cmd.run",
        command_allowlist: [command],
        args_allowlist: [...args],
      })),
    ],
  };
}

/** Everything but what no context can allow. Only for callers whose token names this context. */
export const operatorContext = (): unknown => ({
  name: "operator",
  description: "Everything: run any command, read and write any file",
  principals: everybody(),
  capabilities: [
    { tool_pattern: "*", path_allowlist: ["**"], command_allowlist: ["*"], env_allowlist: ["*"], run_as_shell: true },
  ],
});
