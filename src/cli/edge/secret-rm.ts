/** `edge secret rm`: forgets a value. */
import { openSecrets } from "../../identity/secrets.ts";
import { command } from "../command.ts";
import { edgeDir, stateDirFlag } from "../options.ts";
import { enrolledDir } from "./enrolled.ts";

export default command({
  example: "aegis edge secret rm db_password",
  args: {
    name: { type: "positional", valueHint: "NAME", description: "as secret ls shows it" },
    "state-dir": stateDirFlag,
  },
  async run(given) {
    const { args, terminal } = given;
    const removed = await openSecrets(await enrolledDir(edgeDir(args["state-dir"], given))).remove(args.name);
    terminal.note(removed ? `${args.name} is gone` : `there was no ${args.name}`);
    return undefined;
  },
});
