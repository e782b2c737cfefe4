/** `edge fleet keys rotate`: each host of a target proves itself with a new key from now on. */
import { parseTarget } from "../../api/target-text.ts";
import { invokeRequestSchema } from "../../api/types.ts";
import { command } from "../command.ts";
import { outputFlag } from "../options.ts";
import { runOnFleet, yesFlag } from "./fleet-request.ts";

export default command({
  example: "aegis edge fleet keys rotate --target tags=prod --yes",
  details: `Each host draws its own key and tells nobody; no call and no stream ends. A host that fails goes on with the key it has,
and the others go on too. Hosts need a context operator that allows aegis.keys.rotate.`,
  args: {
    target: { type: "string", valueHint: "EXPR", required: true, description: "@NODE, group:NAME, all, or a selector" },
    yes: yesFlag,
    output: outputFlag,
  },
  run: (given) =>
    runOnFleet(
      invokeRequestSchema.parse({
        ...{ target: parseTarget(given.args.target), tool: "aegis.keys.rotate", context: "operator" },
        policy: { on_error: "continue" },
      }),
      given,
      given.args,
    ),
});
