/** `controller tenant ls`: who owns hosts here. */
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { table } from "../terminal.ts";
import { withStore } from "./beside.ts";

export default command({
  example: "aegis controller tenant ls",
  details: "A tenant exists from its first token: aegis controller token create --tenant NAME.",
  args: { "data-dir": dataDirFlag, output: outputFlag },
  async run(given) {
    const { args } = given;
    const shown = await withStore(controllerDir(args["data-dir"], given), async (store) => {
      const tenants = await store.tenants();
      return await Promise.all(
        tenants.map(async ({ tenantId, createdAt }) => ({
          tenant_id: tenantId,
          created_at: new Date(createdAt).toISOString(),
          hosts: (await store.nodes(tenantId)).filter(({ revokedAt }) => revokedAt === null).length,
          tokens: (await store.apiTokens(tenantId)).filter(({ revokedAt }) => revokedAt === null).length,
        })),
      );
    });
    await printResult(given, args.output, shown, () =>
      table(
        ["TENANT", "HOSTS", "TOKENS", "SINCE"],
        shown.map((one) => [one.tenant_id, String(one.hosts), String(one.tokens), one.created_at]),
      ),
    );
    return undefined;
  },
});
