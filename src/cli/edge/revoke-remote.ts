/** `edge keys revoke-remote`: a host is out for good: its key and token are denied, its stream is cut. */
import { AegisError } from "../../errors.ts";
import { command } from "../command.ts";
import { connect } from "../connection.ts";

export default command({
  example: "aegis edge keys revoke-remote web-1",
  details: "What the host itself holds stays there; only a token issued --for it lets it in again.",
  args: {
    node: { type: "positional", valueHint: "NODE", description: "its name, id or the first 6 characters of its id" },
  },
  async run(given) {
    const { args, terminal, stop } = given;
    const client = await connect(given);
    const { name, node_id, status } = await client.host(args.node);
    if (status === "revoked") {
      terminal.note(`${name} (${node_id}) was revoked already`);
      return undefined;
    }
    if (terminal.interactive && !(await terminal.confirm(`revoke ${name} (${node_id}, ${status})?`, stop)))
      throw new AegisError("cancelled", "nothing was revoked");
    await client.revokeHost(node_id);
    terminal.note(`${name} (${node_id}) is revoked`);
    return undefined;
  },
});
