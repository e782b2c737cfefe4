/** `edge policy test`: what this host and its sandbox would say to a call, without one. */
import { realpath } from "node:fs/promises";
import { loadEdgeConfig } from "../../config/load.ts";
import { protectedPaths } from "../../daemon/protected.ts";
import { hostTools } from "../../daemon/run-tools.ts";
import { type PolicyAnswer, testPolicy } from "../../daemon/test-policy.ts";
import { AegisError, errorTable } from "../../errors.ts";
import { systemClock as clock } from "../../platform/clock.ts";
import type { Access } from "../../policy/access.ts";
import { command, many } from "../command.ts";
import { configFile, configFlag, edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { facts, table } from "../terminal.ts";
import { contextFlag, toolArguments } from "./fleet-flags.ts";
import { askSandbox, type SandboxAnswer, sandboxInWords } from "./policy-sandbox.ts";

export default command({
  example: "aegis edge policy test -- uname -a",
  details: `Judges exactly as the daemon does: the same settings, the same program found for the same name. The sandbox is
that of the installed service, with its drop-ins; without one the answer is for the policy only. Ends with 0 when both would
let the call through and with 3 when one would not. The caller is taken for one that the context lets in.`,
  rest: "CMD ARG...",
  args: {
    context: contextFlag,
    tool: { type: "string", valueHint: "NAME", default: "cmd.run", description: "the tool that would be called" },
    arg: many("K=V", "one of its arguments, as text"),
    "state-dir": stateDirFlag,
    config: configFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args, every, rest, env } = given;
    const stateDir = edgeDir(args["state-dir"], given);
    const { config, warnings } = await loadEdgeConfig({
      stateDir,
      ...configFile(args.config, given),
      env,
      home: given.home,
    });
    for (const warning of warnings) given.terminal.warn(warning);
    const home = await realpath(given.home).catch(() => given.home);
    const closed = await protectedPaths(config, { env, home: given.home });
    const { registry, identity } = await hostTools({
      stateDir,
      protectedPaths: closed,
      clock,
      env,
      home,
      mcpServers: config.mcpServers,
    });
    const asked = await testPolicy({
      ...{ config, tools: registry, context: args.context, tool: args.tool },
      world: { protectedPaths: [...closed.closed, ...closed.readOnly], home },
      args: callArguments(args.tool, toolArguments(undefined, every("arg")), rest),
    });
    const answer = judged(asked);
    const { verdict } = answer;
    // A tool of an MCP server is that server's program to the sandbox.
    const server = config.mcpServers.find(({ name }) => args.tool.startsWith(`mcp.${name}.`));
    const accesses: Access[] = [...answer.accesses];
    if (server) accesses.push({ kind: "command", executable: server.command, name: server.command, args: server.args });
    const sandbox = await askSandbox({ stateDir, accesses, identity, closed: closed.closed }, given);
    await printResult(given, args.output, { ...record(answer), sandbox }, () => text(answer, sandbox));
    return verdict.kind === "allowed" && sandbox.kind !== "denied" ? 0 : errorTable.forbidden.exit;
  },
});

function callArguments(tool: string, named: Record<string, unknown>, rest: readonly string[]): Record<string, unknown> {
  const [program, ...words] = rest;
  if (program === undefined) return named;
  if (tool === "cmd.run") return { ...named, command: program, args: words };
  throw new AegisError("usage", `a command after -- is for cmd.run, and the tool is ${tool}`, {
    hint: "give its arguments with --arg K=V",
  });
}

type Judged = Extract<PolicyAnswer, { kind: "judged" }>;

/** Throws what is no matter of policy. */
function judged(answer: PolicyAnswer): Judged {
  const unknown = (what: string, known: readonly string[]) =>
    new AegisError("not_found", `this host has no such ${what}`, { hint: `it has: ${known.join(", ") || "none"}` });
  switch (answer.kind) {
    case "security_context_not_found":
      throw unknown("security context", answer.known);
    case "tool_not_found":
      throw unknown("tool", answer.known);
    case "invalid_args":
      throw new AegisError("usage", `the tool does not take these arguments: ${answer.message}`);
    case "judged":
      return answer;
  }
}

const record = (answer: Judged) => {
  const { verdict, steps, accesses, caller, needsOperatorSignature } = answer;
  return {
    allowed: verdict.kind === "allowed",
    rule: verdict.rule,
    reason: verdict.kind === "denied" ? verdict.reason : null,
    max_output_bytes: verdict.kind === "allowed" ? verdict.maxOutputBytes : null,
    needs_operator_signature: needsOperatorSignature,
    caller: { sub: caller.sub, scopes: caller.scopes },
    touches: accesses.map(accessInWords),
    steps: steps.map(({ rule, toolPattern, outcome, reason }) => ({
      rule,
      tool_pattern: toolPattern,
      outcome,
      reason,
    })),
  };
};

function text(answer: Judged, sandbox: SandboxAnswer): string {
  const { verdict, steps, accesses, needsOperatorSignature } = answer;
  const asked = steps.filter(({ outcome }) => outcome === "accepted" || outcome === "refused");
  return (
    facts([
      ["verdict", verdict.kind],
      ["by", verdict.rule],
      ...(verdict.kind === "denied" ? [["because", verdict.reason] as const] : []),
      ["touches", accesses.map(accessInWords).join("; ")],
      ...(needsOperatorSignature ? [["also needs", "the signature of a trusted operator"] as const] : []),
      ...sandboxInWords(sandbox),
    ]) +
    (asked.length > 0
      ? `\n${table(
          ["CAPABILITY", "TOOLS", "SAYS", "BECAUSE"],
          asked.map(({ rule, toolPattern, outcome, reason }) => [rule, toolPattern, outcome, reason]),
        )}`
      : "")
  );
}

function accessInWords(access: Access): string {
  switch (access.kind) {
    case "path":
      return `${access.mode} ${access.path}`;
    case "command":
      return ["run", access.executable, ...access.args].join(" ");
    case "shell":
      return `shell ${access.line}`;
    case "env":
      return `set ${access.name}`;
    case "host":
      return `connect ${access.host}:${access.port}`;
  }
}
