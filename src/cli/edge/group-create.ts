/** `edge group create`: a name for hosts that are alike. */
import { parseSelector } from "../../api/target-text.ts";
import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { groupsTable } from "./group-ls.ts";

export default command({
  example: "aegis edge group create web --selector 'os=linux tags=web'",
  details:
    "Hosts that fit are members from the moment they fit. Without a selector it has the hosts that set-pinned adds.",
  args: {
    name: { type: "positional", valueHint: "NAME", description: "as targets call it: group:NAME" },
    selector: {
      type: "string",
      valueHint: "EXPR",
      description: "what its hosts are: 'os=linux tags=prod labels=region=eu'",
    },
    output: outputFlag,
  },
  async run(given) {
    const { args } = given;
    const selector = args.selector === undefined ? {} : parseSelector(args.selector);
    const group = await (await connect(given)).createGroup({ name: args.name, selector });
    await printResult(given, args.output, group, () => groupsTable([group]));
    return undefined;
  },
});
