/**
 * What the controller remembers, as questions and changes that any database can answer.
 * Everything is asynchronous, every multi-step change is one `transaction`, ids are UUID text and times UTC milliseconds.
 */

export type Seal = "strict" | "compat";

export interface TenantRow {
  tenantId: string;
  createdAt: number;
}

/** An operator's bearer token: only its SHA-256 is kept. */
export interface ApiTokenRow {
  tokenId: string;
  hash: Uint8Array;
  name: string;
  tenantId: string;
  scopes: readonly string[];
  contexts: readonly string[];
  createdAt: number;
  expiresAt: number | null;
  lastUsedAt: number | null;
  revokedAt: number | null;
}

export interface NodeRow {
  nodeId: string;
  tenantId: string;
  /** Raw Ed25519, 32 bytes. */
  publicKey: Uint8Array;
  seal: Seal;
  /** What the host calls itself, signed at enrollment; `displayName` is what operators call it, or null. */
  hostName: string;
  displayName: string | null;
  tags: readonly string[];
  /** The last EdgeCapabilities received, as received; empty before the first connection. */
  capabilities: Uint8Array;
  softwareVersion: string;
  enrolledAt: number;
  connectedSince: number | null;
  lastHeartbeatAt: number | null;
  /** The newest node token's id and end. */
  tokenJti: string;
  tokenExpiresAt: number;
  revokedAt: number | null;
}

/** A change of key that the node asked for with both keys; the same key on both sides is a new token only. */
export interface RotationRow {
  nodeId: string;
  /** 32 bytes; one request of a node counts once, for ever. */
  nonce: Uint8Array;
  rotatedAt: number;
  /** Raw Ed25519, 32 bytes each. */
  oldKey: Uint8Array;
  newKey: Uint8Array;
  /** A serialised RotateEdgeKeyInner, which `oldSignature` covers. */
  request: Uint8Array;
  oldSignature: Uint8Array;
  newSignature: Uint8Array;
  /** Until then the old key still opens sessions. */
  overlapUntil: number;
}

export interface KeysetRow {
  version: number;
  /** A serialised SignedKeySet. */
  signed: Uint8Array;
  rootKey: Uint8Array;
  createdAt: number;
}

export type RunOutcome = "complete" | "halted" | "cancelled" | "refused" | "interrupted";
export type NodeOutcome = "ok" | "err" | "timed_out" | "cancelled" | "edge_disconnected" | "not_started";

export interface RunRow {
  runId: string;
  tenantId: string;
  tool: string;
  context: string;
  /** The request's target and policy, as JSON text. */
  target: string;
  policy: string;
  principal: string;
  startedAt: number;
  endedAt: number | null;
  outcome: RunOutcome | null;
  /** Counts by outcome as JSON text; null while the run is going on. */
  summary: string | null;
  /** The hosts it was for, in order, and those it passed over. */
  resolved: readonly { nodeId: string; name: string }[];
  skipped: readonly { nodeId: string; name: string; reason: string }[];
}

/** Hosts by what they are or by their ids, under a name. */
export interface GroupRow {
  groupId: string;
  tenantId: string;
  name: string;
  /** As JSON text. */
  selector: string;
  pinnedMembers: readonly string[];
  createdBy: string;
  createdAt: number;
  /** Counts changes, for If-Match. */
  version: number;
}

/** What a client's Idempotency-Key led to. */
export interface IdempotencyRow {
  tenantId: string;
  principal: string;
  key: string;
  /** SHA-256 of the request. */
  bodyHash: Uint8Array;
  runId: string;
  createdAt: number;
}

/** One call to one host: what was asked, what came back, and the receipt that proves it. */
export interface CommandRow {
  commandId: string;
  runId: string;
  nodeId: string;
  tenantId: string;
  tool: string;
  context: string;
  principal: string;
  /** SHA-256 of the InvokeToolCommand's EdgeCommand body as sealed; the receipt covers it. */
  commandDigest: Uint8Array;
  /** The body itself, so that anyone can check the receipt later. */
  commandBody: Uint8Array;
  dispatchedAt: number;
  endedAt: number | null;
  outcome: NodeOutcome | null;
  /** A serialised CommandResultEvent, as signed; null until a result came. */
  result: Uint8Array | null;
  receiptSignature: Uint8Array | null;
  receiptKeyId: Uint8Array | null;
  receipt: "verified" | "peer_id_only" | "missing" | "invalid" | null;
  outputComplete: boolean;
}

