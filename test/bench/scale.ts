/** One controller and thousands of hosts: what it costs to hold them, to call them, and to get them back after it was killed. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../support/aegis.ts";
import { bareTransport } from "./bare.ts";
import { type Bench, type BenchOptions, spread, type Table } from "./bench.ts";
import { atDescriptorLimit } from "./descriptor-limit.ts";
import { raiseDescriptorLimit, type Swarm, seedHosts, startSwarm } from "./hosts.ts";
import { svgPlot } from "./plot.ts";
import { type BenchSite, benchSite, cpuSecondsOf, memoryOf } from "./site.ts";
import type { SwarmHost } from "./swarm.ts";

const heartbeatSeconds = 30;
const swarmProcesses = 4;
/** How long all may take to arrive. */
const arrivalMs = 180_000;

interface Stage {
  hosts: number;
  arrivalSeconds: number;
  rssMb: number;
  perHostKib: number;
  idleCores: number;
  dispatchMs: number[];
  runSeconds: number;
  /** Hosts that the run over all succeeded on. */
  runOk: number;
  afterRunMb: number;
}

interface Site {
  site: BenchSite;
  swarms: Swarm[];
  hosts: SwarmHost[];
  /** Hosts connected, and the controller's memory then. */
  growth: [number, number][];
  emptyMb: number;
}

const here = ({ swarms }: Site): number => swarms.reduce((sum, swarm) => sum + swarm.connected(), 0);

/** Until `count` are connected; what the controller's memory was on the way is kept. */
async function arrived(scene: Site, count: number): Promise<number> {
  const began = performance.now();
  while (here(scene) < count) {
    if (performance.now() - began > arrivalMs)
      throw new Error(`${here(scene)} of ${count} hosts were connected after ${arrivalMs / 1000} s`);
    scene.growth.push([here(scene), memoryOf(scene.site.controller.pid).rssMb]);
    await Bun.sleep(500);
  }
  return (performance.now() - began) / 1000;
}

async function calls(scene: Site, count: number, done = () => false): Promise<number[]> {
  const times: number[] = [];
  for (let index = 0; index < count && !done(); index++) {
    const node = scene.hosts[(index * 7_919) % scene.hosts.length]?.nodeId ?? "";
    const began = performance.now();
    const { summary } = await scene.site.run({ target: { Node: node }, tool: "bench.nothing", args: {} });
    if (summary.ok === 1) times.push(performance.now() - began);
    // As operators do: not all in one second, so that heartbeats of all hosts fall into it.
    await Bun.sleep(20);
  }
  return times;
}

async function everyone(scene: Site): Promise<Pick<Stage, "runSeconds" | "runOk">> {
  const began = performance.now();
  const { summary } = await scene.site.run({ target: "All", tool: "bench.nothing", args: {}, atOnce: 1_000 });
  return { runSeconds: (performance.now() - began) / 1000, runOk: summary.ok ?? 0 };
}

async function stage(scene: Site, count: number, quick: boolean): Promise<Stage> {
  const { site } = scene;
  const seeds = await seedHosts(site, scene.hosts.length, count - scene.hosts.length);
  scene.hosts.push(...seeds.hosts);
  scene.swarms.push(startSwarm(seeds, quick ? 1 : swarmProcesses));
  const arrivalSeconds = await arrived(scene, count);
  await Bun.sleep(quick ? 200 : 5_000);
  const [cpu, at] = [cpuSecondsOf(site.controller.pid), performance.now()];
  await Bun.sleep(quick ? 500 : 2 * heartbeatSeconds * 1000);
  const idleCores = (cpuSecondsOf(site.controller.pid) - cpu) / ((performance.now() - at) / 1000);
  const { rssMb } = memoryOf(site.controller.pid);
  const dispatchMs = await calls(scene, quick ? 5 : 500);
  const run = await everyone(scene);
  const afterRunMb = memoryOf(site.controller.pid).rssMb;
  const perHostKib = ((rssMb - scene.emptyMb) * 1024) / count;
  return { hosts: count, arrivalSeconds, rssMb, perHostKib, idleCores, dispatchMs, ...run, afterRunMb };
}

/** The controller is killed while a run goes on, and started again. */
async function killed(scene: Site): Promise<string[][]> {
  const { site } = scene;
  const node = scene.hosts[0]?.nodeId ?? "";
  const before = Date.now();
  const cut = site.run({ target: "All", tool: "bench.nothing", args: {}, atOnce: 64 }).catch(() => null);
  // Long enough for the run to have begun, and far from its end where there are many hosts.
  await Bun.sleep(scene.hosts.length > 1_000 ? 3_000 : 50);
  const began = performance.now();
  await site.controller.stop("SIGKILL");
  await cut;
  await eventually("every host has noticed", () => here(scene) === 0, 60_000);
  await site.restartController();
  const up = performance.now();
  // Before any other run is begun, it is the newest.
  const runs = await fetch(`${site.httpUrl}/v1/edge/fleet/runs?limit=1`, {
    headers: { authorization: `Bearer ${site.desk.env.AEGIS_USER_TOKEN}` },
  });
  const { items } = (await runs.json()) as { items: { started_at: string; outcome: string | null }[] };
  const fate = items.find(({ started_at: at }) => Date.parse(at) >= before)?.outcome ?? "not begun";
  let isOver = false;
  const meanwhile = calls(scene, 100_000, () => isOver);
  await arrived(scene, scene.hosts.length);
  const back = performance.now();
  isOver = true;
  const { p99, median } = spread(await meanwhile);
  const { summary } = await site.run({ target: { Node: node }, tool: "bench.nothing", args: {} });
  if (summary.ok !== 1) throw new Error("the first host does not answer after the controller came back");
  const seconds = (from: number) => `${((back - from) / 1000).toFixed(1)} s`;
  return [
    ["all hosts back, from the kill", seconds(began)],
    ["all hosts back, from the new controller's start", seconds(up)],
    ["a call to a host that is back, meanwhile: median, p99", `${median.toFixed(1)} ms, ${p99.toFixed(1)} ms`],
    ["processor time of the new controller until then", `${cpuSecondsOf(site.controller.pid).toFixed(1)} s`],
    ["its memory then", `${memoryOf(site.controller.pid).rssMb.toFixed(0)} MB`],
    ["the run that was cut off is remembered as", fate],
  ];
}

