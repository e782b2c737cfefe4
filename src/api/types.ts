/** Every request and answer of the REST API, as schemas that both ends read them with. Requests refuse unknown fields; answers may grow. */
import { z } from "zod";
import { nodeOutcomeSchema, skippedHostSchema } from "./events.ts";
import { apiLimits } from "./limits.ts";
import { withAliases } from "./read.ts";
import { groupNameSchema, selectorSchema, tagSchema, targetSchema } from "./target.ts";

export type { NodeOutcome, SkippedHost, SkipReason } from "./events.ts";

/** RFC 3339, UTC, milliseconds. */
const time = z.iso.datetime();
export const uuid = z.uuid().toLowerCase();
/** Bytes of a serialised message. */
const base64url = z
  .string()
  .max(64 * 1024)
  .regex(/^[A-Za-z0-9_-]*$/, { error: "not base64url" });
export const nameSchema = z
  .string()
  .max(apiLimits.nameChars)
  // Names are shown in terminals and lists: no control or direction characters.
  .regex(/^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$/u, { error: "a name holds no control characters" });
const tags = z.array(tagSchema).max(apiLimits.tags);

export const scopes = [
  "aegis.edge.enroll",
  "aegis.edge.hosts.read",
  "aegis.edge.hosts.write",
  "aegis.edge.groups.write",
  "aegis.edge.fleet.read",
  "aegis.edge.fleet.manage",
  "aegis.admin",
] as const;
export type Scope = (typeof scopes)[number];

export const errorBodySchema = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().nullish() }),
});

/** An empty object: what a request without anything to say has, and an answer without anything to tell. */
export const nothingSchema = z.strictObject({});

/** Query of every list. */
export const pageQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(apiLimits.pageMax).default(apiLimits.pageDefault),
  cursor: z.string().max(1_024).optional(),
});

export const pageOf = <T extends z.ZodType>(item: T) =>
  z.object({ items: z.array(item), next_cursor: z.string().nullable() });

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

// ------------------------------------------------------------------------------------------------------- enrollment

export const enrollmentTokenRequestSchema = withAliases(
  z.strictObject({
    name: nameSchema.default(""),
    ttl_seconds: z.number().int().min(1).max(apiLimits.enrollmentTtlMaxSecs).default(apiLimits.enrollmentTtlMaxSecs),
    tags: tags.default([]),
    for_node: z.string().min(1).max(255).nullable().default(null),
    compat: z.boolean().default(false),
  }),
  { issued_to: "name" },
);
export type EnrollmentTokenRequest = z.input<typeof enrollmentTokenRequestSchema>;

export const enrollmentTokenSchema = z.object({
  token: z.string(),
  expires_at: time,
  controller_endpoint: z.string(),
  qr_payload: z.string(),
  command_hint: z.string(),
  issued_to: z.string(),
});
export type EnrollmentToken = z.infer<typeof enrollmentTokenSchema>;

// ------------------------------------------------------------------------------------------------------------ hosts

export const hostStatusSchema = z.enum(["connected", "unhealthy", "draining", "disconnected", "revoked"]);
export type HostStatus = z.infer<typeof hostStatusSchema>;

export const hostSchema = z.object({
  node_id: z.string(),
  name: z.string(),
  tenant_id: z.string(),
  status: hostStatusSchema,
  seal: z.enum(["strict", "compat"]),
  connected_since: time.nullable(),
  last_heartbeat_at: time.nullable(),
  enrolled_at: time,
  tags: z.array(z.string()),
  capabilities: z.object({
    os: z.string(),
    arch: z.string(),
    local_tools: z.array(z.string()),
    mount_points: z.array(z.string()),
    labels: z.record(z.string(), z.string()),
  }),
  software_version: z.string(),
  key_fingerprint: z.string(),
  token_expires_at: time,
  active_calls: z.number().int(),
  queued_calls: z.number().int(),
});
export type Host = z.infer<typeof hostSchema>;

export const hostToolSchema = z.object({
  name: z.string(),
  description: z.string(),
  input_schema: z.record(z.string(), z.unknown()),
  read_only: z.boolean(),
  destructive: z.boolean(),
  fleet_capable: z.boolean(),
});
export type HostTool = z.infer<typeof hostToolSchema>;

export const recentCommandSchema = z.object({
  command_id: z.string(),
  tool: z.string(),
  context: z.string(),
  principal: z.string(),
  dispatched_at: time,
  outcome: nodeOutcomeSchema.nullable(),
  duration_ms: z.number().int().nullable(),
});

/** A change of key that the host asked for, in base64url: the request, and both keys' signatures that prove it. */
export const keyChangeSchema = z.object({
  request: z.string(),
  old_signature: z.string(),
  new_signature: z.string(),
});

/** One host alone also tells its tools, what ran on it last, and how its key came to be: the oldest change first. */
export const hostDetailSchema = hostSchema.extend({
  tools: z.array(hostToolSchema),
  recent_commands: z.array(recentCommandSchema),
  key_changes: z.array(keyChangeSchema),
});
export type HostDetail = z.infer<typeof hostDetailSchema>;

