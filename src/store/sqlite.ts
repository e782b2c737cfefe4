/** The store's questions and changes in SQLite's words. */
import type { Database, Statement } from "bun:sqlite";
import { createHash } from "node:crypto";
import { AegisError } from "../errors.ts";
import { apiTokens, commands, keysets, nodes, type Parameters, runs, type Table, tenants } from "./rows.ts";
import type { NodeOutcome, Queries } from "./store.ts";

/** One open database with its prepared statements. Everything here answers at once and may throw SQLiteError. */
export interface Sql {
  all<T>(table: Table<T>, rest: string, parameters?: Parameters): T[];
  one<T>(table: Table<T>, rest: string, parameters?: Parameters): T | null;
  insert<T>(table: Table<T>, row: T, onConflict?: string): void;
  /** How many rows changed. */
  run(sql: string, parameters?: Parameters): number;
  value(sql: string, parameters?: Parameters): unknown;
  /** All of `work` or none of it, also inside a transaction. */
  together(work: () => void): void;
  /** Lets go of every statement, without which closing the database leaves its -wal file behind. */
  finalize(): void;
}

export function preparedSql(db: Database): Sql {
  const statements = new Map<string, Statement>();
  // The statements of this file are a fixed set, so the map stops growing.
  const prepared = (sql: string): Statement => {
    const known = statements.get(sql) ?? db.prepare(sql);
    statements.set(sql, known);
    return known;
  };
  const select = <T>(table: Table<T>, rest: string) =>
    `SELECT ${table.columns.map(({ column }) => column).join(", ")} FROM ${table.name} ${rest}`;
  return {
    all: (table, rest, parameters = {}) => prepared(select(table, rest)).all(parameters).map(table.decode),
    one(table, rest, parameters = {}) {
      const raw = prepared(select(table, rest)).get(parameters);
      return raw === null ? null : table.decode(raw);
    },
    insert(table, row, onConflict = "") {
      const names = table.columns.map(({ column }) => column).join(", ");
      const values = table.columns.map(({ field }) => `$${field}`).join(", ");
      prepared(`INSERT INTO ${table.name} (${names}) VALUES (${values}) ${onConflict}`).run(table.encode(row));
    },
    run: (sql, parameters = {}) => prepared(sql).run(parameters).changes,
    value(sql, parameters = {}) {
      const raw = prepared(sql).values(parameters)[0];
      return raw?.[0] ?? null;
    },
    together: (work) => db.transaction(work).immediate(),
    finalize() {
      for (const statement of statements.values()) statement.finalize();
      statements.clear();
    },
  };
}

/** Gets one query done: now, inside a transaction, or in its turn. */
export type Perform = <T>(query: (sql: Sql) => T) => Promise<T>;

const replaceNode = `ON CONFLICT (node_id) DO UPDATE SET ${nodes.columns
  .filter(({ field }) => field !== "nodeId" && field !== "enrolledAt")
  .map(({ column }) => `${column} = excluded.${column}`)
  .join(", ")}`;

const newestFirst = "ORDER BY dispatched_at DESC, command_id DESC LIMIT $limit";

