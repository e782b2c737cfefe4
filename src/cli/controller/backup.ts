/** `controller backup`: everything that makes this controller, in one private file. */
import { backupController } from "../../controller/backup.ts";
import { systemClock } from "../../platform/clock.ts";
import { resolveFrom } from "../../platform/paths.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis controller backup aegis.backup",
  details: `Works beside a running controller. The file holds its private keys: it is made 0600, and must be kept as the controller
itself is. A root key that was made with --offline-root is not in it.`,
  args: {
    file: { type: "positional", valueHint: "FILE", description: "a new file; a backup never replaces another" },
    "data-dir": dataDirFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args, home } = given;
    const file = resolveFrom(process.cwd(), args.file, home);
    const dataDir = controllerDir(args["data-dir"], given);
    const { files } = await backupController({ dataDir, file, clock: systemClock });
    await printResult(given, args.output, { file, data_dir: dataDir, files: ["controller.db", ...files] }, () =>
      facts([
        ["backup", file],
        ["of", dataDir],
        ["holds", ["controller.db", ...files].join(" ")],
      ]),
    );
    return undefined;
  },
});
