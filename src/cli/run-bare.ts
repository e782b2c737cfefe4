/** Shows the output of one host as it comes, byte for byte: its stdout on ours, its stderr on ours. */
import { bytesOf } from "./run-lines.ts";
import type { RunView } from "./run-report.ts";
import type { Terminal } from "./terminal.ts";

export const bareView = (terminal: Pick<Terminal, "data" | "passthrough">): RunView => ({
  async show({ event, data }) {
    if (event !== "command_progress") return;
    if (data.stream === "stdout") await terminal.data(bytesOf(data));
    else await terminal.passthrough(bytesOf(data));
  },
  end: async () => {},
});
