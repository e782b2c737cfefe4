/** `edge fleet run`: one tool call on every host of a target, told as it happens. */
import { command } from "../command.ts";
import { outputFlag } from "../options.ts";
import { fleetRunFlags, invokeRequest } from "./fleet-flags.ts";
import { runOnFleet, yesFlag } from "./fleet-request.ts";

export default command({
  example: "aegis edge fleet run --target all --tool cmd.run --arg command=uptime --yes",
  details: `Ends with 0 when every host that was asked succeeded, 6 when one failed or the run was halted, 7 when it was
cancelled, 8 when hosts only ran out of time, 9 below --require-min, 5 when no host could be reached. Ctrl-C cancels.
Hosts that run only what an operator has signed get your signature, if you have a key: aegis operator key create.`,
  args: {
    ...fleetRunFlags,
    yes: yesFlag,
    output: outputFlag,
  },
  run(given) {
    const texts = given.every("arg");
    return runOnFleet(invokeRequest(given.args, texts), given, { ...given.args, isText: texts.length > 0 });
  },
});
