/** Tenants over HTTP: a token sees its own and no other. */
import { AegisError } from "../../errors.ts";
import type { Store } from "../../store/store.ts";
import { isoTime } from "../host-view.ts";
import type { TenantAdmin } from "../tenants.ts";
import { readCursor } from "./cursor.ts";
import { type Routes, route } from "./route.ts";

export interface TenantRoutes {
  store: Store;
  tenants: TenantAdmin;
}

export function tenantRoutes(app: Routes, { store, tenants }: TenantRoutes): void {
  route(app, "listTenants", async ({ tenantId, query }) => {
    readCursor("tenants", tenantId, query.cursor);
    const row = await store.tenant(tenantId);
    return { items: row ? [{ tenant_id: row.tenantId, created_at: isoTime(row.createdAt) }] : [], next_cursor: null };
  });

  route(app, "removeTenant", async ({ principal, tenantId, id }) => {
    if (id !== tenantId || !(await tenants.remove(tenantId, principal.name)))
      throw new AegisError("not_found", `no tenant ${JSON.stringify(id)} for this token`, {
        hint: "on the controller: aegis controller tenant ls",
      });
    return null;
  });
}
