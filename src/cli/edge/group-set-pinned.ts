/** `edge group set-pinned`: hosts that belong to a group whatever they are. */
import { AegisError } from "../../errors.ts";
import { command, many } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { groupsTable } from "./group-ls.ts";

export default command({
  example: "aegis edge group set-pinned web --add web-9 --rm web-1",
  args: {
    name: { type: "positional", valueHint: "NAME", description: "the group" },
    add: many("NODE", "a host that belongs to it from now on"),
    rm: many("NODE", "a host that does not any more, unless the selector says so"),
    output: outputFlag,
  },
  async run(given) {
    const { args, every } = given;
    if (every("add").length + every("rm").length === 0)
      throw new AegisError("usage", "nothing to change", { hint: "give --add NODE or --rm NODE" });
    const client = await connect(given);
    const ids = (nodes: readonly string[]) => Promise.all(nodes.map(async (node) => (await client.host(node)).node_id));
    const [added, removed] = await Promise.all([ids(every("add")), ids(every("rm"))]);
    const group = await client.changeGroup(args.name, ({ pinned_members }) => ({
      pinned_members: [...new Set([...pinned_members, ...added])].filter((id) => !removed.includes(id)),
    }));
    await printResult(given, args.output, group, () => groupsTable([group]));
    return undefined;
  },
});