/** Beside what BENCHMARKS.md shows. */
const plotFile = join(import.meta.dir, "scale.svg");

async function held(counts: readonly number[], { quick, keep }: BenchOptions): Promise<Table[]> {
  const site = await benchSite();
  const scene: Site = { site, swarms: [], hosts: [], growth: [], emptyMb: 0 };
  try {
    await Bun.sleep(quick ? 0 : 2_000);
    scene.emptyMb = memoryOf(site.controller.pid).rssMb;
    scene.growth.push([0, scene.emptyMb]);
    const stages: Stage[] = [];
    const failures: string[] = [];
    const noted = (what: string) => (error: unknown) => {
      failures.push(`failed: ${what}: ${(error as Error).message}`);
      return null;
    };
    for (const count of counts) {
      const one = await stage(scene, count, quick).catch(noted(`${count} hosts`));
      if (!one) break;
      stages.push(one);
    }
    const storm = (await killed(scene).catch(noted("after kill -9"))) ?? [];
    const bare = await bareTransport(quick ? 10 : 5_000);
    if (keep)
      writeFileSync(
        plotFile,
        svgPlot({
          ...{ title: "Memory of one controller", x: "hosts connected", y: "resident memory, MB" },
          series: [
            { name: "aegis: TLS, strict sessions, all logic", points: scene.growth },
            { name: "grpc-js alone: TLS, idle streams", points: bare.growth },
          ],
        }),
      );
    const last = counts.at(-1) ?? 0;
    return [
      {
        title: "One controller and many hosts",
        columns: [
          ...["hosts", "all connected after", "RSS MB", "KiB a host", "idle: cores"],
          ...["a call meanwhile, ms: median, p99", "a run over all, s", "RSS MB after it"],
        ],
        rows: [
          ...stages.map((one) => {
            const { median, p99 } = spread(one.dispatchMs);
            return [
              ...[String(one.hosts), `${one.arrivalSeconds.toFixed(0)} s`, one.rssMb.toFixed(0)],
              ...[one.perHostKib.toFixed(1), one.idleCores.toFixed(3), `${median.toFixed(1)}, ${p99.toFixed(1)}`],
              ...[
                `${one.runSeconds.toFixed(1)}${one.runOk === one.hosts ? "" : `, ok on ${one.runOk}`}`,
                one.afterRunMb.toFixed(0),
              ],
            ];
          }),
          [`grpc-js alone, ${bare.streams}`, "", bare.rssMb.toFixed(0), bare.perStreamKib.toFixed(1), "", "", "", ""],
        ],
        notes: [
          `each host is the daemon's own session, keys and receipts on a TLS connection and from an address of its own, many in a process; heartbeats every ${heartbeatSeconds} s`,
          "idle is a minute without calls; a call does nothing on its host, so it costs what verifying, signing and recording cost",
          "grpc-js alone holds TLS connections with one stream each on which nothing happens: what no controller on it can go below",
          ...failures,
        ],
      },
      {
        title: `kill -9 of a controller with ${last} hosts`,
        columns: ["what", "measured"],
        rows: storm,
        notes: ["hosts reconnect by the daemon's own schedule; all of them and the controller share the processors"],
      },
    ];
  } finally {
    for (const swarm of scene.swarms) await swarm.stop();
    await site.close();
  }
}

const scale: Bench = async (options) => {
  const wanted = options.quick ? [20] : [1_000, 5_000, 10_000];
  const descriptors = raiseDescriptorLimit(16_384);
  const counts = wanted.filter((count) => count + 500 < descriptors);
  // No figure of a quick run means anything, so its two sites need not have the machine to themselves.
  const early = options.quick ? atDescriptorLimit(options) : null;
  const [tables, limited] = await Promise.all([held(counts, options), early]);
  const left = wanted.filter((count) => !counts.includes(count));
  const note = `left out: ${left.join(" and ")} hosts, for which a process may not open files enough (${descriptors})`;
  if (left.length > 0 && tables[0]) tables[0] = { ...tables[0], notes: [...tables[0].notes, note] };
  return [...tables, limited ?? (await atDescriptorLimit(options))];
};

export default scale;
