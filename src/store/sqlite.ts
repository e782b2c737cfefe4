/** The store's questions and changes in SQLite's words. */
import type { Database, Statement } from "bun:sqlite";
import { createHash } from "node:crypto";
import { AegisError } from "../errors.ts";
import {
  apiTokens,
  auditRows,
  checkpoints,
  commands,
  groups,
  idempotencyKeys,
  keysets,
  nodes,
  type Parameters,
  plannedKeysets,
  rotations,
  runs,
  type Table,
  tenants,
} from "./rows.ts";
import type { NodeOutcome, Queries, RunRow } from "./store.ts";

/** One open database with its prepared statements. Everything here answers at once and may throw SQLiteError. */
export interface Sql {
  all<T>(table: Table<T>, rest: string, parameters?: Parameters): T[];
  one<T>(table: Table<T>, rest: string, parameters?: Parameters): T | null;
  insert<T>(table: Table<T>, row: T, onConflict?: string): void;
  /** How many rows changed. */
  run(sql: string, parameters?: Parameters): number;
  /** How many rows changed so far, in what was undone too. */
  readonly changes: number;
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
  let changed = 0;
  const count = (changes: number): number => {
    changed += changes;
    return changes;
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
      count(
        prepared(`INSERT INTO ${table.name} (${names}) VALUES (${values}) ${onConflict}`).run(table.encode(row))
          .changes,
      );
    },
    run: (sql, parameters = {}) => count(prepared(sql).run(parameters).changes),
    get changes() {
      return changed;
    },
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

const newestRow = "ORDER BY row DESC LIMIT 1";
const newestFirst = "ORDER BY dispatched_at DESC, command_id DESC LIMIT $limit";

/** `loosely` is for what a loss of power may undo. */
export function sqliteQueries(perform: Perform, loosely: Perform = perform): Queries {
  const change = (sql: string, parameters: Parameters) =>
    perform((db) => {
      db.run(sql, parameters);
    });
  const note = (sql: string, parameters: Parameters) =>
    loosely((db) => {
      db.run(sql, parameters);
    });
  const noted = (sql: string, parameters: Parameters) => loosely((db) => db.run(sql, parameters) > 0);
  const changes = (sql: string, parameters: Parameters) => perform((db) => db.run(sql, parameters) > 0);
  return {
    ensureTenant: (tenantId, at) =>
      perform((db) => {
        const sql = "INSERT INTO tenants (tenant_id, created_at) VALUES ($tenantId, $at) ON CONFLICT DO NOTHING";
        db.run(sql, { tenantId, at });
        if (db.value("SELECT removed_at FROM tenants WHERE tenant_id = $tenantId", { tenantId }) !== null)
          throw new AegisError("conflict", `the tenant ${tenantId} was removed, and its name is not given again`, {
            hint: "choose another name",
          });
      }),
    tenant: (tenantId) =>
      perform((db) => db.one(tenants, "WHERE tenant_id = $tenantId AND removed_at IS NULL", { tenantId })),
    tenants: () => perform((db) => db.all(tenants, "WHERE removed_at IS NULL ORDER BY tenant_id")),
    removeTenant: (tenantId, at) =>
      perform((db) => {
        let removed = false;
        db.together(() => {
          const mine = "WHERE tenant_id = $tenantId";
          removed =
            db.run(`UPDATE tenants SET removed_at = $at ${mine} AND removed_at IS NULL`, { tenantId, at }) === 1;
          if (!removed) return;
          for (const table of ["nodes", "api_tokens"])
            db.run(`UPDATE ${table} SET revoked_at = $at ${mine} AND revoked_at IS NULL`, { tenantId, at });
          db.run(`DELETE FROM groups ${mine}`, { tenantId });
        });
        return removed;
      }),

    insertApiToken: (row) => perform((db) => db.insert(apiTokens, row)),
    apiTokenByHash: (hash) => perform((db) => db.one(apiTokens, "WHERE hash = $hash", { hash })),
    touchApiToken: (tokenId, at) =>
      note("UPDATE api_tokens SET last_used_at = $at WHERE token_id = $tokenId", { tokenId, at }),
    apiTokens: (tenantId) =>
      perform((db) => db.all(apiTokens, "WHERE tenant_id = $tenantId ORDER BY created_at, token_id", { tenantId })),

    revokeApiToken: (tenantId, tokenId, at) =>
      changes(
        `UPDATE api_tokens SET revoked_at = $at
          WHERE token_id = $tokenId AND tenant_id = $tenantId AND revoked_at IS NULL`,
        { tenantId, tokenId, at },
      ),

    redeemEnrollment: (jti, nodeId, expiresAt, at) =>
      perform((db) => {
        const sql = `INSERT INTO redemptions (jti, node_id, expires_at, redeemed_at) VALUES ($jti, $nodeId, $expiresAt, $at)
          ON CONFLICT DO NOTHING`;
        return db.run(sql, { jti, nodeId, expiresAt, at }) === 1;
      }),
    pruneRedemptions: (before) => note("DELETE FROM redemptions WHERE expires_at < $before", { before }),

    node: (nodeId) => perform((db) => db.one(nodes, "WHERE node_id = $nodeId", { nodeId })),
    nodeIdByKeyId: (keyId) =>
      perform((db) => db.value("SELECT node_id FROM node_keys WHERE key_id = $keyId", { keyId }) as string | null),
    nodes: (tenantId) =>
      perform((db) => db.all(nodes, "WHERE tenant_id = $tenantId ORDER BY host_name, node_id", { tenantId })),
    nodeCount: () => perform((db) => db.value("SELECT count(*) FROM nodes WHERE revoked_at IS NULL", {}) as number),
    nodesPage: (tenantId, after, limit) =>
      perform((db) =>
        db.all(
          nodes,
          `WHERE tenant_id = $tenantId AND (enrolled_at, node_id) > ($enrolledAt, $nodeId)
            ORDER BY enrolled_at, node_id LIMIT $limit`,
          { tenantId, enrolledAt: after?.enrolledAt ?? -1, nodeId: after?.nodeId ?? "", limit },
        ),
      ),
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
      noted(
        `UPDATE nodes SET connected_since = $at, last_heartbeat_at = $at, capabilities = $capabilities,
          software_version = $softwareVersion WHERE node_id = $nodeId AND revoked_at IS NULL`,
        { nodeId, at, capabilities, softwareVersion },
      ),
    nodeCapabilities: (nodeId, capabilities) =>
      note("UPDATE nodes SET capabilities = $capabilities WHERE node_id = $nodeId", { nodeId, capabilities }),
    nodeHeartbeat: (nodeId, at) =>
      note("UPDATE nodes SET last_heartbeat_at = $at WHERE node_id = $nodeId", { nodeId, at }),
    nodeDisconnected: (nodeId) => note("UPDATE nodes SET connected_since = NULL WHERE node_id = $nodeId", { nodeId }),
    describeNode: (nodeId, { displayName, tags }) =>
      change("UPDATE nodes SET display_name = $displayName, tags = $tags WHERE node_id = $nodeId", {
        nodeId,
        displayName,
        tags: JSON.stringify(tags),
      }),
    revokeNode: (nodeId, at) =>
      perform((db) => {
        let revoked = false;
        db.together(() => {
          const sql = "UPDATE nodes SET revoked_at = $at WHERE node_id = $nodeId AND revoked_at IS NULL";
          revoked = db.run(sql, { nodeId, at }) > 0;
          // Should it ever be enrolled again, it is in no group.
          for (const group of db.all(groups, "WHERE instr(pinned_members, $nodeId) > 0", { nodeId })) {
            const left = JSON.stringify(group.pinnedMembers.filter((member) => member !== nodeId));
            const unpin = "UPDATE groups SET pinned_members = $left, version = version + 1 WHERE group_id = $groupId";
            db.run(unpin, { left, groupId: group.groupId });
          }
        });
        return revoked;
      }),

    insertGroup: (row) =>
      perform((db) => {
        const taken = db.value("SELECT group_id FROM groups WHERE tenant_id = $tenantId AND name = $name", {
          tenantId: row.tenantId,
          name: row.name,
        });
        if (taken !== null) throw nameTaken(row.name);
        db.insert(groups, row);
      }),
    group: (tenantId, idOrName) =>
      perform((db) =>
        db.one(
          groups,
          "WHERE tenant_id = $tenantId AND $key IN (group_id, name) ORDER BY group_id = $key DESC LIMIT 1",
          {
            tenantId,
            key: idOrName,
          },
        ),
      ),
    groups: (tenantId, after, limit) =>
      perform((db) =>
        db.all(
          groups,
          `WHERE tenant_id = $tenantId AND (created_at, group_id) > ($createdAt, $groupId)
            ORDER BY created_at, group_id LIMIT $limit`,
          { tenantId, createdAt: after?.createdAt ?? -1, groupId: after?.groupId ?? "", limit },
        ),
      ),
    updateGroup: (row) =>
      perform((db) => {
        const { groupId, tenantId, name, version } = row;
        const other = db.value(
          "SELECT group_id FROM groups WHERE tenant_id = $tenantId AND name = $name AND group_id <> $groupId",
          { tenantId, name, groupId },
        );
        if (other !== null) throw nameTaken(name);
        const sql = `UPDATE groups SET name = $name, selector = $selector, pinned_members = $pinnedMembers,
          version = version + 1 WHERE group_id = $groupId AND version = $version`;
        const { selector = "", pinnedMembers = "" } = groups.encode(row);
        return db.run(sql, { groupId, name, selector, pinnedMembers, version }) > 0;
      }),
    deleteGroup: (groupId) => changes("DELETE FROM groups WHERE group_id = $groupId", { groupId }),

    insertRotation: (row) =>
      perform((db) => {
        const { nodeId, nonce } = row;
        const used = db.one(rotations, "WHERE node_id = $nodeId AND nonce = $nonce", { nodeId, nonce });
        if (!used) db.insert(rotations, row);
        return !used;
      }),
    rotations: (nodeId, since) =>
      perform((db) =>
        db.all(rotations, "WHERE node_id = $nodeId AND rotated_at >= $since ORDER BY rotated_at DESC, nonce", {
          ...{ nodeId, since },
        }),
      ),

    insertKeyset: (row) => perform((db) => db.insert(keysets, row)),
    keysetsAfter: (version) =>
      perform((db) => db.all(keysets, "WHERE version > $version ORDER BY version", { version })),
    newestKeyset: () => perform((db) => db.one(keysets, "ORDER BY version DESC LIMIT 1")),
    planKeyset: (row) =>
      perform((db) =>
        db.together(() => {
          db.run("DELETE FROM planned_keyset");
          if (row) db.insert(plannedKeysets, row);
        }),
      ),
    plannedKeyset: () => perform((db) => db.one(plannedKeysets, "")),
    nodeKnowsKeyset: (nodeId, version) =>
      note(
        `INSERT INTO known_keysets (node_id, version) SELECT node_id, $version FROM nodes WHERE node_id = $nodeId
         ON CONFLICT DO UPDATE SET version = max(version, excluded.version)`,
        { nodeId, version },
      ),
    nodesBehind: (version) =>
      perform((db) =>
        db.all(
          nodes,
          `WHERE seal = 'strict' AND revoked_at IS NULL
           AND node_id NOT IN (SELECT node_id FROM known_keysets WHERE version >= $version)
           ORDER BY enrolled_at, node_id`,
          { version },
        ),
      ),

    insertRun: (row) => perform((db) => db.insert(runs, row)),
    endRun: (runId, endedAt, outcome, summary) =>
      note("UPDATE runs SET ended_at = $endedAt, outcome = $outcome, summary = $summary WHERE run_id = $runId", {
        ...{ runId, endedAt, outcome, summary },
      }),
    run: (runId) => perform((db) => db.one(runs, "WHERE run_id = $runId", { runId })),
    runs: (tenantId, { tool, outcome, before }, limit) =>
      perform((db) =>
        db.all(
          runs,
          `WHERE tenant_id = $tenantId AND ($tool IS NULL OR tool = $tool) AND ($outcome IS NULL OR outcome = $outcome)
            AND ($startedAt IS NULL OR (started_at, run_id) < ($startedAt, $runId))
            ORDER BY started_at DESC, run_id DESC LIMIT $limit`,
          {
            ...{ tenantId, limit, tool: tool ?? null, outcome: outcome ?? null },
            ...{ startedAt: before?.startedAt ?? null, runId: before?.runId ?? null },
          },
        ),
      ),
    claimIdempotencyKey: (row) =>
      perform((db) => {
        const { tenantId, principal, key } = row;
        db.insert(idempotencyKeys, row, "ON CONFLICT DO NOTHING");
        const kept = db.one(idempotencyKeys, "WHERE tenant_id = $tenantId AND principal = $principal AND key = $key", {
          tenantId,
          principal,
          key,
        });
        return kept?.runId === row.runId ? null : kept;
      }),
    pruneIdempotencyKeys: (before) => note("DELETE FROM idempotency_keys WHERE created_at < $before", { before }),
    pruneRuns: (before, atMost) =>
      perform((db) => {
        const ended = "SELECT run_id FROM runs WHERE ended_at < $before ORDER BY ended_at, run_id LIMIT $atMost";
        let runs = 0;
        db.together(() => {
          db.run(`DELETE FROM commands WHERE run_id IN (${ended})`, { before, atMost });
          runs = db.run(`DELETE FROM runs WHERE run_id IN (${ended})`, { before, atMost });
        });
        return runs;
      }),
    interruptOpenRuns: (at) =>
      perform((db) => {
        let interrupted = 0;
        db.together(() => {
          db.run("UPDATE commands SET ended_at = $at, outcome = 'edge_disconnected' WHERE ended_at IS NULL", { at });
          for (const run of db.all(runs, "WHERE ended_at IS NULL")) {
            const { runId } = run;
            const summary = JSON.stringify(countOutcomes(db, run));
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

    appendAudit: (entry, hash) =>
      perform((db) =>
        db.together(() => {
          const last = db.one(auditRows, newestRow);
          const link = { ...entry, row: (last?.row ?? 0) + 1, previous: last?.hash ?? new Uint8Array(32) };
          db.insert(auditRows, { ...link, hash: hash(link) });
        }),
      ),
    audit: ({ after, tenantId, since }, limit) =>
      perform((db) =>
        db.all(
          auditRows,
          `WHERE row > $after AND ($tenantId IS NULL OR tenant_id = $tenantId) AND ($since IS NULL OR at >= $since)
            ORDER BY row LIMIT $limit`,
          { after, limit, tenantId: tenantId ?? null, since: since ?? null },
        ),
      ),
    auditHead: () => perform((db) => db.one(auditRows, newestRow)),
    insertCheckpoint: (row) => perform((db) => db.insert(checkpoints, row)),
    checkpoints: (first, last) =>
      perform((db) =>
        db.all(checkpoints, "WHERE last_row BETWEEN $first AND $last ORDER BY last_row", { first, last }),
      ),
    newestCheckpoint: () => perform((db) => db.one(checkpoints, "ORDER BY last_row DESC LIMIT 1")),
  };
}

/** What a run came to whose controller is gone. */
function countOutcomes(db: Sql, { runId, resolved, skipped }: RunRow): Record<NodeOutcome | "skipped", number> {
  const count = (outcome: NodeOutcome) =>
    Number(db.value("SELECT count(*) FROM commands WHERE run_id = $runId AND outcome = $outcome", { runId, outcome }));
  const known = {
    ok: count("ok"),
    err: count("err"),
    timed_out: count("timed_out"),
    cancelled: count("cancelled"),
    edge_disconnected: count("edge_disconnected"),
  };
  const started = Object.values(known).reduce((sum, one) => sum + one, 0);
  return { ...known, not_started: Math.max(0, resolved.length - started), skipped: skipped.length };
}

const nameTaken = (name: string) =>
  new AegisError("conflict", `this tenant has a group ${JSON.stringify(name)} already`, {
    hint: "choose another name, or change that group: aegis edge group ls",
  });
