/**
 * `npm run soak -- --minutes 60`: hosts that connect, are called, cancelled and given new keys at 24 times the usual rate,
 * so that an hour is a day. Ends with 1 when a process is larger, holds more files or has more timers than noise explains.
 */
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../support/aegis.ts";
import type { Host } from "../support/installation.ts";
import { buildExecutable, machine, markdown } from "./bench.ts";
import { cutProxy } from "./cut-proxy.ts";
import { type BenchSite, benchSite, memoryOf, underWx } from "./site.ts";
import { slopeOf } from "./slope.ts";
import type { ProbeReport } from "./soak-probe.ts";

const faster = 24;
/** What a host has in an ordinary life, in seconds between two of a kind. */
const usual = { call: 60, cancel: 10 * 60, connect: 60 * 60, rotation: 4 * 60 * 60 };
/** Growth that fails, in a share per hour, once it is more than noise. */
const mostPerHour = 0.01;
/** Files and timers may be that many more at the end than after the warm-up: calls and connections come and go. */
const mostMore = { files: 8, timers: 24 };
const hostCount = 3;

interface Sample extends ProbeReport {
  seconds: number;
  rssMb: number;
  files: number;
}

interface Watched {
  name: string;
  pid: number;
  samples: Sample[];
}

/** What was done, and what of it went wrong. */
interface Tally {
  calls: number;
  cancels: number;
  cuts: number;
  rotations: number;
  failures: Map<string, number>;
}

/** Whether there is work now, and what of it goes on. */
interface Shift {
  isOn: boolean;
  isOver: boolean;
  underWay: number;
}

/** One kind of work, as often as it is due while the shift is on; what fails is counted and goes on. */
async function again(seconds: number, shift: Shift, tally: Tally, work: () => Promise<void>): Promise<void> {
  const everyMs = (seconds * 1000) / faster;
  let due = performance.now() + everyMs * Math.random();
  while (!shift.isOver) {
    if (!shift.isOn || performance.now() < due) {
      await Bun.sleep(100);
      continue;
    }
    due = performance.now() + everyMs;
    shift.underWay++;
    await work().catch((error: unknown) => {
      const words = String((error as Error).message).slice(0, 160);
      tally.failures.set(words, (tally.failures.get(words) ?? 0) + 1);
    });
    shift.underWay--;
  }
}

const printing = { command: "/bin/sh", args: ["-c", "head -c 100000 /dev/zero | tr '\\0' a"] };
const sleeping = { command: "/bin/sleep", args: ["60"] };

function churn(site: BenchSite, host: Host, tally: Tally, shift: Shift): Promise<unknown> {
  const target = { Node: host.name };
  return Promise.all([
    again(usual.call, shift, tally, async () => {
      await site.call(target, printing);
      tally.calls++;
    }),
    again(usual.cancel, shift, tally, async () => {
      const { summary } = await site.run({ target, tool: "cmd.run", args: sleeping, deadlineSecs: 0.5 });
      if (summary.timed_out !== 1) throw new Error(`a call past its deadline ended as ${JSON.stringify(summary)}`);
      tally.cancels++;
    }),
    again(usual.rotation, shift, tally, async () => {
      const { exit, stderr } = await host.run("edge", "keys", "rotate");
      if (exit !== 0) throw new Error(`keys rotate: ${stderr}`);
      tally.rotations++;
    }),
  ]);
}

async function sample({ pid, samples }: Watched, folder: string, seconds: number): Promise<void> {
  const file = join(folder, `${pid}.json`);
  rmSync(file, { force: true });
  process.kill(pid, "SIGUSR2");
  await eventually(`process ${pid} reports`, () => existsSync(file), 30_000);
  // What was collected goes back to the system a moment later.
  await Bun.sleep(1_000);
  const report = JSON.parse(readFileSync(file, "utf8")) as ProbeReport;
  samples.push({ ...report, seconds, rssMb: memoryOf(pid).rssMb, files: readdirSync(`/proc/${pid}/fd`).length });
}

const databaseMb = (site: BenchSite): number =>
  ["controller.db", "controller.db-wal"].reduce((sum, name) => {
    const path = join(site.server.home, ".aegis/controller", name);
    return sum + (existsSync(path) ? statSync(path).size : 0) / 2 ** 20;
  }, 0);

