/** `operator key create`: the key with which this operator signs calls; made here, and it stays here. */
import { createOperatorKey, operatorKeyPath } from "../../identity/operator-key.ts";
import { command } from "../command.ts";
import { outputFlag, printResult } from "../options.ts";
import { operatorKeyRecord, operatorKeyText } from "./key-show.ts";

export default command({
  example: "aegis operator key create",
  details: `Hosts whose owner adds it to trusted_operators run what it signs, if their policy allows it too. Whoever can read
the file ~/.aegis/operator.key can sign.`,
  args: { output: outputFlag },
  async run(given) {
    const key = await createOperatorKey(given);
    await printResult(given, given.args.output, operatorKeyRecord(key, given), () => operatorKeyText(key, given));
    given.terminal.note(`kept in ${operatorKeyPath(given)}; no copy exists`);
    return undefined;
  },
});
