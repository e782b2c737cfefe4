/** How the store's objects lie in tables: one list of columns a table, from which both directions are made. */
import type {
  ApiTokenRow,
  AuditRow,
  CheckpointRow,
  CommandRow,
  GroupRow,
  IdempotencyRow,
  KeysetRow,
  NodeRow,
  RotationRow,
  RunRow,
  TenantRow,
} from "./store.ts";

/** `plain` is kept as it is, `list` as JSON text, `flag` as 0 or 1. */
type Kind = "plain" | "list" | "flag";

/** What a column can hold. */
export type Value = string | number | Uint8Array | null;
export type Parameters = Record<string, Value>;

export interface Table<T> {
  name: string;
  /** `nodeId` -> `node_id`, in the order of the table. */
  columns: readonly { field: string; column: string }[];
  /** Values for `$field` parameters; what `row` lacks is left out. */
  encode(row: Partial<T>): Parameters;
  decode(raw: unknown): T;
}

function table<T extends object>(name: string, kinds: { [Field in keyof T]-?: Kind }): Table<T> {
  const columns = Object.entries<Kind>(kinds).map(([field, kind]) => ({
    field,
    kind,
    column: field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  }));
  return {
    name,
    columns,
    encode(row) {
      const parameters: Parameters = {};
      for (const { field, kind } of columns) {
        const value: unknown = (row as Record<string, unknown>)[field];
        if (value !== undefined) parameters[field] = toColumn(kind, value);
      }
      return parameters;
    },
    decode(raw) {
      const values = raw as Record<string, Value>;
      const row: Record<string, unknown> = {};
      for (const { field, kind, column } of columns) row[field] = fromColumn(kind, values[column]);
      return row as T;
    },
  };
}

function toColumn(kind: Kind, value: unknown): Value {
  if (kind === "list") return JSON.stringify(value);
  if (kind === "flag") return value ? 1 : 0;
  return value as Value;
}

function fromColumn(kind: Kind, value: Value | undefined): unknown {
  if (kind === "list") return JSON.parse(String(value));
  if (kind === "flag") return value === 1;
  return value;
}

export const tenants = table<TenantRow>("tenants", {
  tenantId: "plain",
  createdAt: "plain",
});

export const apiTokens = table<ApiTokenRow>("api_tokens", {
  tokenId: "plain",
  hash: "plain",
  name: "plain",
  tenantId: "plain",
  scopes: "list",
  contexts: "list",
  createdAt: "plain",
  expiresAt: "plain",
  lastUsedAt: "plain",
  revokedAt: "plain",
});

export const nodes = table<NodeRow>("nodes", {
  nodeId: "plain",
  tenantId: "plain",
  publicKey: "plain",
  seal: "plain",
  hostName: "plain",
  displayName: "plain",
  tags: "list",
  capabilities: "plain",
  softwareVersion: "plain",
  enrolledAt: "plain",
  connectedSince: "plain",
  lastHeartbeatAt: "plain",
  tokenJti: "plain",
  tokenExpiresAt: "plain",
  revokedAt: "plain",
});

export const rotations = table<RotationRow>("rotations", {
  nodeId: "plain",
  nonce: "plain",
  rotatedAt: "plain",
  oldKey: "plain",
  newKey: "plain",
  request: "plain",
  oldSignature: "plain",
  newSignature: "plain",
  overlapUntil: "plain",
});

const keysetColumns = {
  version: "plain",
  signed: "plain",
  rootKey: "plain",
  createdAt: "plain",
} as const;
export const keysets = table<KeysetRow>("keysets", keysetColumns);
export const plannedKeysets = table<KeysetRow>("planned_keyset", keysetColumns);

export const runs = table<RunRow>("runs", {
  runId: "plain",
  tenantId: "plain",
  tool: "plain",
  context: "plain",
  target: "plain",
  policy: "plain",
  principal: "plain",
  startedAt: "plain",
  endedAt: "plain",
  outcome: "plain",
  summary: "plain",
  resolved: "list",
  skipped: "list",
});

export const groups = table<GroupRow>("groups", {
  groupId: "plain",
  tenantId: "plain",
  name: "plain",
  selector: "plain",
  pinnedMembers: "list",
  createdBy: "plain",
  createdAt: "plain",
  version: "plain",
});

export const idempotencyKeys = table<IdempotencyRow>("idempotency_keys", {
  tenantId: "plain",
  principal: "plain",
  key: "plain",
  bodyHash: "plain",
  runId: "plain",
  createdAt: "plain",
});

export const commands = table<CommandRow>("commands", {
  commandId: "plain",
  runId: "plain",
  nodeId: "plain",
  tenantId: "plain",
  tool: "plain",
  context: "plain",
  principal: "plain",
  commandDigest: "plain",
  commandBody: "plain",
  dispatchedAt: "plain",
  endedAt: "plain",
  outcome: "plain",
  result: "plain",
  receiptSignature: "plain",
  receiptKeyId: "plain",
  receipt: "plain",
  outputComplete: "flag",
});

export const auditRows = table<AuditRow>("audit", {
  row: "plain",
  at: "plain",
  kind: "plain",
  tenantId: "plain",
  principal: "plain",
  nodeId: "plain",
  detail: "plain",
  receipt: "plain",
  previous: "plain",
  hash: "plain",
});

export const checkpoints = table<CheckpointRow>("audit_checkpoints", {
  lastRow: "plain",
  head: "plain",
  timeMs: "plain",
  signature: "plain",
  keyId: "plain",
});
