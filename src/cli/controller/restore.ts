/** `controller restore`: a controller from its backup, with every host and operator it had. */
import { restoreController } from "../../controller/backup.ts";
import { systemClock } from "../../platform/clock.ts";
import { resolveFrom } from "../../platform/paths.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis controller restore aegis.backup",
  details: `Into a directory that is empty or not there. Hosts come back by themselves once the controller is started where the public
endpoint leads. Two copies must never run at once.`,
  args: {
    file: { type: "positional", valueHint: "FILE", description: "made by controller backup" },
    "data-dir": dataDirFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args, home, terminal } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    const file = resolveFrom(process.cwd(), args.file, home);
    const { controllerId, madeAt, version } = await restoreController({ dataDir, file, clock: systemClock });
    const shown = {
      controller_id: controllerId,
      data_dir: dataDir,
      made_at: new Date(madeAt).toISOString(),
      made_by: version,
    };
    await printResult(given, args.output, shown, () =>
      facts([
        ["controller", shown.controller_id],
        ["data", shown.data_dir],
        ["as of", shown.made_at],
        ["made by", `aegis ${shown.made_by}`],
      ]),
    );
    terminal.note(`next: aegis controller start${args["data-dir"] ? ` --data-dir ${dataDir}` : ""}`);
    return undefined;
  },
});
