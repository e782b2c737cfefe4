/** A security context, as the owner of a host writes it and as everything inside reads it. */
import { z } from "zod";
import { commandEntryProblem } from "./command-rules.ts";
import { toolPatternForm } from "./match.ts";
import { allowEntryProblem, denyEntryProblem } from "./path-rules.ts";

export interface SecurityContext {
  name: string;
  description: string;
  /** Who may use it: any of these. Nobody when there is none. */
  principals: readonly Principal[];
  capabilities: readonly Capability[];
  /** Tool patterns that are refused before any capability is asked. */
  denyList: readonly string[];
  requireOperatorSignature: boolean;
  /** Keys this version does not know. It may be a misspelt restriction, so a context that has one allows nothing. */
  unknownKeys: readonly string[];
}

/** Both must hold when both are stated. `sub` is the caller's name, `*` every verified caller of the tenant. */
export interface Principal {
  sub?: string;
  scope?: string;
  /** As in SecurityContext: a principal that has one is nobody. */
  unknownKeys: readonly string[];
}

export interface Capability {
  toolPattern: string;
  /** Empty: no path at all. */
  pathAllowlist: readonly string[];
  /** Null: the usual one, `usualDenylist`. */
  pathDenylist: readonly string[] | null;
  /** Empty: no command at all. */
  commandAllowlist: readonly string[];
  /** Every argument must match one of these; empty: none may be given. Null: any. */
  argsAllowlist: readonly string[] | null;
  argsDenylist: readonly string[];
  /** Command -> what its arguments must begin with; an empty list: no argument at all. Other commands are not narrowed. */
  subcommandAllowlist: ReadonlyMap<string, readonly string[]>;
  rateLimit: { calls: number; perMs: number } | null;
  maxConcurrent: number | null;
  /** Bytes of each captured stream. */
  maxResponseSize: number | null;
  /** Names of variables a caller may set; `*` stands for any characters. */
  envAllowlist: readonly string[];
  /** Variable -> the secret of this host that it is set to. */
  secretEnv: ReadonlyMap<string, string>;
  runAsShell: boolean;
  /** As in SecurityContext: a capability that has one accepts nothing. */
  unknownKeys: readonly string[];
}

/** The most calls a rate limit may count: it remembers the time of each. */
const maxRateLimitCalls = 10_000;

/** Text for which `problem` finds nothing; what it finds is the message. */
const text = (problem: (text: string) => string | null) =>
  z.string().superRefine((value, context) => {
    const message = problem(value);
    if (message) context.addIssue({ code: "custom", message });
  });

/** A mapping whose keys are names too. */
const mapping = <V extends z.ZodType>(problem: (key: string) => string | null, value: V) =>
  z.record(z.string(), value).superRefine((written, context) => {
    for (const key of Object.keys(written)) {
      const message = problem(key);
      if (message) context.addIssue({ code: "custom", path: [key], message: `key ${JSON.stringify(key)}: ${message}` });
    }
  });

const formProblem = (pattern: RegExp, expected: string) => (value: string) => (pattern.test(value) ? null : expected);
const form = (pattern: RegExp, expected: string) => text(formProblem(pattern, expected));

const anyText = z.string().min(1);
const toolPattern = form(toolPatternForm, 'expected a tool name, "prefix.*" or "*"');
const variableProblem = formProblem(/^[A-Za-z_][A-Za-z0-9_]*$/, "expected the name of a variable");
const variablePattern = form(/^[A-Za-z0-9_*]+$/, "expected the name of a variable, in which * stands for anything");
const secretName = form(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/, "expected the name of a secret");
const contextName = form(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "expected up to 64 letters, digits, dots and hyphens");
const commandKeyProblem = (key: string) => (key === "*" ? "expected one command" : commandEntryProblem(key));
const positive = z.number().int().positive();

/** Where nothing written behind a key can only be read as the empty list. Elsewhere it is an error: it could widen. */
const listOrNothing = <T extends z.ZodType>(item: T) =>
  z
    .array(item)
    .nullish()
    .transform((list) => list ?? []);

