/** `edge status`: whether this host is connected, from the file that its daemon keeps. */
import { lockHolder } from "../../daemon/lock.ts";
import { askDaemon } from "../../daemon/requests.ts";
import { type DaemonStatus, readStatus } from "../../daemon/status.ts";
import { AegisError, errorTable } from "../../errors.ts";
import { systemClock as clock } from "../../platform/clock.ts";
import { command } from "../command.ts";
import { edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis edge status -o json",
  details:
    "Ends with 0 only when the daemon of this host is connected, with 5 when it is not, with 78 when none ever ran.",
  args: { "state-dir": stateDirFlag, output: outputFlag },
  async run(given) {
    const stateDir = edgeDir(given.args["state-dir"], given);
    const isNew = await askForNews(stateDir, given.stop);
    const status = await readStatus(stateDir);
    if (!status)
      throw new AegisError("not_enrolled", `no daemon has run with ${stateDir}`, {
        hint: "aegis edge run, or aegis edge enroll TOKEN if this host is not enrolled",
      });
    const shown = record(isNew ? { ...status, at: new Date(clock.now()).toISOString() } : status);
    await printResult(given, given.args.output, shown, () => text(shown));
    return shown.state === "connected" ? 0 : errorTable.edge_unavailable.exit;
  },
});

/** Longest that a daemon with something else to do is waited for; what it last wrote is shown then. */
const newsWithinMs = 3_000;

/** Whether what stands in the file is from now. */
async function askForNews(stateDir: string, stop: AbortSignal): Promise<boolean> {
  const alive = async () => (await lockHolder(stateDir)) !== null;
  if (!(await alive())) return false;
  const patience = new AbortController();
  const signal = AbortSignal.any([patience.signal, stop]);
  const late = clock.sleep(newsWithinMs, signal).then(() => patience.abort());
  const told = await askDaemon({ kind: "tell_status" }, { stateDir, clock, signal, alive }).then(
    () => true,
    () => false,
  );
  patience.abort();
  await late;
  return told;
}

const record = ({ alive, ...status }: DaemonStatus) => ({
  // What a daemon that is gone wrote last is not true any more.
  state: alive ? status.state : "stopped",
  node_id: status.nodeId,
  tenant_id: status.tenantId,
  controller: status.controller,
  seal: status.seal,
  connected_since: alive ? status.connectedSince : null,
  retry_at: alive ? status.retryAt : null,
  last_error: status.lastError,
  identity: status.identity,
  operator_only: status.operatorOnly,
  key_fingerprint: status.keyFingerprint,
  known_node: status.knownNode,
  paused: status.paused,
  draining: alive && status.draining,
  active_calls: alive ? status.activeCalls : 0,
  queued_calls: alive ? status.queuedCalls : 0,
  undelivered_results: alive ? status.undeliveredResults : 0,
  pid: alive ? status.pid : null,
  otlp: status.otlp,
  version: status.version,
  at: status.at,
});

function callsInWords(status: ReturnType<typeof record>): string {
  const { active_calls: active, queued_calls: queued, undelivered_results: late } = status;
  return [
    `${active} running`,
    `${queued} waiting`,
    ...(late > 0 ? [`${late} ${late === 1 ? "result" : "results"} to deliver`] : []),
  ].join(", ");
}

function text(status: ReturnType<typeof record>): string {
  const { identity, operator_only: only } = status;
  const marks = [status.paused && "paused", status.draining && "draining"].filter(Boolean);
  return facts([
    ["state", [status.state, ...marks].join(", ")],
    ["node", status.node_id],
    ["tenant", status.tenant_id],
    ["controller", status.controller],
    ["sessions", status.seal],
    ["connected since", status.connected_since ?? ""],
    ["next attempt", status.retry_at ?? ""],
    ["last error", status.last_error ?? ""],
    ["calls", callsInWords(status)],
    ["identity", [identity.protected ? "protected" : "readable by tools", ...identity.detail].join("; ")],
    ["key", status.key_fingerprint],
    ["operator-only", only.holds ? "yes" : `no (context ${only.context} allows ${only.tool})`],
    ["otlp", status.otlp ?? ""],
    ["version", status.version],
    ["as of", status.at],
  ]);
}
