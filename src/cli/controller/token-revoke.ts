/** `controller token revoke`: a token is good for nothing from now on. */
import { endOperatorToken } from "../../controller/operator-tokens.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag } from "../options.ts";
import { withStore } from "./beside.ts";

export default command({
  example: "aegis controller token revoke 0b9f3c1e-7d0f-4f0e-9d0a-6d1c2a3b4c5d",
  args: {
    id: { type: "positional", valueHint: "ID", description: "as controller token ls shows it" },
    "data-dir": dataDirFlag,
    tenant: { type: "string", valueHint: "NAME", default: "default", description: "whose token" },
  },
  async run(given) {
    const { args, terminal } = given;
    await withStore(controllerDir(args["data-dir"], given), async (store) => {
      const known = (await store.apiTokens(args.tenant)).find(({ tokenId }) => tokenId === args.id);
      if (!known)
        throw new AegisError("not_found", `tenant ${args.tenant} has no token ${JSON.stringify(args.id)}`, {
          hint: `aegis controller token ls --tenant ${args.tenant}`,
        });
      const wanted = { tenantId: args.tenant, tokenId: args.id };
      const changed = await store.transaction((tx) => endOperatorToken(tx, wanted, systemClock.now()));
      terminal.note(
        changed ? `the token of ${known.name} is revoked` : `the token of ${known.name} was revoked already`,
      );
    });
    return undefined;
  },
});
