/** The audit over HTTP: the tenant's own rows. Whether the chain holds is checked on the whole of it, on the controller. */
import type { AuditRecord } from "../../api/types.ts";
import type { AuditRow, Store } from "../../store/store.ts";
import { isoTime } from "../host-view.ts";
import { onePage, readCursor } from "./cursor.ts";
import { type Routes, route } from "./route.ts";

export function auditRoutes(app: Routes, { store }: { store: Store }): void {
  route(app, "listAudit", async ({ tenantId, query }) => {
    const after = readCursor("audit", tenantId, query.cursor)?.at ?? 0;
    const since = query.since === undefined ? {} : { since: Date.parse(query.since) };
    const rows = await store.audit({ after, tenantId, ...since }, query.limit + 1);
    const position = ({ row }: AuditRow) => ({ at: row, id: "" });
    const page = onePage("audit", tenantId, { rows, limit: query.limit, position });
    return { ...page, items: page.items.map(view) };
  });
}

const view = (row: AuditRow): AuditRecord => ({
  ...{ row: row.row, at: isoTime(row.at), kind: row.kind, tenant_id: row.tenantId },
  ...{ principal: row.principal || null, node_id: row.nodeId || null },
  detail: JSON.parse(row.detail) as Record<string, unknown>,
  receipt: row.receipt === "" ? null : (JSON.parse(row.receipt) as Record<string, unknown>),
  hash: Buffer.from(row.hash).toString("hex"),
  prev: Buffer.from(row.previous).toString("hex"),
});
