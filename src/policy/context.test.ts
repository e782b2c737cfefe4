import { describe, expect, test } from "bun:test";
import { parseYAML, stringifyYAML } from "confbox/yaml";
import { securityContextsSchema } from "./context.ts";
import { securityContextWarnings } from "./context-warnings.ts";
import { evaluate } from "./evaluate.ts";
import { defaultContext, operatorContext } from "./written-contexts.ts";

const problems = (yaml: string): string[] => {
  const outcome = securityContextsSchema.safeParse(parseYAML(yaml));
  return outcome.success ? [] : outcome.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
};
const warnings = (yaml: string): string[] => {
  const written: unknown = parseYAML(yaml);
  return securityContextWarnings(securityContextsSchema.parse(written), written);
};
const open = 'principals: [{sub: "*"}]';

test("every field of a context is read, and what is left out has its safe meaning", () => {
  const [full, bare] = securityContextsSchema.parse(
    parseYAML(`
- name: ops
  description: Operations
  principals: [{sub: ann, scope: ops}]
  deny_list: [fs.write]
  require_operator_signature: true
  capabilities:
    - tool_pattern: cmd.*
      path_allowlist: [/srv]
      path_denylist: [/srv/secret]
      command_allowlist: [git, /usr/bin/make, "*"]
      args_allowlist: [status]
      args_denylist: [--force]
      subcommand_allowlist: {git: [status]}
      rate_limit: {calls: 5, per_seconds: 60}
      max_concurrent: 2
      max_response_size: 4096
      env_allowlist: [LANG, APP_*]
      secret_env: {TOKEN: deploy-token}
      run_as_shell: true
- {name: bare, capabilities: [{tool_pattern: host.info}]}
`),
  );
  expect(full).toEqual({
    name: "ops",
    description: "Operations",
    principals: [{ sub: "ann", scope: "ops", unknownKeys: [] }],
    denyList: ["fs.write"],
    requireOperatorSignature: true,
    unknownKeys: [],
    capabilities: [
      {
        toolPattern: "cmd.*",
        pathAllowlist: ["/srv"],
        pathDenylist: ["/srv/secret"],
        commandAllowlist: ["git", "/usr/bin/make", "*"],
        argsAllowlist: ["status"],
        argsDenylist: ["--force"],
        subcommandAllowlist: new Map([["git", ["status"]]]),
        rateLimit: { calls: 5, perMs: 60_000 },
        maxConcurrent: 2,
        maxResponseSize: 4096,
        envAllowlist: ["LANG", "APP_*"],
        secretEnv: new Map([["TOKEN", "deploy-token"]]),
        runAsShell: true,
        unknownKeys: [],
      },
    ],
  });
  expect(bare).toMatchObject({ principals: [], denyList: [], requireOperatorSignature: false });
  expect(bare?.capabilities[0]).toMatchObject({
    ...{ pathAllowlist: [], pathDenylist: null, commandAllowlist: [], argsAllowlist: null, argsDenylist: [] },
    ...{ rateLimit: null, maxConcurrent: null, maxResponseSize: null, envAllowlist: [], runAsShell: false },
  });
});