export const hostsPageSchema = pageOf(hostSchema);

/** Query of the hosts list; every filter must hold. */
export const hostsQuerySchema = pageQuerySchema.extend({
  tag: z.array(z.string()).default([]),
  label: z.array(z.string().regex(/^[^=]+=/, { error: "a label filter is KEY=VALUE" })).default([]),
  connected: z.stringbool().optional(),
  all: z.stringbool().default(false),
});

export const hostPatchSchema = z
  .strictObject({ name: nameSchema.min(1).optional(), tags: tags.optional() })
  .refine((patch) => Object.keys(patch).length > 0, { error: "nothing to change: give name or tags" });
export type HostPatch = z.infer<typeof hostPatchSchema>;

export const tagsChangeSchema = z.strictObject({ add: tags.default([]), remove: tags.default([]) });
export type TagsChange = z.input<typeof tagsChangeSchema>;

/** The only settings a controller may push, of those a daemon has. */
export const pushConfigSchema = z
  .strictObject({
    heartbeat_interval_secs: z.number().int().min(1).max(3_600).optional(),
    max_concurrent_invocations: z.number().int().min(1).max(1_024).optional(),
    log_level: z.enum(["debug", "info", "warn", "error"]).optional(),
    custom_labels: z.record(tagSchema, z.string().max(256)).optional(),
  })
  .refine((config) => Object.keys(config).length > 0, { error: "nothing to push" });
export type PushConfig = z.infer<typeof pushConfigSchema>;

export const drainSchema = z.strictObject({ finish_within_ms: z.number().int().min(0).max(3_600_000).optional() });
export const pushedSchema = z.object({ node_id: z.string() });

// ----------------------------------------------------------------------------------------------------------- groups

export const groupRequestSchema = z.strictObject({
  name: groupNameSchema,
  /** Empty = pinned members only. */
  selector: selectorSchema.default({}),
  pinned_members: z.array(z.string().min(1).max(255)).max(apiLimits.nodes).default([]),
});
export type GroupRequest = z.input<typeof groupRequestSchema>;

export const groupPatchSchema = z
  .strictObject({
    name: groupNameSchema.optional(),
    selector: selectorSchema.optional(),
    pinned_members: z.array(z.string().min(1).max(255)).max(apiLimits.nodes).optional(),
  })
  .refine((patch) => Object.keys(patch).length > 0, {
    error: "nothing to change: give name, selector or pinned_members",
  });
export type GroupPatch = z.infer<typeof groupPatchSchema>;

export const hostGroupSchema = z.object({
  id: z.string(),
  name: z.string(),
  selector: selectorSchema,
  pinned_members: z.array(z.string()),
  created_by: z.string(),
  created_at: time,
  resolved_members: z.array(z.object({ node_id: z.string(), name: z.string(), status: hostStatusSchema })),
});
export type HostGroup = z.infer<typeof hostGroupSchema>;
export const groupsPageSchema = pageOf(hostGroupSchema);

// ------------------------------------------------------------------------------------------------------------ fleet

export const previewRequestSchema = z.strictObject({ target: targetSchema });

export const resolvedHostSchema = z.object({
  node_id: z.string(),
  name: z.string(),
  status: hostStatusSchema,
  operator_challenge: z.string().nullable(),
});
export type ResolvedHost = z.infer<typeof resolvedHostSchema>;

export const previewSchema = z.object({ resolved: z.array(resolvedHostSchema), skipped: z.array(skippedHostSchema) });
export type Preview = z.infer<typeof previewSchema>;

export const onErrorSchema = z.enum(["fail-fast", "continue", "stop-after"]);
export const runPolicySchema = withAliases(
  z
    .strictObject({
      mode: z.enum(["parallel", "sequential", "rolling"]).default("parallel"),
      batch: z.number().int().min(1).max(apiLimits.concurrencyMax).nullable().default(null),
      max_concurrency: z
        .number()
        .int()
        .min(1)
        .max(apiLimits.concurrencyMax)
        .nullable()
        .default(apiLimits.concurrencyDefault),
      /** Without it, tools that only read go on and others fail fast. */
      on_error: onErrorSchema.nullable().default(null),
      stop_after: z.number().int().min(1).max(apiLimits.nodes).nullable().default(null),
      require_min: z.number().int().min(0).max(apiLimits.nodes).nullable().default(null),
      deadline_secs: z
        .number()
        .min(0.001)
        .max(apiLimits.deadlineMaxSecs)
        .nullable()
        .default(apiLimits.deadlineDefaultSecs),
    })
    .superRefine((policy, { addIssue }) => {
      const needs = (field: "batch" | "stop_after", what: string, wanted: boolean) => {
        const given = policy[field] !== null;
        if (given !== wanted)
          addIssue({
            code: "custom",
            path: [field],
            message: given ? `is only for ${what}` : `${what} needs it: a whole number from 1`,
            input: policy[field],
          });
      };
      needs("batch", "mode rolling", policy.mode === "rolling");
      needs("stop_after", "on_error stop-after", policy.on_error === "stop-after");
    }),
  { failure_policy: "on_error", require_min_targets: "require_min" },
);
export type RunPolicy = z.output<typeof runPolicySchema>;

