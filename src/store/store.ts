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

/** What happens to a redeemed enrollment token, a new host row and its token: all of it or none. */
export interface Queries {
  ensureTenant(tenantId: string, at: number): Promise<void>;
  tenant(tenantId: string): Promise<TenantRow | null>;

  insertApiToken(row: ApiTokenRow): Promise<void>;
  apiTokenByHash(hash: Uint8Array): Promise<ApiTokenRow | null>;
  touchApiToken(tokenId: string, at: number): Promise<void>;
  apiTokens(tenantId: string): Promise<ApiTokenRow[]>;

  /** False when this enrollment token was redeemed before. */
  redeemEnrollment(jti: string, nodeId: string, expiresAt: number, at: number): Promise<boolean>;
  /** Forgets redemptions of tokens that have been expired for a day. */
  pruneRedemptions(before: number): Promise<void>;

  node(nodeId: string): Promise<NodeRow | null>;
  /** The node that has, or ever had, this key (SHA-256 of the raw key), revoked ones included. */
  nodeIdByKeyId(keyId: Uint8Array): Promise<string | null>;
  nodes(tenantId: string): Promise<NodeRow[]>;
  /** Inserts, or replaces all but `enrolledAt`; remembers the key as this node's for ever. */
  putNode(row: NodeRow): Promise<void>;
  nodeConnected(nodeId: string, at: number, capabilities: Uint8Array, softwareVersion: string): Promise<void>;
  nodeCapabilities(nodeId: string, capabilities: Uint8Array): Promise<void>;
  nodeHeartbeat(nodeId: string, at: number): Promise<void>;
  nodeDisconnected(nodeId: string): Promise<void>;
  revokeNode(nodeId: string, at: number): Promise<void>;

  insertKeyset(row: KeysetRow): Promise<void>;
  /** Every keyset with a higher version, oldest first. */
  keysetsAfter(version: number): Promise<KeysetRow[]>;
  newestKeyset(): Promise<KeysetRow | null>;

  insertRun(row: RunRow): Promise<void>;
  endRun(runId: string, endedAt: number, outcome: RunOutcome, summary: string): Promise<void>;
  run(runId: string): Promise<RunRow | null>;
  /** Runs and commands that a stopped controller left open, ended as `interrupted` and `edge_disconnected`. */
  interruptOpenRuns(at: number): Promise<number>;

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
}

export interface Store extends Queries {
  /** All of `change` or none of it; one at a time. The queries inside must be made on `tx`. */
  transaction<T>(change: (tx: Queries) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}
