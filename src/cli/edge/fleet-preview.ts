/** `edge fleet preview`: which hosts a target means now, and which of them would be left out. */
import { parseTarget } from "../../api/target-text.ts";
import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { table } from "../terminal.ts";
import { targetFlag } from "./fleet-flags.ts";

export default command({
  example: "aegis edge fleet preview --target 'os=linux tags=prod'",
  args: { target: targetFlag, output: outputFlag },
  async run(given) {
    const { args } = given;
    const target = parseTarget(args.target);
    const client = await connect(given);
    const preview = await client.preview(target);
    await printResult(given, args.output, preview, () =>
      table(
        ["NAME", "NODE", "STATUS", "SKIPPED"],
        [
          ...preview.resolved.map((host) => [host.name, host.node_id.slice(0, 8), host.status, ""]),
          ...preview.skipped.map((host) => [host.name, host.node_id.slice(0, 8), "", host.reason]),
        ],
      ),
    );
    return undefined;
  },
});
