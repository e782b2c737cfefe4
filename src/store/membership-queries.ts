/** Who there is, in SQLite's words: tenants and their tokens, hosts and their groups, and the keys they trust. */
import { createHash } from "node:crypto";
import { AegisError } from "../errors.ts";
import { apiTokens, groups, keysets, nodes, plannedKeysets, rotations, tenants } from "./rows.ts";
import { asker, changer, type Perform } from "./sqlite.ts";
import type { MembershipQueries } from "./store.ts";

const replaceNode = `ON CONFLICT (node_id) DO UPDATE SET ${nodes.columns
  .filter(({ field }) => field !== "nodeId" && field !== "enrolledAt")
  .map(({ column }) => `${column} = excluded.${column}`)
  .join(", ")}`;

export function membershipQueries(perform: Perform, loosely: Perform): MembershipQueries {
  const change = changer(perform);
  const changes = asker(perform);
  const note = changer(loosely);
  const noted = asker(loosely);
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
    nodesNamed: (tenantId, name) =>
      perform((db) =>
        db.all(
          nodes,
          // What a host calls itself stands in its capabilities, as it is.
          `WHERE tenant_id = $tenantId AND (substr(node_id, 1, length($name)) = lower($name)
            OR $name IN (display_name, host_name, 'edge-' || substr(node_id, 1, 8)) OR instr(capabilities, $bytes) > 0)
            ORDER BY host_name, node_id`,
          { tenantId, name, bytes: Buffer.from(name) },
        ),
      ),
    nodeCount: () => perform((db) => db.value("SELECT count(*) FROM nodes WHERE revoked_at IS NULL", {}) as number),
    compatNodeCount: () =>
      perform(
        (db) => db.value("SELECT count(*) FROM nodes WHERE revoked_at IS NULL AND seal = 'compat'", {}) as number,
      ),
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
    nodeHeartbeats: (heard) =>
      loosely((db) =>
        db.together(() => {
          for (const [nodeId, at] of heard)
            db.run("UPDATE nodes SET last_heartbeat_at = $at WHERE node_id = $nodeId", { nodeId, at });
        }),
      ),
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
  };
}

const nameTaken = (name: string) =>
  new AegisError("conflict", `this tenant has a group ${JSON.stringify(name)} already`, {
    hint: "choose another name, or change that group: aegis edge group ls",
  });
