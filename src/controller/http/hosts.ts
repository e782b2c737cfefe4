/** The tenant's hosts over HTTP: the list, one of them, and what operators do to it. */

import type { QueryOf } from "../../api/operations.ts";
import type { Host, Page } from "../../api/types.ts";
import type { Store } from "../../store/store.ts";
import type { LiveNodes } from "../dispatch-types.ts";
import { hostDetail, hostStatus, hostView, type KnownHost, knownHost } from "../host-view.ts";
import { hostTag, type Inventory } from "../inventory.ts";
import type { Targets } from "../targets.ts";
import { readCursor, writeCursor } from "./cursor.ts";
import { type Routes, requireMatch, route } from "./route.ts";

export interface HostRoutes {
  store: Store;
  nodes: LiveNodes;
  targets: Targets;
  inventory: Inventory;
}

const recentCommands = 20;
/** Rows read at a time while a page is filled. */
const stride = 500;

export function hostRoutes(app: Routes, { store, nodes, targets, inventory }: HostRoutes): void {
  route(app, "listHosts", async ({ tenantId, query }) => {
    const start = readCursor("hosts", tenantId, query.cursor);
    const page: Page<Host> = { items: [], next_cursor: null };
    let after = start && { enrolledAt: start.at, nodeId: start.id };
    for (;;) {
      const rows = await store.nodesPage(tenantId, after, stride);
      for (const row of rows) {
        if (page.items.length === query.limit && after) {
          page.next_cursor = writeCursor("hosts", tenantId, { at: after.enrolledAt, id: after.nodeId });
          return page;
        }
        const host = knownHost(row);
        if (wanted(query, host, nodes)) page.items.push(hostView(host, nodes));
        after = { enrolledAt: row.enrolledAt, nodeId: row.nodeId };
      }
      if (rows.length < stride) return page;
    }
  });

  route(app, "getHost", async ({ c, tenantId, id }) => {
    const host = await targets.find(tenantId, id);
    c.header("etag", hostTag(host.row));
    const { nodeId } = host.row;
    const [recent, rotations] = [await store.recentCommands(nodeId, recentCommands), await store.rotations(nodeId, 0)];
    return hostDetail(host, nodes, recent, rotations);
  });

  const seen = (ifMatch: readonly string[] | null) => (tag: string) => requireMatch(ifMatch, tag, "the host");

  route(app, "patchHost", async ({ c, principal, id, body, ifMatch }) => {
    const host = await inventory.describe(principal, id, body, seen(ifMatch));
    c.header("etag", hostTag(host.row));
    return hostView(host, nodes);
  });
  route(app, "changeHostTags", async ({ c, principal, id, body }) => {
    const host = await inventory.retag(principal, id, body);
    c.header("etag", hostTag(host.row));
    return hostView(host, nodes);
  });
  route(app, "revokeHost", async ({ principal, id, ifMatch }) => {
    await inventory.revoke(principal, id, seen(ifMatch));
    return null;
  });
  route(app, "pushHostConfig", async ({ principal, id, body }) => ({
    node_id: await inventory.pushConfig(principal, id, body),
  }));
  route(app, "drainHost", async ({ principal, id, body }) => ({
    node_id: await inventory.drain(principal, id, body.finish_within_ms ?? 0),
  }));
  route(app, "shutdownHost", async ({ principal, id }) => ({ node_id: await inventory.shutdown(principal, id) }));
}

function wanted(query: QueryOf<"listHosts">, { row, facts }: KnownHost, nodes: LiveNodes): boolean {
  const status = hostStatus(row, nodes);
  if (status === "revoked" && !query.all) return false;
  if (query.connected !== undefined && query.connected !== (status === "connected")) return false;
  if (!query.tag.every((tag) => row.tags.includes(tag))) return false;
  return query.label.every((label) => {
    const at = label.indexOf("=");
    const key = label.slice(0, at);
    return Object.hasOwn(facts.labels, key) && facts.labels[key] === label.slice(at + 1);
  });
}
