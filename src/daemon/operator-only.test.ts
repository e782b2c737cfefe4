/** When a host may say that it runs nothing without an operator's signature, and when not. */
import { describe, expect, test } from "bun:test";
import { securityContextsSchema } from "../policy/context.ts";
import { defaultContext, operatorContext } from "../policy/written-contexts.ts";
import { createRegistry } from "../tools/registry.ts";
import type { Tool } from "../tools/tool.ts";
import { operatorOnly } from "./operator-only.ts";

const tool = (name: string, readOnly: boolean): Tool => ({
  descriptor: { name, readOnly, description: "", inputSchema: {}, destructive: !readOnly, fleetCapable: true },
  ...(name === "job.kill" && { followsUp: true }),
  prepare: () => Promise.reject(new Error("nobody calls it")),
});
const tools = createRegistry([
  ...["cmd.run", "fs.write", "fs.delete", "service.restart", "job.kill", "job.start"].map((name) => tool(name, false)),
  ...["host.info", "fs.read", "service.status"].map((name) => tool(name, true)),
]);
const everybody = [{ sub: "*" }];

function judged(contexts: unknown[], config: { require?: boolean; mcp?: string[] } = {}) {
  const parsed = securityContextsSchema.parse(contexts);
  return operatorOnly(
    {
      contexts: new Map(parsed.map((context) => [context.name, context])),
      requireOperatorSignature: config.require ?? false,
      mcpServers: (config.mcp ?? []).map((name) => ({ name })),
    },
    tools,
  );
}
const context = (capability: object, more: object = {}) => [
  { name: "c", principals: everybody, capabilities: [capability], ...more },
];
const no = (tool: string) => ({ holds: false, context: "c", tool });

describe("yes", () => {
  const rows: readonly [why: string, contexts: unknown[], config?: { require?: boolean; mcp?: string[] }][] = [
    ["a fresh enrollment", [defaultContext({ folders: ["/srv"] })]],
    [
      "everything, but signed",
      [defaultContext({ folders: [] }), { ...(operatorContext() as object), require_operator_signature: true }],
    ],
    ["everything, on a host where all is signed", [operatorContext()], { require: true, mcp: ["files"] }],
    ["no context at all", []],
    ["a context for nobody", context({ tool_pattern: "*", command_allowlist: ["*"] }, { principals: [] })],
    [
      "a context with a misspelt key, which allows nothing",
      context({ tool_pattern: "cmd.run", command_allowlist: ["*"] }, { denylist: [] }),
    ],
    [
      "a capability with a misspelt key",
      context({ tool_pattern: "cmd.run", command_allowlist: ["*"], arg_denylist: [] }),
    ],
    [
      "commands, denied by name",
      context({ tool_pattern: "cmd.*", command_allowlist: ["*"] }, { deny_list: ["cmd.run"] }),
    ],
    ["commands, and none of them", context({ tool_pattern: "cmd.run" })],
    ["files to read", context({ tool_pattern: "fs.read", path_allowlist: ["**"] })],
    ["jobs to stop", context({ tool_pattern: "job.kill" })],
    ["another server than the one there is", context({ tool_pattern: "mcp.web.*" }), { mcp: ["files"] }],
    [
      "a server's tools, all denied",
      context({ tool_pattern: "mcp.*" }, { deny_list: ["mcp.files.*"] }),
      { mcp: ["files"] },
    ],
  ];
  for (const [why, contexts, config] of rows)
    test(why, () => expect(judged(contexts, config)).toEqual({ holds: true }));
});

describe("no", () => {
  const rows: readonly [why: string, contexts: unknown[], tool: string, mcp?: string[]][] = [
    ["any command", context({ tool_pattern: "cmd.run", command_allowlist: ["*"] }), "cmd.run"],
    [
      "one command more",
      context({ tool_pattern: "cmd.run", command_allowlist: ["uname", "tee"], args_allowlist: ["-a"] }),
      "cmd.run",
    ],
    [
      "a harmless command with any argument",
      context({ tool_pattern: "cmd.run", command_allowlist: ["date"] }),
      "cmd.run",
    ],
    [
      "a harmless command with one argument more",
      context({ tool_pattern: "cmd.run", command_allowlist: ["date"], args_allowlist: ["-u", "-s*"] }),
      "cmd.run",
    ],
    [
      "a harmless command whose surroundings a caller sets",
      context({ tool_pattern: "cmd.run", command_allowlist: ["date"], args_allowlist: ["-u"], env_allowlist: ["*"] }),
      "cmd.run",
    ],
    [
      "a harmless name that is a path",
      context({ tool_pattern: "cmd.run", command_allowlist: ["/tmp/date"], args_allowlist: [] }),
      "cmd.run",
    ],
    [
      "a command by the name of what every object has",
      context({ tool_pattern: "cmd.run", command_allowlist: ["constructor"], args_allowlist: [] }),
      "cmd.run",
    ],
    ["a shell", context({ tool_pattern: "cmd.run", run_as_shell: true }), "cmd.run"],
    ["all tools, no commands", context({ tool_pattern: "*", path_allowlist: ["/srv"] }), "fs.delete"],
    ["files to write", context({ tool_pattern: "fs.*", path_allowlist: ["/srv"] }), "fs.delete"],
    ["what only its name makes a job's", context({ tool_pattern: "job.*" }), "job.start"],
    ["services", context({ tool_pattern: "service.*" }), "service.restart"],
    ["tools of a server that could do anything", context({ tool_pattern: "mcp.files.*" }), "mcp.files.*", ["files"]],
    ["one tool of such a server", context({ tool_pattern: "mcp.files.read_file" }), "mcp.files.*", ["files"]],
    ["every such server", context({ tool_pattern: "mcp.*" }), "mcp.files.*", ["files"]],
    [
      "such a server, one tool of it denied",
      context({ tool_pattern: "*" }, { deny_list: ["mcp.files.rm", "cmd.*", "fs.*", "job.*", "service.*"] }),
      "mcp.files.*",
      ["files"],
    ],
  ];
  for (const [why, contexts, tool, mcp] of rows)
    test(why, () => expect(judged(contexts, { mcp: mcp ?? [] })).toEqual(no(tool)));
});
