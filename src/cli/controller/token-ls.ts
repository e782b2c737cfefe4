/** `controller token ls`: who may use this controller's API, and for how long. */
import type { ApiTokenRow } from "../../store/store.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { table } from "../terminal.ts";
import { withStore } from "./beside.ts";

export default command({
  example: "aegis controller token ls",
  details: "Tokens themselves are not kept, so they cannot be shown.",
  args: {
    "data-dir": dataDirFlag,
    tenant: { type: "string", valueHint: "NAME", default: "default", description: "whose tokens" },
    output: outputFlag,
  },
  async run(given) {
    const { args } = given;
    const rows = await withStore(controllerDir(args["data-dir"], given), (store) => store.apiTokens(args.tenant));
    const shown = rows.map(record);
    await printResult(given, args.output, shown, () =>
      table(
        ["NAME", "ID", "STATE", "SCOPES", "CONTEXTS", "EXPIRES", "LAST USED"],
        shown.map((one) => [
          ...[one.name, one.id, one.revoked_at ? "revoked" : one.expired ? "expired" : "valid"],
          ...[one.scopes.join(","), one.contexts.join(","), one.expires_at ?? "never", one.last_used_at ?? "never"],
        ]),
      ),
    );
    return undefined;
  },
});

const time = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

const record = (row: ApiTokenRow) => ({
  id: row.tokenId,
  name: row.name,
  tenant_id: row.tenantId,
  scopes: row.scopes,
  contexts: row.contexts,
  created_at: time(row.createdAt),
  expires_at: time(row.expiresAt),
  expired: row.expiresAt !== null && row.expiresAt <= Date.now(),
  last_used_at: time(row.lastUsedAt),
  revoked_at: time(row.revokedAt),
});