/** One thing that happened. Rows are added and never changed; each covers the one before by its hash. */
export interface AuditRow {
  /** From 1, without gaps. */
  row: number;
  at: number;
  kind: string;
  /** Empty where it concerns none. */
  tenantId: string;
  principal: string;
  nodeId: string;
  /** JSON text, exactly as hashed. */
  detail: string;
  /** JSON text of what proves a result; empty where there is none. */
  receipt: string;
  previous: Uint8Array;
  hash: Uint8Array;
}

/** The controller's signature over the chain up to a row. */
export interface CheckpointRow {
  lastRow: number;
  head: Uint8Array;
  timeMs: number;
  signature: Uint8Array;
  keyId: Uint8Array;
}

/** Who there is: tenants and their tokens, hosts and their groups, and the keys they trust. */
export interface MembershipQueries {
  /** Throws `conflict` for a tenant that was removed. */
  ensureTenant(tenantId: string, at: number): Promise<void>;
  /** Null also for one that was removed. */
  tenant(tenantId: string): Promise<TenantRow | null>;
  /** Those that exist. */
  tenants(): Promise<TenantRow[]>;
  /**
   * Its hosts and tokens are revoked and its groups gone; false when there was none. Its name is never given again: what is
   * left of it must not show up in another's lists.
   */
  removeTenant(tenantId: string, at: number): Promise<boolean>;

  insertApiToken(row: ApiTokenRow): Promise<void>;
  apiTokenByHash(hash: Uint8Array): Promise<ApiTokenRow | null>;
  touchApiToken(tokenId: string, at: number): Promise<void>;
  apiTokens(tenantId: string): Promise<ApiTokenRow[]>;
  /** False when the tenant has no such token that is not revoked yet. */
  revokeApiToken(tenantId: string, tokenId: string, at: number): Promise<boolean>;

  /** False when this enrollment token was redeemed before. */
  redeemEnrollment(jti: string, nodeId: string, expiresAt: number, at: number): Promise<boolean>;
  /** Forgets redemptions of tokens that have been expired for a day. */
  pruneRedemptions(before: number): Promise<void>;

  node(nodeId: string): Promise<NodeRow | null>;
  /** The node that has, or ever had, this key (SHA-256 of the raw key), revoked ones included. */
  nodeIdByKeyId(keyId: Uint8Array): Promise<string | null>;
  nodes(tenantId: string): Promise<NodeRow[]>;
  /** Every node that `name` can mean: by the start of its id, by a name it was given, or by one it says it has; and perhaps more. */
  nodesNamed(tenantId: string, name: string): Promise<NodeRow[]>;
  /** How many of all tenants are not revoked. */
  nodeCount(): Promise<number>;
  /** Those of them with compat sessions. */
  compatNodeCount(): Promise<number>;
  /** In the order of enrollment, from after `after` on; revoked ones too. */
  nodesPage(tenantId: string, after: { enrolledAt: number; nodeId: string } | null, limit: number): Promise<NodeRow[]>;
  /** Inserts, or replaces all but `enrolledAt`; remembers the key as this node's for ever. */
  putNode(row: NodeRow): Promise<void>;
  /** False, and nothing changes, when the node is revoked. */
  nodeConnected(nodeId: string, at: number, capabilities: Uint8Array, softwareVersion: string): Promise<boolean>;
  nodeCapabilities(nodeId: string, capabilities: Uint8Array): Promise<void>;
  /** Node id -> when it was heard. */
  nodeHeartbeats(heard: ReadonlyMap<string, number>): Promise<void>;
  nodeDisconnected(nodeId: string): Promise<void>;
  /** What operators call it and how they tag it. */
  describeNode(nodeId: string, description: Pick<NodeRow, "displayName" | "tags">): Promise<void>;
  /** False when it was revoked before. */
  revokeNode(nodeId: string, at: number): Promise<boolean>;

  /** Throws `conflict` when the tenant has a group of this name. */
  insertGroup(row: GroupRow): Promise<void>;
  /** By its id or its name. */
  group(tenantId: string, idOrName: string): Promise<GroupRow | null>;
  groups(tenantId: string, after: { createdAt: number; groupId: string } | null, limit: number): Promise<GroupRow[]>;
  /** Replaces name, selector and pinned members and counts one change; false when it has changed since `version`. */
  updateGroup(row: GroupRow): Promise<boolean>;
  deleteGroup(groupId: string): Promise<boolean>;

