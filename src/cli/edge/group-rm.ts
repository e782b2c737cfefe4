/** `edge group rm`: forgets a group; its hosts stay. */
import { command } from "../command.ts";
import { connect } from "../connection.ts";

export default command({
  example: "aegis edge group rm web",
  args: { name: { type: "positional", valueHint: "NAME", description: "the group" } },
  async run(given) {
    await (await connect(given)).removeGroup(given.args.name);
    given.terminal.note(`group ${given.args.name} is gone; its hosts stay`);
    return undefined;
  },
});
