/** `edge secret ls`: the names of this host's secrets, and nothing of their values. */
import { openSecrets } from "../../identity/secrets.ts";
import { command } from "../command.ts";
import { edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { enrolledDir } from "./enrolled.ts";

export default command({
  example: "aegis edge secret ls",
  args: { "state-dir": stateDirFlag, output: outputFlag },
  async run(given) {
    const names = await openSecrets(await enrolledDir(edgeDir(given.args["state-dir"], given))).list();
    await printResult(given, given.args.output, names, () => names.map((name) => `${name}\n`).join(""));
    return undefined;
  },
});