export function sqliteQueries(perform: Perform): Queries {
  const change = (sql: string, parameters: Parameters) =>
    perform((db) => {
      db.run(sql, parameters);
    });
  return {
    ensureTenant: (tenantId, at) =>
      change("INSERT INTO tenants (tenant_id, created_at) VALUES ($tenantId, $at) ON CONFLICT DO NOTHING", {
        tenantId,
        at,
      }),
    tenant: (tenantId) => perform((db) => db.one(tenants, "WHERE tenant_id = $tenantId", { tenantId })),

    insertApiToken: (row) => perform((db) => db.insert(apiTokens, row)),
    apiTokenByHash: (hash) => perform((db) => db.one(apiTokens, "WHERE hash = $hash", { hash })),
    touchApiToken: (tokenId, at) =>
      change("UPDATE api_tokens SET last_used_at = $at WHERE token_id = $tokenId", { tokenId, at }),
    apiTokens: (tenantId) =>
      perform((db) => db.all(apiTokens, "WHERE tenant_id = $tenantId ORDER BY created_at, token_id", { tenantId })),

    redeemEnrollment: (jti, nodeId, expiresAt, at) =>
      perform((db) => {
        const sql = `INSERT INTO redemptions (jti, node_id, expires_at, redeemed_at) VALUES ($jti, $nodeId, $expiresAt, $at)
          ON CONFLICT DO NOTHING`;
        return db.run(sql, { jti, nodeId, expiresAt, at }) === 1;
      }),
    pruneRedemptions: (before) => change("DELETE FROM redemptions WHERE expires_at < $before", { before }),

    node: (nodeId) => perform((db) => db.one(nodes, "WHERE node_id = $nodeId", { nodeId })),
    nodeIdByKeyId: (keyId) =>
      perform((db) => db.value("SELECT node_id FROM node_keys WHERE key_id = $keyId", { keyId }) as string | null),
    nodes: (tenantId) =>
      perform((db) => db.all(nodes, "WHERE tenant_id = $tenantId ORDER BY host_name, node_id", { tenantId })),
    putNode: (row) =>
      perform((db) =>
        db.together(() => {
          const { nodeId } = row;
          db.insert(nodes, row, replaceNode);
          const keyId = createHash("sha256").update(row.publicKey).digest();
          db.run("INSERT INTO node_keys (key_id, node_id) VALUES ($keyId, $nodeId) ON CONFLICT DO NOTHING", {
            keyId,
            nodeId,
          });
          const owner = db.value("SELECT node_id FROM node_keys WHERE key_id = $keyId", { keyId });
          if (owner !== nodeId)
            throw new AegisError("conflict", `the key of node ${nodeId} is or was the key of node ${owner}`);
        }),
      ),
    nodeConnected: (nodeId, at, capabilities, softwareVersion) =>
      change(
        `UPDATE nodes SET connected_since = $at, last_heartbeat_at = $at, capabilities = $capabilities,
          software_version = $softwareVersion WHERE node_id = $nodeId`,
        { nodeId, at, capabilities, softwareVersion },
      ),
    nodeCapabilities: (nodeId, capabilities) =>
      change("UPDATE nodes SET capabilities = $capabilities WHERE node_id = $nodeId", { nodeId, capabilities }),
    nodeHeartbeat: (nodeId, at) =>
      change("UPDATE nodes SET last_heartbeat_at = $at WHERE node_id = $nodeId", { nodeId, at }),
    nodeDisconnected: (nodeId) => change("UPDATE nodes SET connected_since = NULL WHERE node_id = $nodeId", { nodeId }),
    revokeNode: (nodeId, at) =>
      change("UPDATE nodes SET revoked_at = $at WHERE node_id = $nodeId AND revoked_at IS NULL", { nodeId, at }),

    insertKeyset: (row) => perform((db) => db.insert(keysets, row)),
    keysetsAfter: (version) =>
      perform((db) => db.all(keysets, "WHERE version > $version ORDER BY version", { version })),
    newestKeyset: () => perform((db) => db.one(keysets, "ORDER BY version DESC LIMIT 1")),

    insertRun: (row) => perform((db) => db.insert(runs, row)),
    endRun: (runId, endedAt, outcome, summary) =>
      change("UPDATE runs SET ended_at = $endedAt, outcome = $outcome, summary = $summary WHERE run_id = $runId", {
        ...{ runId, endedAt, outcome, summary },
      }),
    run: (runId) => perform((db) => db.one(runs, "WHERE run_id = $runId", { runId })),
    interruptOpenRuns: (at) =>
      perform((db) => {
        let interrupted = 0;
        db.together(() => {
          db.run("UPDATE commands SET ended_at = $at, outcome = 'edge_disconnected' WHERE ended_at IS NULL", { at });
          for (const { runId } of db.all(runs, "WHERE ended_at IS NULL")) {
            const summary = JSON.stringify(countOutcomes(db, runId));
            const sql =
              "UPDATE runs SET ended_at = $at, outcome = 'interrupted', summary = $summary WHERE run_id = $runId";
            interrupted += db.run(sql, { at, summary, runId });
          }
        });
        return interrupted;
      }),

    insertCommand: (row) => perform((db) => db.insert(commands, row)),
    endCommand: (commandId, end) =>
      change(
        `UPDATE commands SET ended_at = $endedAt, outcome = $outcome, result = $result,
          receipt_signature = $receiptSignature, receipt_key_id = $receiptKeyId, receipt = $receipt,
          output_complete = $outputComplete WHERE command_id = $commandId`,
        { ...commands.encode(end), commandId },
      ),
    command: (commandId) => perform((db) => db.one(commands, "WHERE command_id = $commandId", { commandId })),
    commandsOfRun: (runId) =>
      perform((db) => db.all(commands, "WHERE run_id = $runId ORDER BY dispatched_at, command_id", { runId })),
    recentCommands: (nodeId, limit) =>
      perform((db) => db.all(commands, `WHERE node_id = $nodeId ${newestFirst}`, { nodeId, limit })),
  };
}

/** What is known of a run whose controller is gone; which targets it skipped is not. */
function countOutcomes(db: Sql, runId: string): Record<NodeOutcome, number> {
  const count = (outcome: NodeOutcome) =>
    Number(db.value("SELECT count(*) FROM commands WHERE run_id = $runId AND outcome = $outcome", { runId, outcome }));
  return {
    ok: count("ok"),
    err: count("err"),
    timed_out: count("timed_out"),
    cancelled: count("cancelled"),
    edge_disconnected: count("edge_disconnected"),
    not_started: count("not_started"),
  };
}
