/** `true` on many hosts, each a daemon process of its own: beside clush over open connections, and beside ansible. */
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, freemem } from "node:os";
import { join } from "node:path";
import type { Running } from "../support/aegis.ts";
import type { Host } from "../support/installation.ts";
import { type Bench, type Spread, shown, spread, type Table, timed } from "./bench.ts";
import { type BenchSite, benchSite, cpuSecondsOf, underWx } from "./site.ts";
import { type Sshd, sshd } from "./sshd.ts";

/** What a daemon and its peer's processes need, in MB, so that a small machine is not driven into swapping. */
const mbPerHost = 90;

/** Enrolled and not running. */
async function enrolled(site: BenchSite, first: number, count: number): Promise<Host[]> {
  const hosts: Host[] = [];
  let next = first;
  await Promise.all(
    Array.from({ length: availableParallelism() }, async () => {
      while (next < first + count)
        hosts.push(await site.addHost(`host-${next++}`, { enroll: ["--full-access"], start: false }));
    }),
  );
  return hosts;
}

/** Starts a daemon for each, some at a time. */
async function connect(hosts: readonly Host[], before: readonly string[]): Promise<Running[]> {
  const daemons: Running[] = [];
  const left = [...hosts];
  await Promise.all(
    Array.from({ length: availableParallelism() }, async () => {
      for (let host = left.pop(); host; host = left.pop()) {
        const [program = "", ...words] = [...before, join(import.meta.dir, "../../dist/aegis"), "edge", "run"];
        const daemon = host.startProgram([program, ...words]);
        daemons.push(daemon);
        await daemon.until(/"event":"connected"/);
      }
    }),
  );
  return daemons;
}

const spawned = (command: readonly string[], env: Record<string, string>) => async () => {
  const child = Bun.spawn([...command], { env, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const words = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`${command.slice(0, 4).join(" ")} failed: ${words.slice(-400)}`);
};

interface Ways {
  name: string;
  rounds: number;
  work: () => Promise<void>;
}

async function compared(site: BenchSite, ssh: Sshd, count: number, mode: string, quick: boolean): Promise<Table> {
  const { pattern, list, config } = await ssh.warm(count);
  const env = { HOME: site.place.folder, PATH: process.env.PATH ?? "", LC_ALL: "C.UTF-8" };
  const some = quick ? 1 : 10;
  const spent = { seconds: 0, hosts: 0 };
  const every = async (atOnce?: number) => {
    const before = cpuSecondsOf(site.controller.pid);
    const { summary } = await site.run({
      target: "All",
      tool: "cmd.run",
      args: { command: "/bin/true" },
      ...(atOnce ? { atOnce } : {}),
    });
    spent.seconds += cpuSecondsOf(site.controller.pid) - before;
    spent.hosts += count;
    if (summary.ok !== count) throw new Error(`a run succeeded on ${summary.ok} of ${count} hosts`);
  };
  const cli = async () => {
    const fleet = ["edge", "fleet", "run", "--target", "all", "--tool", "cmd.run", "--context", "operator"];
    const { exit, stderr } = await site.desk.run(...fleet, "--arg", "command=/bin/true", "--yes");
    if (exit !== 0) throw new Error(`fleet run ended with ${exit}: ${stderr.slice(-400)}`);
  };
  const clush = (fanout: number) =>
    spawned(["/usr/bin/clush", "-n", "-S", "-f", `${fanout}`, "-o", `-F ${config}`, "-w", pattern, "/bin/true"], env);
  const ansible = spawned(
    ["/usr/bin/ansible", "all", "-i", `${list},`, "-f", `${count}`, "-m", "raw", "-a", "/bin/true"],
    { ...env, ANSIBLE_SSH_ARGS: `-F ${config}`, ANSIBLE_PYTHON_INTERPRETER: "/usr/bin/python3" },
  );
  const ways: Ways[] = [
    { name: "clush, 64 at once (its default)", rounds: some, work: clush(64) },
    ...(count > 64 ? [{ name: `clush, ${count} at once`, rounds: some, work: clush(count) }] : []),
    ...(quick ? [] : [{ name: `ansible -m raw, ${count} forks`, rounds: 3, work: ansible }]),
    { name: "aegis edge fleet run, 64 at once (its default)", rounds: some, work: cli },
    { name: "aegis, REST, 64 at once", rounds: some, work: every },
    ...(count > 64 ? [{ name: `aegis, REST, ${count} at once`, rounds: some, work: () => every(count) }] : []),
  ];
  const measured: [string, number, Spread][] = [];
  for (const { name, rounds, work } of ways)
    measured.push([name, rounds, spread(await timed(rounds, work, quick ? 0 : Math.min(2, rounds - 1)))]);
  const times = (one: Spread, peer: string): string => {
    const medians = measured.filter(([name]) => name.startsWith(peer)).map(([, , { median }]) => median);
    return medians.length > 0 ? (one.median / Math.min(...medians)).toFixed(2) : "";
  };
  return {
    title: `/bin/true on ${count} hosts`,
    columns: ["way", "runs", "ms: median (min-max)", "x clush, its best", "x ansible"],
    rows: measured.map(([name, rounds, one]) => [
      ...[name, String(rounds), shown(one, 0), times(one, "clush"), times(one, "ansible")],
    ]),
    notes: [
      `${count} daemon processes ${mode}, TLS, strict sessions; they, the controller, the client, sshd and its peers share the machine`,
      "clush and ansible go over ControlMasters that are open already, one a host, to one sshd; a clush, ansible or fleet run row contains the start of its program, a REST row does not",
      `a run over REST takes ${((spent.seconds * 1000) / spent.hosts).toFixed(1)} ms of the controller's processor time a host; the rest is the hosts', which have a processor each elsewhere`,
      "aegis verifies, judges, confines, signs and records on every host; nobody else does",
    ],
  };
}

const fanout: Bench = async ({ quick }) => {
  const wanted = quick ? [3] : [50, 200];
  const counts = wanted.filter((count) => count * mbPerHost * 2 ** 20 < freemem());
  const site = await benchSite();
  const ssh = await sshd();
  try {
    const file = join(site.server.home, ".aegis/controller/controller.yaml");
    await site.controller.stop();
    writeFileSync(
      file,
      `${readFileSync(file, "utf8")}limits:\n  enrollment_tokens_per_minute: 1000\n  enrollment_attempts_per_minute: 1000\n`,
    );
    await site.restartController();
    const tables: Table[] = [];
    let running = 0;
    for (const count of counts) {
      await connect(await enrolled(site, running, count - running), underWx);
      running = count;
      tables.push(await compared(site, ssh, count, "under W^X, as the service runs them", quick));
    }
    const last = tables.at(-1);
    if (!last) throw new Error(`there is no memory for ${wanted[0]} hosts of ${mbPerHost} MB`);
    for (const count of wanted.slice(counts.length))
      tables[tables.length - 1] = {
        ...last,
        notes: [...last.notes, `left out: ${count} hosts, for which this machine has no memory`],
      };
    return tables;
  } finally {
    await ssh.stop();
    await site.close();
  }
};

export default fanout;
