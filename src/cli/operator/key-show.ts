/** `operator key show`: the public half of this operator's key, as a host's owner needs it. */
import { fingerprint, type PublicKey } from "../../envelope/public-key.ts";
import { AegisError } from "../../errors.ts";
import { publicKeyText, readOperatorKey } from "../../identity/operator-key.ts";
import { operatorKeyPath } from "../../identity/operator-key-path.ts";
import { command, type Surroundings } from "../command.ts";
import { outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis operator key show -o json",
  args: { output: outputFlag },
  async run(given) {
    const stored = await readOperatorKey(given);
    if (!stored)
      throw new AegisError("not_found", `there is no key in ${operatorKeyPath(given)}`, {
        hint: "aegis operator key create",
      });
    const key = stored.publicKey;
    await printResult(given, given.args.output, operatorKeyRecord(key, given), () => operatorKeyText(key, given));
    return undefined;
  },
});

export const operatorKeyRecord = (key: PublicKey, place: Surroundings) => ({
  public_key: publicKeyText(key),
  fingerprint: fingerprint(key),
  path: operatorKeyPath(place),
});

export function operatorKeyText(key: PublicKey, place: Surroundings): string {
  const { public_key, fingerprint: print, path } = operatorKeyRecord(key, place);
  return `${facts([
    ["public key", public_key],
    ["fingerprint", print],
    ["file", path],
  ])}
On a host, its owner adds below spec: in the settings, and starts the daemon again:

  trusted_operators:
    - name: ${JSON.stringify(place.env.USER || place.env.USERNAME || "operator")}
      public_key: ${public_key}
`;
}
