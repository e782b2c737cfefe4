/** Groups over HTTP: hosts by what they are or by name, kept under a name of their own. */
import { randomUUID } from "node:crypto";
import type { HostGroup } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import type { GroupRow, Queries, Store } from "../../store/store.ts";
import { recordAudit } from "../audit.ts";
import type { LiveNodes, Principal } from "../dispatch-types.ts";
import { hostStatus, isoTime } from "../host-view.ts";
import { groupSelector, type Targets } from "../targets.ts";
import { onePage, readCursor } from "./cursor.ts";
import { type Routes, requireMatch, route } from "./route.ts";

export interface GroupRoutes {
  store: Store;
  nodes: LiveNodes;
  targets: Targets;
  /** Controller time in milliseconds. */
  time: () => number;
}

const groupTag = ({ version }: GroupRow): string => `"${version}"`;

export function groupRoutes(app: Routes, { store, nodes, targets, time }: GroupRoutes): void {
  async function view(row: GroupRow): Promise<HostGroup> {
    const selector = groupSelector(row);
    const members = await targets.members(row.tenantId, { selector, pinnedMembers: row.pinnedMembers });
    return {
      ...{ id: row.groupId, name: row.name, selector, pinned_members: [...row.pinnedMembers] },
      ...{ created_by: row.createdBy, created_at: isoTime(row.createdAt) },
      resolved_members: members.map(({ row: node, name }) => ({
        ...{ node_id: node.nodeId, name, status: hostStatus(node, nodes) },
      })),
    };
  }

  /** Ids of hosts that exist: a group never waits for one that may come. */
  const pinned = async (tenantId: string, names: readonly string[]): Promise<string[]> => {
    const hosts = await Promise.all(names.map((name) => targets.find(tenantId, name)));
    const gone = hosts.find(({ row }) => row.revokedAt !== null);
    if (gone) throw new AegisError("conflict", `host ${gone.row.nodeId} is revoked`, { hint: "aegis edge ls" });
    return [...new Set(hosts.map(({ row }) => row.nodeId))];
  };

  const definition = ({ selector, pinnedMembers }: GroupRow) => ({
    selector: JSON.parse(selector) as unknown,
    pinned_members: pinnedMembers,
  });
  const changed = (tx: Queries, { tenantId, name: principal }: Principal, detail: Record<string, unknown>) =>
    recordAudit(tx, { at: time(), kind: "group_changed", tenantId, principal, detail });

  async function find(tenantId: string, id: string): Promise<GroupRow> {
    const row = await store.group(tenantId, id);
    if (row) return row;
    throw new AegisError("not_found", `no group ${JSON.stringify(id)} in this tenant`, { hint: "aegis edge group ls" });
  }

  route(app, "listGroups", async ({ tenantId, query }) => {
    const start = readCursor("groups", tenantId, query.cursor);
    const rows = await store.groups(tenantId, start && { createdAt: start.at, groupId: start.id }, query.limit + 1);
    const position = ({ createdAt, groupId }: GroupRow) => ({ at: createdAt, id: groupId });
    const page = onePage("groups", tenantId, { rows, limit: query.limit, position });
    return { ...page, items: await Promise.all(page.items.map(view)) };
  });

  route(app, "createGroup", async ({ c, principal, tenantId, body }) => {
    const row: GroupRow = {
      ...{ groupId: randomUUID(), tenantId, name: body.name, selector: JSON.stringify(body.selector) },
      pinnedMembers: await pinned(tenantId, body.pinned_members),
      ...{ createdBy: principal.name, createdAt: time(), version: 1 },
    };
    await store.transaction(async (tx) => {
      await tx.insertGroup(row);
      await changed(tx, principal, { made: { name: row.name, ...definition(row) } });
    });
    c.header("etag", groupTag(row));
    return await view(row);
  });

  route(app, "getGroup", async ({ c, tenantId, id }) => {
    const row = await find(tenantId, id);
    c.header("etag", groupTag(row));
    return await view(row);
  });

  route(app, "patchGroup", async ({ c, principal, tenantId, id, body, ifMatch }) => {
    const row = await find(tenantId, id);
    requireMatch(ifMatch, groupTag(row), `the group ${row.name}`);
    const next: GroupRow = {
      ...row,
      name: body.name ?? row.name,
      selector: body.selector ? JSON.stringify(body.selector) : row.selector,
      pinnedMembers: body.pinned_members ? await pinned(tenantId, body.pinned_members) : row.pinnedMembers,
    };
    const done = await store.transaction(async (tx) => {
      if (!(await tx.updateGroup(next))) return false;
      await changed(tx, principal, { name: row.name, to: { name: next.name, ...definition(next) } });
      return true;
    });
    if (!done)
      throw new AegisError("precondition_failed", `the group ${row.name} was changed by somebody else meanwhile`, {
        hint: "get it again, and repeat the change on what it is now",
      });
    const current = { ...next, version: row.version + 1 };
    c.header("etag", groupTag(current));
    return await view(current);
  });

  route(app, "deleteGroup", async ({ principal, tenantId, id, ifMatch }) => {
    const row = await find(tenantId, id);
    requireMatch(ifMatch, groupTag(row), `the group ${row.name}`);
    await store.transaction(async (tx) => {
      if (await tx.deleteGroup(row.groupId)) await changed(tx, principal, { removed: row.name });
    });
    return null;
  });
}
