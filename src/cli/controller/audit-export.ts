/** `controller audit export`: the whole record as JSON lines, for somebody who does not trust this machine. */
import { loadControllerConfig } from "../../config/controller.ts";
import { exportAudit } from "../../controller/audit-record.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag } from "../options.ts";

/** Lines are written together up to so many characters. */
const pieceChars = 64 * 1024;

export default command({
  example: "aegis controller audit export > audit.jsonl",
  details:
    "A head, then rows with the seals between them. Anyone checks it without this controller: aegis controller audit verify FILE.",
  args: { "data-dir": dataDirFlag },
  async run(given) {
    const { args, terminal, stop } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    const { controllerId } = await loadControllerConfig(dataDir);
    let piece = "";
    for await (const line of exportAudit({ dataDir, controllerId })) {
      piece += `${line}\n`;
      if (piece.length < pieceChars) continue;
      await terminal.data(piece);
      piece = "";
      if (stop.aborted) return 1;
    }
    await terminal.data(piece);
    return undefined;
  },
});