  /** False when this node used this nonce before. */
  insertRotation(row: RotationRow): Promise<boolean>;
  /** The node's rotations at or after `since`, the newest first. */
  rotations(nodeId: string, since: number): Promise<RotationRow[]>;

  insertKeyset(row: KeysetRow): Promise<void>;
  /** Every keyset with a higher version, oldest first. */
  keysetsAfter(version: number): Promise<KeysetRow[]>;
  newestKeyset(): Promise<KeysetRow | null>;
  /** What follows the newest keyset, if anything is planned; null plans nothing any more. */
  planKeyset(row: KeysetRow | null): Promise<void>;
  plannedKeyset(): Promise<KeysetRow | null>;
  /** The node has said that it trusts this version; it never goes down. */
  nodeKnowsKeyset(nodeId: string, version: number): Promise<void>;
  /** Strict nodes that are not revoked and have not said that they trust `version` or a later one. */
  nodesBehind(version: number): Promise<NodeRow[]>;
}

/** What happened: runs, their commands, and the audit. */
export interface RecordQueries {
  insertRun(row: RunRow): Promise<void>;
  endRun(runId: string, endedAt: number, outcome: RunOutcome, summary: string): Promise<void>;
  run(runId: string): Promise<RunRow | null>;
  /** The newest first. */
  runs(
    tenantId: string,
    filter: { tool?: string; outcome?: RunOutcome; before?: { startedAt: number; runId: string } },
    limit: number,
  ): Promise<RunRow[]>;
  /** What this key led to before, or null and it leads to `row.runId` from now on. */
  claimIdempotencyKey(row: IdempotencyRow): Promise<IdempotencyRow | null>;
  pruneIdempotencyKeys(before: number): Promise<void>;
  /** Runs and commands that a stopped controller left open, ended as `interrupted` and `edge_disconnected`. */
  interruptOpenRuns(at: number): Promise<number>;
  /** Forgets runs that ended before, with their commands, at most so many at a time; answers how many. The audit stays. */
  pruneRuns(before: number, atMost: number): Promise<number>;

  insertCommand(row: CommandRow): Promise<void>;
  endCommand(
    commandId: string,
    end: Pick<
      CommandRow,
      "endedAt" | "outcome" | "result" | "receiptSignature" | "receiptKeyId" | "receipt" | "outputComplete"
    >,
  ): Promise<void>;
  command(commandId: string): Promise<CommandRow | null>;
  commandsOfRun(runId: string): Promise<CommandRow[]>;
  /** The newest first. */
  recentCommands(nodeId: string, limit: number): Promise<CommandRow[]>;

  /** Adds one row to the chain; `hash` computes its own from the one before. */
  appendAudit(
    entry: Omit<AuditRow, "row" | "previous" | "hash">,
    hash: (link: Omit<AuditRow, "hash">) => Uint8Array,
  ): Promise<void>;
  /** Rows after number `after`, in order; of one tenant, if named, and of `since` or later. */
  audit(filter: { after: number; tenantId?: string; since?: number }, limit: number): Promise<AuditRow[]>;
  auditHead(): Promise<AuditRow | null>;
  insertCheckpoint(row: CheckpointRow): Promise<void>;
  /** Those that end at rows from `first` to `last`, in order. */
  checkpoints(first: number, last: number): Promise<CheckpointRow[]>;
  newestCheckpoint(): Promise<CheckpointRow | null>;
}

/**
 * Everything that is asked and changed; inside a transaction and outside. What is changed outside is on disk when it
 * resolves, but for what hosts say of themselves again, when a token was used, and how a run ended.
 */
export interface Queries extends MembershipQueries, RecordQueries {}

export interface Store extends Queries {
  /** A number that is another one whenever another process has changed the database since. */
  foreignChanges(): Promise<number>;
  /**
   * All of `change` or none of it; one at a time. The queries inside must be made on `tx`. With `wait: "commit"` it resolves
   * as soon as every reader sees it and a killed controller keeps it; a loss of power may undo it, and what came after it.
   */
  transaction<T>(change: (tx: Queries) => Promise<T>, options?: { wait?: "disk" | "commit" }): Promise<T>;
  /** Resolves once everything changed before is on disk. */
  synced(): Promise<void>;
  close(): Promise<void>;
}