export const invokeRequestSchema = withAliases(
  z.strictObject({
    target: targetSchema,
    tool: z
      .string()
      .max(255)
      .regex(/^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/, { error: "a tool's name looks like cmd.run" }),
    args: z.record(z.string(), z.unknown()).optional(),
    /** The exact text of the arguments instead, as operators sign it. */
    args_json: z.string().nullable().default(null),
    context: z.string().min(1).max(apiLimits.nameChars).default("default"),
    policy: runPolicySchema.prefault({}),
    abort_on_disconnect: z.boolean().default(false),
    /** Whether live output is wanted. */
    progress: z.boolean().default(true),
    /** Node id -> a serialised OperatorProof, made with the operator's own key. */
    operator_proofs: z.record(uuid, base64url).default({}),
  }),
  {
    ...{ tool_name: "tool", security_context_name: "context" },
    // The peer has these beside the target and not inside a policy.
    ...{ mode: "policy.mode", batch: "policy.batch", max_concurrency: "policy.max_concurrency" },
    ...{ failure_policy: "policy.on_error", stop_after: "policy.stop_after", deadline_secs: "policy.deadline_secs" },
    require_min_targets: "policy.require_min",
  },
);
export type InvokeRequest = z.input<typeof invokeRequestSchema>;

export const cancelRequestSchema = z.strictObject({ reason: z.string().max(1_000).optional() });
export const cancelAnswerSchema = z.object({
  run_id: z.string(),
  cancelled: z.number().int(),
  already_terminal: z.number().int(),
});
export type CancelAnswer = z.infer<typeof cancelAnswerSchema>;

/** Node id -> a new OperatorProof; an empty one says that there will be none. */
export const signRequestSchema = z.strictObject({ operator_proofs: z.record(uuid, base64url) });
export type SignRequest = z.input<typeof signRequestSchema>;
/** The nodes that waited for theirs. */
export const signAnswerSchema = z.object({ run_id: z.string(), taken: z.array(z.string()) });
export type SignAnswer = z.infer<typeof signAnswerSchema>;

// ----------------------------------------------------------------------------------------------------------- access

export const apiTokenRequestSchema = z.strictObject({
  name: nameSchema.min(1),
  scopes: z.array(z.enum(scopes)).min(1),
  /** Security contexts its bearer may name. */
  contexts: z.array(z.string().min(1).max(apiLimits.nameChars)).default(["default"]),
  /** The caller's own, which is also what its absence means. */
  tenant_id: z.string().optional(),
  expires_at: z.iso.datetime({ offset: true }).nullable().default(null),
});
export type ApiTokenRequest = z.input<typeof apiTokenRequestSchema>;

export const apiTokenSchema = z.object({
  id: z.string(),
  name: z.string(),
  tenant_id: z.string(),
  scopes: z.array(z.string()),
  contexts: z.array(z.string()),
  created_at: time,
  expires_at: time.nullable(),
  last_used_at: time.nullable(),
  revoked_at: time.nullable(),
});
export type ApiToken = z.infer<typeof apiTokenSchema>;
/** `token` is told this once. */
export const newApiTokenSchema = apiTokenSchema.extend({ token: z.string() });
export type NewApiToken = z.infer<typeof newApiTokenSchema>;
export const apiTokensPageSchema = pageOf(apiTokenSchema);

export const tenantSchema = z.object({ tenant_id: z.string(), created_at: time });
export const tenantsPageSchema = pageOf(tenantSchema);
export type Tenant = z.infer<typeof tenantSchema>;

// ------------------------------------------------------------------------------------------------------------ audit

/** Hashes in hexadecimal. `receipt` holds what proves a result. */
export const auditRowSchema = z.object({
  row: z.number().int(),
  at: time,
  kind: z.string(),
  tenant_id: z.string(),
  principal: z.string().nullable(),
  node_id: z.string().nullable(),
  detail: z.record(z.string(), z.unknown()),
  receipt: z.record(z.string(), z.unknown()).nullable(),
  hash: z.string(),
  prev: z.string(),
});
export type AuditRecord = z.infer<typeof auditRowSchema>;
export const auditPageSchema = pageOf(auditRowSchema);
export const auditQuerySchema = pageQuerySchema.extend({ since: z.iso.datetime({ offset: true }).optional() });

// --------------------------------------------------------------------------------------------------------- identity

export const whoamiSchema = z.object({
  principal: z.string(),
  tenant_id: z.string(),
  scopes: z.array(z.string()),
  contexts: z.array(z.string()),
  expires_at: time.nullable(),
});
export type Whoami = z.infer<typeof whoamiSchema>;
