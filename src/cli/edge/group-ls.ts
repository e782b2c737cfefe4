/** `edge group ls`: the groups of this operator's tenant, and whom they mean now. */

import { formatSelector } from "../../api/target-text.ts";
import type { HostGroup } from "../../api/types.ts";
import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { table } from "../terminal.ts";

export default command({
  example: "aegis edge group ls",
  args: { output: outputFlag },
  async run(given) {
    const groups = await (await connect(given)).groups();
    await printResult(given, given.args.output, groups, () => groupsTable(groups));
    return undefined;
  },
});

export const groupsTable = (groups: readonly HostGroup[]): string =>
  table(
    ["NAME", "SELECTOR", "PINNED", "HOSTS NOW", "CREATED BY"],
    groups.map((group) => [
      group.name,
      formatSelector(group.selector),
      String(group.pinned_members.length),
      group.resolved_members.map(({ name }) => name).join(", "),
      group.created_by,
    ]),
  );
