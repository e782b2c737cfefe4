/** `edge ls`: the hosts of this operator's tenant. */
import type { Host } from "../../api/types.ts";
import { command, many } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, pairs, printResult } from "../options.ts";
import { table } from "../terminal.ts";

export default command({
  example: "aegis edge ls --connected --label region=eu",
  args: {
    tag: many("TAG", "only hosts that have it; all of them, when several are given"),
    label: many("K=V", "only hosts that say so of themselves"),
    connected: { type: "boolean", description: "only hosts that are connected now" },
    all: { type: "boolean", description: "revoked hosts too" },
    output: outputFlag,
  },
  async run(given) {
    const { args, every } = given;
    pairs("--label", [...new Set(every("label"))]);
    const client = await connect(given);
    const hosts = await client.allHosts({
      tag: every("tag"),
      label: every("label"),
      ...(args.connected ? { connected: true } : {}),
      all: args.all,
    });
    await printResult(given, args.output, hosts, () => table(headings, hosts.map(hostRow)));
    return undefined;
  },
});

const headings = ["NAME", "NODE", "STATUS", "SYSTEM", "CALLS", "TAGS", "LABELS", "LAST HEARTBEAT", "VERSION"];

/** One host, under the headings. Strict sessions are the rule, so only their lack is told. */
export function hostRow(host: Host): string[] {
  const { os, arch, labels } = host.capabilities;
  return [
    host.name,
    host.node_id.slice(0, 8),
    host.seal === "strict" ? host.status : `${host.status} seal=${host.seal}`,
    [os, arch].filter(Boolean).join("/"),
    host.queued_calls > 0 ? `${host.active_calls}+${host.queued_calls}` : String(host.active_calls),
    host.tags.join(","),
    Object.entries(labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(","),
    host.last_heartbeat_at ?? "",
    host.software_version,
  ];
}
