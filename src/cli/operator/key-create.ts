/** `operator key create`: the key with which this operator signs calls; made here, and it stays here. */
import { AegisError } from "../../errors.ts";
import { createOperatorKey, refuseSecondKey } from "../../identity/operator-key.ts";
import { operatorKeyPath } from "../../identity/operator-key-path.ts";
import { command, type Surroundings } from "../command.ts";
import { outputFlag, printResult } from "../options.ts";
import { operatorKeyRecord, operatorKeyText } from "./key-show.ts";

export default command({
  example: "aegis operator key create",
  details: `Hosts whose owner adds it to trusted_operators run what it signs, if their policy allows it too. Whoever can read
the file ~/.aegis/operator.key can sign, unless a passphrase locks it. It is asked for here, and at each signature.`,
  args: { output: outputFlag },
  async run(given) {
    await refuseSecondKey(given);
    const passphrase = await newPassphrase(given);
    const key = await createOperatorKey(given, passphrase);
    await printResult(given, given.args.output, operatorKeyRecord(key, given), () => operatorKeyText(key, given));
    const how = passphrase === "" ? "readable by you alone, and not locked" : "locked with the passphrase";
    given.terminal.note(`kept in ${operatorKeyPath(given)}, ${how}; no copy exists`);
    return undefined;
  },
});

/** Empty where nobody can be asked, or who is asked wants none. */
async function newPassphrase({ terminal, stop }: Surroundings): Promise<string> {
  const first = await terminal.hidden("passphrase for the key (empty for none): ", stop);
  if (!first) return "";
  if ((await terminal.hidden("the same again: ", stop)) === first) return first;
  throw new AegisError("usage", "the two passphrases differ; no key was made");
}