/** What this process did in the samples after the warm-up, and what is wrong with it. */
function judged({ name, samples }: Watched): { row: string[]; wrong: string[] } {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || !last) return { row: [name], wrong: [`${name} was never measured`] };
  const wrong: string[] = [];
  const grown = (what: string, value: (one: Sample) => number): string => {
    const { perHour, noise } = slopeOf(samples.map((one) => [one.seconds, value(one)]));
    if (perHour - noise > mostPerHour) wrong.push(`${name}: ${what} grows by ${(perHour * 100).toFixed(1)} % an hour`);
    return Number.isFinite(noise) ? `${(perHour * 100).toFixed(1)} ± ${(noise * 100).toFixed(1)}` : "too short to tell";
  };
  for (const what of ["files", "timers"] as const)
    if (last[what] - first[what] > mostMore[what])
      wrong.push(`${name}: ${what} went from ${first[what]} to ${last[what]}`);
  return {
    row: [
      ...[name, first.rssMb.toFixed(1), last.rssMb.toFixed(1), grown("resident memory", ({ rssMb }) => rssMb)],
      grown("the heap", ({ heapBytes }) => heapBytes),
      ...[`${first.files} - ${last.files}`, `${first.timers} - ${last.timers}`],
    ],
    wrong,
  };
}

async function soak(minutes: number): Promise<string[]> {
  const total = minutes * 60;
  const roundSeconds = Math.min(120, total / 8);
  const quietSeconds = Math.min(35, roundSeconds / 3);
  const probe = `--preload=${join(import.meta.dir, "soak-probe.ts")}`;
  const folder = process.env.TMPDIR ?? "/tmp";
  const probed = ["env", `BUN_OPTIONS=${probe}`, `AEGIS_SOAK_FOLDER=${folder}`];
  const site = await benchSite({ before: probed });
  const proxy = await cutProxy();
  const shift: Shift = { isOn: false, isOver: false, underWay: 0 };
  const tally: Tally = { calls: 0, cancels: 0, cuts: 0, rotations: 0, failures: new Map() };
  try {
    const hosts: Host[] = [];
    for (let number = 1; number <= hostCount; number++)
      hosts.push(
        await site.addHost(`host-${number}`, {
          ...{ enroll: ["--full-access"], env: { HTTPS_PROXY: proxy.url } },
          before: [...probed, ...(number === 1 ? underWx : [])],
        }),
      );
    const watched: Watched[] = [
      { name: "controller", pid: site.controller.pid, samples: [] },
      ...hosts.map(({ name, daemon }, index) => ({
        ...{ name: index === 0 ? `${name}, W^X` : name, pid: daemon?.pid ?? 0, samples: [] },
      })),
    ];
    const began = performance.now();
    const since = () => (performance.now() - began) / 1000;
    const atStart = { mb: databaseMb(site), calls: tally.calls };
    const work = Promise.all([
      ...hosts.map((host) => churn(site, host, tally, shift)),
      again(usual.connect, shift, tally, async () => {
        proxy.cut();
        tally.cuts++;
      }),
    ]);
    while (since() < total) {
      shift.isOn = true;
      await Bun.sleep((roundSeconds - quietSeconds) * 1000);
      shift.isOn = false;
      await eventually("what is under way ends", () => shift.underWay === 0, 90_000);
      await Bun.sleep(quietSeconds * 1000);
      const isWarm = since() > total / 5;
      for (const one of watched) {
        if (!isWarm) one.samples.length = 0;
        await sample(one, folder, since());
      }
      process.stderr.write(
        `${since().toFixed(0)} s: ${watched.map(({ samples }) => samples.at(-1)?.rssMb.toFixed(0)).join(" ")} MB\n`,
      );
    }
    shift.isOver = true;
    await work;
    const answers = watched.map(judged);
    const kib = ((databaseMb(site) - atStart.mb) * 1024) / Math.max(1, tally.calls + tally.cancels);
    const wrong = answers.flatMap((answer) => answer.wrong);
    const shown = {
      title: `A soak of ${minutes} minutes`,
      columns: ["process", "RSS MB, first", "last", "growth, % an hour", "heap growth, % an hour", "files", "timers"],
      rows: answers.map(({ row }) => row),
      notes: [
        `${hostCount} hosts at ${faster} x the usual: ${tally.calls} calls, ${tally.cancels} that were ended by their deadline, ${tally.cuts} times every connection cut, ${tally.rotations} new keys`,
        "each sample follows half a minute of quiet and a garbage collection; the first fifth is warm-up; growth is a line through the samples, ± two standard errors",
        `the database grew by ${kib.toFixed(1)} KiB a call, which is what is kept for run_retention_days`,
        ...[...tally.failures].map(([words, times]) => `${times} x ${words}`),
      ],
    };
    console.log(markdown(shown));
    console.log(machine());
    return wrong;
  } finally {
    await proxy.close();
    await site.close();
  }
}

const [flag, value, ...others] = process.argv.slice(2);
const minutes = flag === undefined ? 60 : Number(value);
if ((flag !== undefined && flag !== "--minutes") || !(minutes > 0) || others.length > 0) {
  console.error("there is: --minutes N, 60 unless stated");
  process.exit(2);
}
buildExecutable();
const wrong = await soak(minutes);
for (const words of wrong) console.error(`failed: ${words}`);
process.exit(wrong.length > 0 ? 1 : 0);
