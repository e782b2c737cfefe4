/** What operators do to hosts themselves: name them, tag them, tell them how to run, and take them out for good. */
import { createHash } from "node:crypto";
import { apiLimits } from "../api/limits.ts";
import type { HostPatch, PushConfig } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { Log } from "../platform/log.ts";
import type { NodeRow, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { jsonToStruct } from "../wire/json.ts";
import { toLong } from "../wire/whole.ts";
import { recordAudit } from "./audit.ts";
import type { Principal } from "./dispatch-types.ts";
import { type KnownHost, knownHost } from "./host-view.ts";
import type { Sessions } from "./sessions.ts";
import type { Targets } from "./targets.ts";

const { DrainReason, GoodbyeReason } = aegis.cluster.v1;
type EdgeCommand = aegis.cluster.v1.EdgeCommand.$Properties;

/** Called with the tag of what is about to change; throws when the caller has seen something else. */
export type Precondition = (currentTag: string) => void;

export interface Inventory {
  describe(by: Principal, name: string, patch: HostPatch, seen: Precondition): Promise<KnownHost>;
  retag(by: Principal, name: string, change: { add: readonly string[]; remove: readonly string[] }): Promise<KnownHost>;
  /** Twice is the same as once. */
  revoke(by: Principal, name: string, seen: Precondition): Promise<void>;
  /** Each throws `edge_unavailable` for a host without a stream, and gives the node's id. */
  pushConfig(by: Principal, name: string, config: PushConfig): Promise<string>;
  drain(by: Principal, name: string, finishWithinMs: number): Promise<string>;
  shutdown(by: Principal, name: string): Promise<string>;
}

export interface InventoryOptions {
  store: Store;
  sessions: Pick<Sessions, "end" | "tell">;
  targets: Targets;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
}

/** The ETag of what operators can change about a host; heartbeats do not touch it. */
export const hostTag = ({ displayName, tags, revokedAt }: NodeRow): string =>
  `"${createHash("sha256")
    .update(JSON.stringify([displayName, tags, revokedAt]))
    .digest("hex")
    .slice(0, 16)}"`;

export function createInventory({ store, sessions, targets, time, log }: InventoryOptions): Inventory {
  async function change(
    by: Principal,
    name: string,
    seen: Precondition,
    next: (row: NodeRow) => Pick<NodeRow, "displayName" | "tags">,
  ): Promise<KnownHost> {
    const { nodeId } = (await targets.find(by.tenantId, name)).row;
    const row = await store.transaction(async (tx) => {
      const row = await tx.node(nodeId);
      if (!row || row.revokedAt !== null)
        throw new AegisError("conflict", `host ${nodeId} is revoked and changes no more`, {
          hint: `enroll it again: aegis edge token issue --for ${nodeId}`,
        });
      seen(hostTag(row));
      const description = next(row);
      if (description.tags.length > apiLimits.tags)
        throw new AegisError("invalid_request", `a host has ${apiLimits.tags} tags at most`);
      await tx.describeNode(nodeId, description);
      const detail = { name: description.displayName, tags: description.tags };
      await recordAudit(tx, { at: time(), kind: "host_changed", ...who(by), nodeId, detail });
      return { ...row, ...description };
    });
    log.info("host_changed", { node_id: nodeId, principal: by.name, tags: row.tags, name: row.displayName });
    return knownHost(row);
  }

  async function tell(
    by: Principal,
    name: string,
    command: EdgeCommand,
    detail: Record<string, unknown>,
    heartbeatIntervalMs?: number,
  ): Promise<string> {
    const host = await targets.find(by.tenantId, name);
    const { nodeId } = host.row;
    if (!sessions.tell(nodeId, command, heartbeatIntervalMs))
      throw new AegisError("edge_unavailable", `the host ${host.name} is not connected`, { hint: "aegis edge ls" });
    await recordAudit(store, { at: time(), kind: "host_told", ...who(by), nodeId, detail });
    log.info("host_told", { node_id: nodeId, principal: by.name, ...detail });
    return nodeId;
  }

  const who = ({ tenantId, name: principal }: Principal) => ({ tenantId, principal });

  return {
    describe: (by, name, patch, seen) =>
      change(by, name, seen, (row) => ({
        displayName: patch.name ?? row.displayName,
        tags: patch.tags ? [...new Set(patch.tags)] : row.tags,
      })),
    retag: (by, name, { add, remove }) =>
      change(
        by,
        name,
        () => {},
        (row) => ({
          displayName: row.displayName,
          tags: [...new Set([...row.tags.filter((tag) => !remove.includes(tag)), ...add])],
        }),
      ),
    async revoke(by, name, seen) {
      const { row } = await targets.find(by.tenantId, name);
      const { nodeId } = row;
      const revoked = await store.transaction(async (tx) => {
        const current = await tx.node(nodeId);
        if (current?.revokedAt !== null) return false;
        seen(hostTag(current));
        await recordAudit(tx, {
          at: time(),
          kind: "host_revoked",
          ...who(by),
          nodeId,
          detail: { name: current.hostName },
        });
        return await tx.revokeNode(nodeId, time());
      });
      // Also where it was revoked before: whatever stream there is must go.
      sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REVOKED, "this host was revoked");
      if (revoked) log.info("host_revoked", { node_id: nodeId, tenant_id: by.tenantId, principal: by.name });
    },
    pushConfig: (by, name, config) => {
      const interval = config.heartbeat_interval_secs;
      const command = { pushConfig: { mergedConfigDelta: jsonToStruct({ ...config }) } };
      return tell(by, name, command, { config }, interval === undefined ? undefined : interval * 1000);
    },
    drain: (by, name, finishWithinMs) => {
      const drain = { reason: DrainReason.DRAIN_REASON_MAINTENANCE, finishWithinMs: toLong(finishWithinMs) };
      return tell(by, name, { drain }, { drain: { finish_within_ms: finishWithinMs } });
    },
    shutdown: (by, name) => {
      const shutdown = { reason: DrainReason.DRAIN_REASON_MAINTENANCE, detail: `asked for by ${by.name}` };
      return tell(by, name, { shutdown }, { shutdown: true });
    },
  };
}
