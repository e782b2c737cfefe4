/** How the database came to be what it is: numbered steps, each run once, none ever changed after it was released. */
export interface Migration {
  version: number;
  sql: string;
}

export const migrations: readonly Migration[] = [
  {
    version: 1,
    sql: `
      CREATE TABLE tenants (
        tenant_id TEXT PRIMARY KEY,
        created_at INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE api_tokens (
        token_id TEXT PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id),
        scopes TEXT NOT NULL,
        contexts TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        revoked_at INTEGER
      ) STRICT;
      CREATE INDEX api_tokens_of_tenant ON api_tokens (tenant_id, created_at);

      CREATE TABLE redemptions (
        jti TEXT PRIMARY KEY,
        node_id TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        redeemed_at INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX redemptions_by_end ON redemptions (expires_at);

      CREATE TABLE nodes (
        node_id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id),
        public_key BLOB NOT NULL,
        seal TEXT NOT NULL CHECK (seal IN ('strict', 'compat')),
        host_name TEXT NOT NULL,
        display_name TEXT,
        tags TEXT NOT NULL,
        capabilities BLOB NOT NULL,
        software_version TEXT NOT NULL,
        enrolled_at INTEGER NOT NULL,
        connected_since INTEGER,
        last_heartbeat_at INTEGER,
        token_jti TEXT NOT NULL,
        token_expires_at INTEGER NOT NULL,
        revoked_at INTEGER
      ) STRICT;
      CREATE INDEX nodes_of_tenant ON nodes (tenant_id, host_name);

      -- Every key any node ever had. Rows are never removed: a key stays its node's.
      CREATE TABLE node_keys (
        key_id BLOB PRIMARY KEY,
        node_id TEXT NOT NULL REFERENCES nodes (node_id)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE keysets (
        version INTEGER PRIMARY KEY,
        signed BLOB NOT NULL,
        root_key BLOB NOT NULL,
        created_at INTEGER NOT NULL
      ) STRICT;

      CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id),
        tool TEXT NOT NULL,
        context TEXT NOT NULL,
        target TEXT NOT NULL,
        policy TEXT NOT NULL,
        principal TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        outcome TEXT CHECK (outcome IN ('complete', 'halted', 'cancelled', 'refused', 'interrupted')),
        summary TEXT
      ) STRICT;
      CREATE INDEX open_runs ON runs (run_id) WHERE ended_at IS NULL;

      -- The audit: it refers to nothing, so that nothing can keep a row out or take one away.
      CREATE TABLE commands (
        command_id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL,
        node_id TEXT NOT NULL,
        tenant_id TEXT NOT NULL,
        tool TEXT NOT NULL,
        context TEXT NOT NULL,
        principal TEXT NOT NULL,
        command_digest BLOB NOT NULL,
        command_body BLOB NOT NULL,
        dispatched_at INTEGER NOT NULL,
        ended_at INTEGER,
        outcome TEXT CHECK (outcome IN ('ok', 'err', 'timed_out', 'cancelled', 'edge_disconnected', 'not_started')),
        result BLOB,
        receipt_signature BLOB,
        receipt_key_id BLOB,
        receipt TEXT CHECK (receipt IN ('verified', 'peer_id_only', 'missing', 'invalid')),
        output_complete INTEGER NOT NULL CHECK (output_complete IN (0, 1))
      ) STRICT;
      CREATE INDEX commands_of_run ON commands (run_id, dispatched_at);
      CREATE INDEX commands_of_node ON commands (node_id, dispatched_at);
      CREATE INDEX open_commands ON commands (command_id) WHERE ended_at IS NULL;
    `,
  },
  {
    version: 2,
    sql: `
      ALTER TABLE tenants ADD COLUMN removed_at INTEGER;
      ALTER TABLE runs ADD COLUMN resolved TEXT NOT NULL DEFAULT '[]';
      ALTER TABLE runs ADD COLUMN skipped TEXT NOT NULL DEFAULT '[]';
      CREATE INDEX runs_of_tenant ON runs (tenant_id, started_at, run_id);
      CREATE INDEX nodes_by_enrollment ON nodes (tenant_id, enrolled_at, node_id);

      CREATE TABLE groups (
        group_id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id),
        name TEXT NOT NULL,
        selector TEXT NOT NULL,
        pinned_members TEXT NOT NULL,
        created_by TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        version INTEGER NOT NULL,
        UNIQUE (tenant_id, name)
      ) STRICT;

      CREATE TABLE idempotency_keys (
        tenant_id TEXT NOT NULL,
        principal TEXT NOT NULL,
        key TEXT NOT NULL,
        body_hash BLOB NOT NULL,
        run_id TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, principal, key)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
    `,
  },
  {
    version: 3,
    sql: `
      -- Every change of a node's key or token that the node asked for. Rows are never removed: a request counts once, and
      -- from the first key on each key is vouched for by the one before it.
      CREATE TABLE rotations (
        node_id TEXT NOT NULL REFERENCES nodes (node_id),
        nonce BLOB NOT NULL,
        rotated_at INTEGER NOT NULL,
        old_key BLOB NOT NULL,
        new_key BLOB NOT NULL,
        request BLOB NOT NULL,
        old_signature BLOB NOT NULL,
        new_signature BLOB NOT NULL,
        overlap_until INTEGER NOT NULL,
        PRIMARY KEY (node_id, nonce)
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX rotations_of_node ON rotations (node_id, rotated_at);
    `,
  },
  {
    version: 4,
    sql: `
      CREATE TABLE audit (
        row INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        tenant_id TEXT NOT NULL,
        principal TEXT NOT NULL,
        node_id TEXT NOT NULL,
        detail TEXT NOT NULL,
        receipt TEXT NOT NULL,
        previous BLOB NOT NULL,
        hash BLOB NOT NULL
      ) STRICT;
      CREATE INDEX audit_of_tenant ON audit (tenant_id, row);
      -- Nobody's mistake changes what happened. Who means to can drop these; the chain shows it.
      CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are final'); END;
      CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are final'); END;

      CREATE TABLE audit_checkpoints (
        last_row INTEGER PRIMARY KEY,
        head BLOB NOT NULL,
        time_ms INTEGER NOT NULL,
        signature BLOB NOT NULL,
        key_id BLOB NOT NULL
      ) STRICT;
    `,
  },
  {
    version: 5,
    sql: `
      -- The keyset that follows the newest once the hosts know that one; signed already, because the root key may be away.
      CREATE TABLE planned_keyset (
        version INTEGER PRIMARY KEY,
        signed BLOB NOT NULL,
        root_key BLOB NOT NULL,
        created_at INTEGER NOT NULL
      ) STRICT;
      -- The newest keyset that each node has said it trusts.
      CREATE TABLE known_keysets (
        node_id TEXT PRIMARY KEY REFERENCES nodes (node_id),
        version INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;
    `,
  },
];