describe("what cannot be meant is refused at load, all of it at once and by its path", () => {
  test("several mistakes in one file", () => {
    const found = problems(`
- name: a b
  principals: [{}]
  deny_list: fs.write
  capabilities:
    - {tool_pattern: "f*", path_allowlist: [docs], max_concurrent: 0}
    - {tool_pattern: cmd.run, rate_limit: {calls: many}}
- {name: x}
- {name: x}
`);
    expect(found.map((line) => line.split(":")[0])).toEqual([
      ...["0.name", "0.principals.0", "0.capabilities.0.tool_pattern", "0.capabilities.0.path_allowlist.0"],
      ...["0.capabilities.0.max_concurrent", "0.capabilities.1.rate_limit.calls"],
      ...["0.capabilities.1.rate_limit.per_seconds", "0.deny_list"],
    ]);
    expect(problems("- {name: x}\n- {name: x}")).toEqual(['1.name: a second context named "x"']);
  });

  const refused: readonly [why: string, capability: string, expected: RegExp][] = [
    [
      "a star at the end of a word",
      '{tool_pattern: "fs.r*"}',
      /tool_pattern: expected a tool name, "prefix\.\*" or "\*"/,
    ],
    ["a star at the start", '{tool_pattern: "*.read"}', /tool_pattern/],
    ["two stars", '{tool_pattern: "fs.**"}', /tool_pattern/],
    ["no pattern at all", "{path_allowlist: [/srv]}", /tool_pattern: Invalid input: expected string/],
    [
      "a relative folder",
      "{tool_pattern: fs.read, path_allowlist: [srv]}",
      /path_allowlist\.0: expected an absolute path/,
    ],
    ["a folder by a variable", "{tool_pattern: fs.read, path_allowlist: [$HOME/docs]}", /expected an absolute path/],
    ["another user's home", "{tool_pattern: fs.read, path_allowlist: [~bob/docs]}", /path_allowlist\.0: expected/],
    ["traversal in an allowed folder", "{tool_pattern: fs.read, path_allowlist: [/srv/../etc]}", /without \. and \.\./],
    [
      "traversal in a denied folder, which would deny nothing",
      "{tool_pattern: fs.read, path_denylist: [/srv/../etc]}",
      /without \. and \.\./,
    ],
    ["another user's home in a denial", "{tool_pattern: fs.read, path_denylist: [~bob/docs]}", /expected ~\//],
    [
      "a command with its arguments",
      "{tool_pattern: cmd.run, command_allowlist: [git status]}",
      /arguments belong into/,
    ],
    ["a pattern of commands", '{tool_pattern: cmd.run, command_allowlist: ["/usr/bin/*"]}', /expected a bare name/],
    ["a relative command", "{tool_pattern: cmd.run, command_allowlist: [./deploy]}", /expected a bare name/],
    [
      "a map for every command",
      '{tool_pattern: cmd.run, subcommand_allowlist: {"*": [status]}}',
      /subcommand_allowlist\.\*: .*expected one command/,
    ],
    [
      "a name of a variable with a space",
      '{tool_pattern: cmd.run, env_allowlist: ["A B"]}',
      /env_allowlist\.0: expected the name of a variable/,
    ],
    [
      "a path for a secret",
      "{tool_pattern: cmd.run, secret_env: {T: ../node.key}}",
      /secret_env\.T: expected the name of a secret/,
    ],
    ["a limit of nothing", "{tool_pattern: cmd.run, rate_limit: {calls: 0, per_seconds: 1}}", /rate_limit\.calls/],
    [
      "a limit that would remember too much",
      "{tool_pattern: cmd.run, rate_limit: {calls: 10001, per_seconds: 1}}",
      /rate_limit\.calls/,
    ],
    [
      "nothing where it could mean any argument",
      "{tool_pattern: cmd.run, args_allowlist: }",
      /args_allowlist: Invalid input: expected array/,
    ],
    [
      "nothing where it could mean any subcommand",
      "{tool_pattern: cmd.run, subcommand_allowlist: {git: }}",
      /subcommand_allowlist\.git: Invalid/,
    ],
    [
      "nothing where it could mean no limit",
      "{tool_pattern: cmd.run, rate_limit: }",
      /rate_limit: Invalid input: expected object/,
    ],
    ["yes for true", '{tool_pattern: cmd.run, run_as_shell: "yes"}', /run_as_shell: Invalid input: expected boolean/],
  ];
  for (const [why, capability, expected] of refused)
    test(why, () => {
      const found = problems(`- {name: t, ${open}, capabilities: [${capability}]}`);
      expect(found).toHaveLength(1);
      expect(found[0]).toMatch(expected);
    });
});

test("nothing behind a key that grants is no grant", () => {
  const [context] = securityContextsSchema.parse(
    parseYAML(
      `- {name: t, principals: , deny_list: , capabilities: [{tool_pattern: "*", path_allowlist: , command_allowlist: }]}`,
    ),
  );
  expect(context).toMatchObject({
    principals: [],
    denyList: [],
    capabilities: [{ pathAllowlist: [], commandAllowlist: [] }],
  });
});

describe("what can hardly be meant is said", () => {
  test("unknown keys, with the key that was meant", () => {
    const found = warnings(`
- name: t
  denylist: [fs.write]
  principals: [{sub: ann, scpoe: ops}]
  capabilities: [{tool_pattern: cmd.run, comand_allowlist: [git], rate_limit: {calls: 1, per_seconds: 1, per_second: 3}, colour: red}]
`);
    const at = "spec.security_contexts[0]";
    const closed = (what: string) => `is unknown, so this ${what} allows nothing until it is corrected`;
    expect(found).toEqual([
      `${at}.denylist ${closed("context")}; did you mean deny_list?`,
      `${at}.principals[0].scpoe ${closed("principal")}; did you mean scope?`,
      `${at}.capabilities[0].comand_allowlist ${closed("capability")}; did you mean command_allowlist?`,
      `${at}.capabilities[0].colour ${closed("capability")}`,
      `${at}.capabilities[0].rate_limit.per_second ${closed("capability")}; did you mean rate_limit.per_seconds?`,
    ]);
  });

  test("a context of a peer: no principals, and a list for web tools", () => {
    const found = warnings("- {name: zaru-free, capabilities: [{tool_pattern: '*', domain_allowlist: [example.org]}]}");
    expect(found).toEqual([
      expect.stringContaining('zaru-free names no principals, so nobody may use it; - sub: "*" is every caller'),
      expect.stringContaining("capabilities[0].domain_allowlist has no effect"),
    ]);
  });

  test("usual denials left out, a shell that cannot be used, an answer that cannot be sent", () => {
    const found = warnings(
      `- {name: t, ${open}, capabilities: [{tool_pattern: "*", path_allowlist: [/srv], path_denylist: [.ssh, .gnupg, .aws, .azure, .kube, .config/gcloud, .netrc], run_as_shell: true, max_response_size: 4000000}]}`,
    );
    expect(found).toEqual([
      expect.stringContaining("path_denylist leaves out .git-credentials **/.env*"),
      expect.stringContaining('run_as_shell needs "*" in command_allowlist'),
      expect.stringContaining("max_response_size is cut to 1945600"),
    ]);
  });

  test("and what enrollment writes gives no warning, and needs no reference to be written", () => {
    const yaml = stringifyYAML([defaultContext({ folders: ["/home/ann/docs", "/srv"] }), operatorContext()]);
    expect(warnings(yaml)).toEqual([]);
    expect(yaml).not.toMatch(/[&*]ref/);
  });
});

test("a folder whose name would be a pattern is refused before it is written", () => {
  expect(() => defaultContext({ folders: ["/srv/what?"] })).toThrow(/cannot be allowed/);
  expect(() => defaultContext({ folders: ["/srv/[a] (b) {c}"] })).not.toThrow();
});

describe("how much a call may answer", () => {
  const answer = (size: string) => {
    const [context] = securityContextsSchema.parse(
      parseYAML(`- {name: t, ${open}, capabilities: [{tool_pattern: host.info${size}}]}`),
    );
    if (!context) throw new Error("no context");
    const call = { tool: "host.info", accesses: [], caller: { sub: "ann", scopes: [] } };
    const verdict = evaluate(context, call, { home: "/home/ann", protectedPaths: [] });
    return verdict.kind === "allowed" ? verdict.maxOutputBytes : null;
  };

  test("is 1 MiB of each stream, what the owner says, and never so much that two streams fill a message", () => {
    expect(answer("")).toBe(1024 * 1024);
    expect(answer(", max_response_size: 4096")).toBe(4096);
    expect(answer(", max_response_size: 1945600")).toBe(1_945_600);
    expect(answer(", max_response_size: 1945601")).toBe(1_945_600);
    expect(2 * (answer(", max_response_size: 99999999") ?? 0)).toBeLessThan(4 * 1024 * 1024 - 4096 - 128 * 1024);
  });
});
