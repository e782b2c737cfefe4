/** Every key that an edge's settings may have, and what may stand behind it. */
import { z } from "zod";
import { importPublicKey, type PublicKey } from "../envelope/public-key.ts";
import { limits } from "../platform/limits.ts";
import { logLevels } from "../platform/log.ts";
import { securityContextsSchema } from "../policy/context.ts";
import { edgeOtlpSchema } from "./otlp.ts";

export const seals = ["strict", "compat"] as const;
const pinForm = /^spki-sha256:[A-Za-z0-9_-]{43}$/;
const tenantSlug = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The only port a peer's file may name for a role that listens on none. */
const clusterGrpcPort = 50_056;
const maxConcurrentCap = 256;

const filled = z.string().min(1);
const whole = (min: number, max: number) => z.number().int().min(min).max(max);
const variables = z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string());
/** What the peer's files hold and an edge has no use for. */
const unused = z.unknown().optional();

/** Peer's keys without effect here, for a warning each. */
export const unusedKeys: readonly (readonly string[])[] = [
  ["metadata", "version"],
  ["metadata", "labels"],
  ...["region", "tags", "resources"].map((key) => ["spec", "node", key]),
  ...["peers", "tls", "ingress", "token_refresh_margin_secs", "stale_threshold_secs", "sweep_interval_secs"].map(
    (key) => ["spec", "cluster", key],
  ),
  ["spec", "cluster", "relay_coordinator_endpoint"],
  ["spec", "cluster", "controller", "token"],
];

const tls = z.strictObject({
  enabled: z.boolean().optional(),
  ca_pem: filled.optional(),
  ca_path: filled.optional(),
  pin_sha256: z
    .array(z.string().regex(pinForm, "expected spki-sha256: and 43 characters of base64url"))
    .max(4)
    .default([]),
  server_name: filled.optional(),
  cert_path: filled.optional(),
  key_path: filled.optional(),
});

/** Text and numbers both: `rack: 12` is a label too. */
const label = z.union([z.string().max(256), z.number(), z.boolean()]).transform(String);
export const labelForm = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/;

const capabilities = z.strictObject({
  os: filled.optional(),
  arch: filled.optional(),
  local_tools: z.array(filled).optional(),
  mount_points: z.array(filled).optional(),
  custom_labels: z
    .record(z.string().regex(labelForm, "expected up to 63 letters, digits, dots, slashes and hyphens"), label)
    .default({}),
});

const edge = z.strictObject({
  tenant_id: z.string().regex(tenantSlug, "expected 1-63 characters of a-z, 0-9 and inner hyphens"),
  enrollment_token_path: filled.optional(),
  node_security_token_path: filled.optional(),
  stream_reconnect_backoff_secs: z.array(whole(1, 3600)).max(64).default([1, 2, 5, 15, 60]),
  proxy: z.strictObject({ https_proxy: z.string().optional(), no_proxy: z.string().optional() }).optional(),
  capabilities: capabilities.prefault({}),
  max_concurrent_invocations: whole(1, maxConcurrentCap).default(limits.callsPerHost),
  seal: z.enum(seals).optional(),
  seal_root: z
    .string()
    .regex(/^[A-Za-z0-9_-]{43}$/, "expected 43 characters of base64url, the root's key id")
    .optional(),
});

const cluster = z.strictObject({
  enabled: z.literal(true, "expected true: with false this host connects nowhere").default(true),
  role: z.literal("edge").default("edge"),
  cluster_grpc_port: z.literal(clusterGrpcPort).optional(),
  controller: z.strictObject({ endpoint: filled, tls: tls.prefault({}), token: unused }),
  node_keypair_path: filled.optional(),
  heartbeat_interval_secs: whole(1, 3600).default(30),
  edge,
  ...{ peers: unused, tls: unused, ingress: unused, relay_coordinator_endpoint: unused },
  ...{ token_refresh_margin_secs: unused, stale_threshold_secs: unused, sweep_interval_secs: unused },
});

const operatorKey = z.string().transform((text, context): PublicKey => {
  const raw = /^ed25519:[A-Za-z0-9_-]{43}$/.test(text) ? Buffer.from(text.slice("ed25519:".length), "base64url") : null;
  const key = raw ? importPublicKey(raw) : null;
  if (key) return key;
  context.addIssue({ code: "custom", message: "expected ed25519: and the base64url of a usable Ed25519 public key" });
  return z.NEVER;
});

const trustedOperator = z.strictObject({
  name: filled,
  public_key: operatorKey,
  contexts: z.array(filled).optional(),
  not_after: z.iso.datetime({ offset: true }).optional(),
});

const mcpServer = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9_-]{0,31}$/, "expected up to 32 of a-z, 0-9, hyphen and underscore"),
  command: filled,
  args: z.array(z.string()).default([]),
  env: variables.default({}),
  secret_env: variables.default({}),
  cwd: filled.optional(),
});

export const edgeSchema = z.strictObject({
  metadata: z.strictObject({ name: filled.max(253).optional(), version: unused, labels: unused }).default({}),
  spec: z.strictObject({
    node: z.strictObject({
      id: z.string().regex(uuid, "expected a UUID in lower case"),
      type: z.literal("edge").default("edge"),
      ...{ region: unused, tags: unused, resources: unused },
    }),
    cluster,
    security_contexts: securityContextsSchema.default([]),
    trusted_operators: z.array(trustedOperator).max(64).default([]),
    require_operator_signature: z.boolean().default(false),
    mcp_servers: z.array(mcpServer).max(64).default([]),
    observability: z
      .strictObject({ log_level: z.enum(logLevels).default("info"), otlp: edgeOtlpSchema.optional() })
      .prefault({}),
  }),
});

export type EdgeDocument = z.infer<typeof edgeSchema>;
