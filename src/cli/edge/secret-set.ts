/** `edge secret set`: keeps a value on this host, for tools whose policy hands it to them. */
import { maxSecretBytes, openSecrets } from "../../identity/secrets.ts";
import { command } from "../command.ts";
import { edgeDir, stateDirFlag } from "../options.ts";
import { readValue } from "../secret-input.ts";
import { enrolledDir } from "./enrolled.ts";

export default command({
  example: "aegis edge secret set db_password < password.txt",
  details: `The value comes from stdin or from FILE, and is never printed; one line break at its end is dropped. It lies in a file
that only this user can read, which is its only protection. A capability's secret_env gives it to a command.`,
  args: {
    name: { type: "positional", valueHint: "NAME", description: "how the policy calls it" },
    file: {
      type: "positional",
      valueHint: "FILE",
      required: false,
      description: "where the value stands (default: stdin)",
    },
    "state-dir": stateDirFlag,
  },
  async run(given) {
    const { args, terminal } = given;
    const secrets = openSecrets(await enrolledDir(edgeDir(args["state-dir"], given)));
    const outcome = await secrets.set(args.name, await readValue(args.name, args.file, maxSecretBytes, given));
    terminal.note(`${args.name} is ${outcome === "created" ? "set" : "replaced"}`);
    return undefined;
  },
});
