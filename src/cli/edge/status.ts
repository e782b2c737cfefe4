/** `edge status`: whether this host is connected, from the file that its daemon keeps. */
import { readStatus } from "../../daemon/status.ts";
import { AegisError, errorTable } from "../../errors.ts";
import { command } from "../command.ts";
import { edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis edge status -o json",
  details: "Ends with 0 only when the daemon of this host is connected, with 5 when it is not.",
  args: { "state-dir": stateDirFlag, output: outputFlag },
  async run(given) {
    const stateDir = edgeDir(given.args["state-dir"], given);
    const status = await readStatus(stateDir);
    if (!status)
      throw new AegisError("not_enrolled", `no daemon has run with ${stateDir}`, {
        hint: "aegis edge run, or aegis edge enroll TOKEN if this host is not enrolled",
      });
    const { alive, state, ...rest } = status;
    const shown = { state: alive ? state : "stopped", ...rest };
    await printResult(given, given.args.output, shown, () =>
      facts([
        ["state", shown.state],
        ["node", status.nodeId],
        ["tenant", status.tenantId],
        ["controller", status.controller],
        ["seal", status.seal],
        ["connected since", (alive && status.connectedSince) || ""],
        ["calls", `${status.activeCalls} running, ${status.queuedCalls} waiting`],
        ["last error", status.lastError ?? ""],
        ["next attempt", (alive && status.retryAt) || ""],
        ["version", status.version],
      ]),
    );
    return shown.state === "connected" ? 0 : errorTable.edge_unavailable.exit;
  },
});
