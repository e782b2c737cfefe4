/** `edge fleet cancel`: stops a run on every host it still runs on. */

import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";

export default command({
  example: "aegis edge fleet cancel 0b9f3c1e-7d0f-4f0e-9d0a-6d1c2a3b4c5d",
  args: {
    run: { type: "positional", valueHint: "RUN", description: "the run's id, as fleet run prints it" },
    output: outputFlag,
  },
  async run(given) {
    const client = await connect(given);
    const answer = await client.cancel(given.args.run, "cancelled by an operator");
    await printResult(
      given,
      given.args.output,
      answer,
      () => `${answer.cancelled} cancelled, ${answer.already_terminal} had ended before\n`,
    );
    return undefined;
  },
});
