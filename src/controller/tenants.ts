/** Who owns hosts: which tenants there are, and how one goes with everything it had. */
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Queries, Store } from "../store/store.ts";
import { recordAudit } from "./audit.ts";
import { onDatabase } from "./database.ts";
import type { Revocations } from "./revocations.ts";

export interface TenantAdmin {
  /** Its hosts and tokens are revoked, and their streams cut. False when there is no such tenant. */
  remove(tenantId: string, by: string): Promise<boolean>;
}

export function createTenantAdmin({
  store,
  revocations,
  time,
  log,
}: {
  store: Store;
  revocations: Revocations;
  time: () => number;
  log: Log;
}): TenantAdmin {
  return {
    async remove(tenantId, by) {
      if (!(await store.transaction((tx) => removeAll(tx, tenantId, time(), by)))) return false;
      log.warn("tenant_removed", { tenant_id: tenantId, principal: by });
      await revocations.enforce();
      return true;
    },
  };
}

async function removeAll(tx: Queries, tenantId: string, at: number, by: string): Promise<boolean> {
  if (!(await tx.removeTenant(tenantId, at))) return false;
  await recordAudit(tx, { at, kind: "tenant_removed", tenantId, principal: by, detail: {} });
  return true;
}

/** Removes a tenant from a data directory. A controller that runs notices within a second and cuts the streams. */
export const removeTenant = ({
  dataDir,
  tenantId,
  clock,
}: {
  dataDir: string;
  tenantId: string;
  clock: Clock;
}): Promise<boolean> =>
  onDatabase(dataDir, (store) => store.transaction((tx) => removeAll(tx, tenantId, clock.now(), "")));