const principalKeys = { sub: anyText.optional(), scope: anyText.optional() };
const rateLimitKeys = { calls: positive.max(maxRateLimitCalls), per_seconds: z.number().positive().max(86_400) };
const capabilityKeys = {
  tool_pattern: toolPattern,
  path_allowlist: listOrNothing(text(allowEntryProblem)),
  path_denylist: z.array(text(denyEntryProblem)).optional(),
  command_allowlist: listOrNothing(text(commandEntryProblem)),
  args_allowlist: z.array(z.string()).optional(),
  args_denylist: z.array(anyText).default([]),
  subcommand_allowlist: mapping(commandKeyProblem, z.array(anyText)).default({}),
  rate_limit: z.looseObject(rateLimitKeys).optional(),
  max_concurrent: positive.optional(),
  max_response_size: positive.optional(),
  env_allowlist: listOrNothing(variablePattern),
  secret_env: mapping(variableProblem, secretName).default({}),
  run_as_shell: z.boolean().default(false),
  domain_allowlist: listOrNothing(z.string()),
};

const unknownKeysOf = (keys: object, written: object): readonly string[] =>
  Object.keys(written).filter((key) => !Object.hasOwn(keys, key));

const principal = z
  .looseObject(principalKeys)
  .refine(({ sub, scope }) => sub !== undefined || scope !== undefined, 'expected sub or scope; sub: "*" is everybody')
  .transform(
    ({ sub, scope, ...rest }): Principal => ({
      ...(sub === undefined ? {} : { sub }),
      ...(scope === undefined ? {} : { scope }),
      unknownKeys: unknownKeysOf(principalKeys, rest),
    }),
  );

const capability = z.looseObject(capabilityKeys).transform(
  (written): Capability => ({
    toolPattern: written.tool_pattern,
    pathAllowlist: written.path_allowlist,
    pathDenylist: written.path_denylist ?? null,
    commandAllowlist: written.command_allowlist,
    argsAllowlist: written.args_allowlist ?? null,
    argsDenylist: written.args_denylist,
    subcommandAllowlist: new Map(Object.entries(written.subcommand_allowlist)),
    rateLimit: written.rate_limit
      ? { calls: written.rate_limit.calls, perMs: written.rate_limit.per_seconds * 1000 }
      : null,
    maxConcurrent: written.max_concurrent ?? null,
    maxResponseSize: written.max_response_size ?? null,
    envAllowlist: written.env_allowlist,
    secretEnv: new Map(Object.entries(written.secret_env)),
    runAsShell: written.run_as_shell,
    unknownKeys: [
      ...unknownKeysOf(capabilityKeys, written),
      ...unknownKeysOf(rateLimitKeys, written.rate_limit ?? {}).map((key) => `rate_limit.${key}`),
    ],
  }),
);

const contextKeys = {
  name: contextName,
  description: z.string().default(""),
  principals: listOrNothing(principal),
  capabilities: listOrNothing(capability),
  deny_list: listOrNothing(toolPattern),
  require_operator_signature: z.boolean().default(false),
};

const securityContext = z.looseObject(contextKeys).transform(
  (written): SecurityContext => ({
    name: written.name,
    description: written.description,
    principals: written.principals,
    capabilities: written.capabilities,
    denyList: written.deny_list,
    requireOperatorSignature: written.require_operator_signature,
    unknownKeys: unknownKeysOf(contextKeys, written),
  }),
);

/** The value of `spec.security_contexts`. Unknown keys are no error: `securityContextWarnings` names them. */
export const securityContextsSchema = z.array(securityContext).superRefine((contexts, context) => {
  const seen = new Set<string>();
  for (const [index, { name }] of contexts.entries()) {
    if (seen.has(name))
      context.addIssue({
        code: "custom",
        path: [index, "name"],
        message: `a second context named ${JSON.stringify(name)}`,
      });
    seen.add(name);
  }
});

/** The keys each level knows, for whoever looks for misspelt ones. */
export const knownKeys = {
  context: Object.keys(contextKeys),
  principal: Object.keys(principalKeys),
  capability: [...Object.keys(capabilityKeys), ...Object.keys(rateLimitKeys).map((key) => `rate_limit.${key}`)],
} as const;
