/** How much of what the processes do is sealing: while output streams, while hosts connect, and while they are called. */
import { eventually } from "../support/aegis.ts";
import type { Table } from "./bench.ts";
import { seedHosts, startSwarm } from "./hosts.ts";
import { sealCosts } from "./seal-costs.ts";
import { benchSite, cpuSecondsOf } from "./site.ts";
import { readOutput } from "./slow-readers.ts";

/** Times counted in a run, and the seconds of one each. */
interface Sealing {
  what: string;
  times: number;
  cost: number;
  /** What the whole process took, in seconds of processor time. */
  cpu: number;
}

/** The kernel counts processor time in hundredths: what took none at all took less than one. */
const tick = 0.01;

const shown = ({ what, times, cost, cpu }: Sealing): string[] => [
  ...[what, times.toFixed(0), (cost * 1e6).toFixed(1), cpu.toFixed(2)],
  `${((100 * times * cost) / Math.max(cpu, tick)).toFixed(1)} %`,
];

export async function sealingShare(quick: boolean): Promise<Table> {
  const mib = quick ? 4 : 256;
  const count = quick ? 10 : 200;
  const site = await benchSite();
  try {
    const host = await site.openHost("one");
    const [daemon, controller] = [host.daemon?.pid ?? 0, site.controller.pid];
    async function used<T>(pids: readonly number[], work: () => Promise<T>): Promise<{ done: T; cpu: number[] }> {
      const before = pids.map(cpuSecondsOf);
      const done = await work();
      return { done, cpu: pids.map((pid, index) => cpuSecondsOf(pid) - (before[index] ?? 0)) };
    }
    const output = () => readOutput({ site, host: "one" }, `head -c ${mib}M /dev/zero | tr '\\0' a`);
    const { done: read, cpu: streaming } = await used([daemon, controller], output);

    const seeds = await seedHosts(site, 0, count);
    const { done: swarm, cpu: connecting } = await used([controller], async () => {
      const started = startSwarm(seeds, 1);
      await eventually("every host is connected", () => started.connected() === count, 60_000);
      return started;
    });
    const call = { target: { Nodes: seeds.hosts.map(({ nodeId }) => nodeId) }, tool: "bench.nothing", args: {} };
    const { done: ended, cpu: calling } = await used([controller], () => site.run(call)).finally(swarm.stop);
    if (ended.summary.ok !== count) throw new Error(`the run was to succeed on ${count}: ${JSON.stringify(ended)}`);

    const { events } = read;
    const costs = sealCosts(Math.round(read.bytes / events), quick ? 100 : 2_000);
    const rows: Sealing[] = [
      { what: "stream, daemon: a frame", times: events, cost: costs.frameSealed, cpu: streaming[0] ?? 0 },
      { what: "stream, controller: a frame", times: events, cost: costs.frameOpened, cpu: streaming[1] ?? 0 },
      { what: "scale, controller: a connect", times: count, cost: costs.connect, cpu: connecting[0] ?? 0 },
      { what: "scale, controller: a call", times: count, cost: costs.call, cpu: calling[0] ?? 0 },
    ];
    return {
      title: "Sealing's share of the processor time",
      columns: ["where, and what of it is counted", "times", "µs each", "CPU s of the process", "share"],
      rows: rows.map(shown),
      notes: [
        `${mib} MiB to one reader at full speed, in frames of ${(read.bytes / events / 1024).toFixed(1)} KiB; ${count} simulated hosts that connect, then a run over all of them`,
        "share: how often × what the same code takes in a process of its own in the same run, with node:crypto and JIT, over the processor time of the whole process meanwhile",
        "a frame: SHA-256, chain, HMAC. A connect: node token, Hello, ACCEPT with X25519, CONFIRM. A call: the caller's statement, COMMAND, RESULT, receipt, Ack. TLS is in none of them",
      ],
    };
  } finally {
    await site.close();
  }
}
