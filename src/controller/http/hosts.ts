/** The tenant's hosts: the list, and one of them. */
import type { Hono } from "hono";
import type { z } from "zod";
import { type Host, hostsQuerySchema, type Page } from "../../api/types.ts";
import type { Store } from "../../store/store.ts";
import type { LiveNodes } from "../dispatch-types.ts";
import { hostDetail, hostStatus, hostView, type KnownHost, knownHost } from "../host-view.ts";
import type { Targets } from "../targets.ts";
import { requireScope } from "./auth.ts";
import { readCursor, writeCursor } from "./cursor.ts";
import { type HttpEnv, pathId, readQuery } from "./request.ts";

export interface HostRoutes {
  store: Store;
  nodes: LiveNodes;
  targets: Targets;
}

const recentCommands = 20;
/** Rows read at a time while a page is filled. */
const stride = 500;

export function hostRoutes(app: Hono<HttpEnv>, { store, nodes, targets }: HostRoutes): void {
  app.get("/v1/edge/hosts", async (c) => {
    const { tenantId } = requireScope(c.var.principal, "aegis.edge.hosts.read");
    const query = readQuery(c, hostsQuerySchema, ["tag", "label"]);
    const start = readCursor("hosts", tenantId, query.cursor);
    const page: Page<Host> = { items: [], next_cursor: null };
    let after = start && { enrolledAt: start.at, nodeId: start.id };
    for (;;) {
      const rows = await store.nodesPage(tenantId, after, stride);
      for (const row of rows) {
        if (page.items.length === query.limit && after) {
          page.next_cursor = writeCursor("hosts", tenantId, { at: after.enrolledAt, id: after.nodeId });
          return c.json(page);
        }
        const host = knownHost(row);
        if (wanted(query, host, nodes)) page.items.push(hostView(host, nodes));
        after = { enrolledAt: row.enrolledAt, nodeId: row.nodeId };
      }
      if (rows.length < stride) return c.json(page);
    }
  });

  app.get("/v1/edge/hosts/:id", async (c) => {
    const { tenantId } = requireScope(c.var.principal, "aegis.edge.hosts.read");
    const host = await targets.find(tenantId, pathId(c));
    return c.json(hostDetail(host, nodes, await store.recentCommands(host.row.nodeId, recentCommands)));
  });
}

function wanted(query: z.output<typeof hostsQuerySchema>, { row, facts }: KnownHost, nodes: LiveNodes): boolean {
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
