/** Shows a run as plain lines: each host's output with its name in front, failures and the sum on stderr. */
import type { CapturedText, FleetEvent } from "../api/events.ts";
import { type PrefixedLines, prefixedLines } from "./prefixed-lines.ts";
import { hostsInWords, inWords, type RunView, summaryWords } from "./run-report.ts";
import { printable, type Terminal } from "./terminal.ts";

/** The bytes of one piece of output, as the host's process wrote them. */
export const bytesOf = ({ data, base64 }: { data?: string | undefined; base64?: string | undefined }): Uint8Array =>
  base64 === undefined ? Buffer.from(data ?? "", "utf8") : Buffer.from(base64, "base64");

/** The bytes that are kept of a pipe; what was omitted between them is for records to tell. */
const endsOf = ({ head, tail, encoding }: CapturedText): Uint8Array =>
  Buffer.concat([head, tail].map((text) => Buffer.from(text, encoding)));

interface HostLines {
  name: string;
  stdout: PrefixedLines;
  stderr: PrefixedLines;
  skippedBytes: number;
  /** Something of its output came while it ran. */
  live: boolean;
}

export function linesView(terminal: Pick<Terminal, "data" | "passthrough" | "note">): RunView {
  const hosts = new Map<string, HostLines>();

  /** Two hosts of one name are told apart by their ids. */
  function nameFor(nodeId: string, name: string): string {
    const taken = [...hosts].some(([other, host]) => other !== nodeId && host.name === name);
    return printable(taken ? `${name}(${nodeId.slice(0, 8)})` : name);
  }

  async function finish({ stdout, stderr }: HostLines): Promise<void> {
    await stdout.end();
    await stderr.end();
  }

  return {
    async show({ event, data }: FleetEvent) {
      switch (event) {
        case "started":
          terminal.note(`run ${data.run_id} on ${hostsInWords(data.resolved.length)}`);
          for (const { name, reason } of data.skipped) terminal.note(`${name}: skipped, ${reason}`);
          break;
        case "wave_started":
          terminal.note(`wave ${data.wave} of ${data.of}: ${hostsInWords(data.nodes.length)}`);
          break;
        case "node_started": {
          const name = nameFor(data.node_id, data.name);
          hosts.set(data.node_id, {
            name,
            stdout: prefixedLines(`${name} | `, terminal.data),
            stderr: prefixedLines(`${name} | `, terminal.passthrough),
            skippedBytes: 0,
            live: false,
          });
          break;
        }
        case "command_progress": {
          const host = hosts.get(data.node_id);
          if (host) {
            host.skippedBytes += data.skipped_bytes;
            host.live = true;
          }
          await host?.[data.stream].push(bytesOf(data));
          break;
        }
        case "command_result": {
          const host = hosts.get(data.node_id);
          // A tool that prints nothing while it works answers at its end.
          if (host && !host.live) await host.stdout.push(endsOf(data.stdout));
          if (host) await finish(host);
          const name = host?.name ?? printable(data.name);
          if (host && host.skippedBytes > 0)
            terminal.note(`${name}: ${host.skippedBytes} bytes of its output came too fast and are not shown`);
          if (!data.ok) terminal.note(`${name}: ${inWords(data)}`);
          break;
        }
        case "signature_needed":
          terminal.note(
            `${hosts.get(data.node_id)?.name ?? data.node_id}: needs an operator's signature (${data.reason})`,
          );
          break;
        case "error":
          terminal.note(`${data.code}: ${data.message}`);
          break;
        case "fleet_result":
          terminal.note(`${data.outcome}: ${summaryWords(data.summary)}`);
          break;
        default:
          event satisfies never;
      }
    },
    async end() {
      for (const host of hosts.values()) await finish(host);
    },
  };
}
