/** `controller tenant rm`: a tenant goes, with every host and token it had. */
import { loadControllerConfig } from "../../config/controller.ts";
import { removeTenant } from "../../controller/tenants.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag } from "../options.ts";

export default command({
  example: "aegis controller tenant rm acme",
  details: `Its hosts and tokens are revoked for good; a controller that runs cuts their streams within a second. The name is never
given again. At a terminal you are asked first.`,
  args: {
    tenant: { type: "positional", valueHint: "NAME", description: "as controller tenant ls shows it" },
    "data-dir": dataDirFlag,
  },
  async run(given) {
    const { args, terminal, stop } = given;
    const tenantId = args.tenant;
    const dataDir = controllerDir(args["data-dir"], given);
    await loadControllerConfig(dataDir);
    if (
      terminal.interactive &&
      !(await terminal.confirm(`remove ${tenantId} with all its hosts and tokens, for good?`, stop))
    )
      throw new AegisError("cancelled", "nothing was removed");
    if (!(await removeTenant({ dataDir, tenantId, clock: systemClock })))
      throw new AegisError("not_found", `there is no tenant ${JSON.stringify(tenantId)}`, {
        hint: "aegis controller tenant ls",
      });
    terminal.note(`${tenantId} is removed; its hosts and tokens are revoked`);
    return undefined;
  },
});
