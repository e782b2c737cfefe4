/** What the daemon costs under its real unit, on a real systemd: while it waits, during calls, and after much output. */
import { missing } from "../support/needs.ts";
import { type SystemdBench, systemdBench } from "../support/systemd-bench.ts";
import type { Bench } from "./bench.ts";

/** How the unit is installed and changed. Each runs in a systemd of its own, all at once: no figure is one of speed. */
const variants: [name: string, flags: string, environment: string][] = [
  ["the unit", "", ""],
  ["without the trim", "", "AEGIS_TRIM=off"],
  ["with --allow-jit", "--allow-jit", ""],
];

const heartbeatSeconds = 30;
const columns = ["under", "state", "RSS MB", "PSS MB", "anonymous MB", "CPU", "network", "a heartbeat"];

/** Memory of the daemon in kB, the ticks it ran and the bytes on its sockets, both ways, as the kernel counts them. */
const look = `pid=$(systemctl --user show aegis-edge -P MainPID)
awk '/^(Rss|Pss|Anonymous):/ { printf "%s ", $2 }' /proc/$pid/smaps_rollup
awk '{ sub(/.*\\) /, ""); printf "%s ", $12 + $13 }' /proc/$pid/stat
ss -tinp state established | awk -v pid="pid=$pid," '
  index($0, pid) { ours = 1; next }
  ours { for (i = 1; i <= NF; i++) if ($i ~ /^bytes_(sent|received):/) { split($i, part, ":"); sum += part[2] } ours = 0 }
  END { print sum + 0 }'`;

interface Look {
  memory: string[];
  ticks: number;
  bytes: number;
}

async function lookAt(bench: SystemdBench): Promise<Look> {
  // As the daemon's own user: what another may not read of it is what a tool may not read.
  const { said } = await bench.root(
    `export XDG_RUNTIME_DIR=/run/user/4242; systemctl() { command systemctl --machine=edge@ "$@"; }; ${look}`,
  );
  const [rss = Number.NaN, pss = Number.NaN, anonymous = Number.NaN, ticks = Number.NaN, bytes = Number.NaN] = said
    .trim()
    .split(/\s+/)
    .map(Number);
  if (!Number.isFinite(bytes)) throw new Error(said);
  return { memory: [rss, pss, anonymous].map((kb) => (kb / 1024).toFixed(1)), ticks, bytes };
}

async function measure([name, flags, environment]: (typeof variants)[number], quick: boolean): Promise<string[][]> {
  const idleSeconds = quick ? 0.5 : 600;
  const root = process.env.AEGIS_SYSTEMD_ROOT;
  const bench = await systemdBench({ apart: true, ...(root ? { rootFolder: root } : {}) });
  const rows: string[][] = [];
  const row = ({ memory }: Look, state: string, ...rest: string[]) =>
    rows.push([...[name, state, ...memory, ...rest], "", "", ""].slice(0, columns.length));
  const must = async (line: string) => {
    const { exit, said } = await bench.user(line);
    if (exit !== 0) throw new Error(`${name}: ${said}`);
  };
  const run = async (command: string, calls = 1) => {
    const { exit, said } = await bench.operator(
      `for i in $(seq ${calls}); do /srv/operator/aegis edge exec bench --context operator --deadline 5m -- ${command} >/dev/null & done; for p in $(jobs -p); do wait $p || exit 1; done`,
    );
    if (exit !== 0) throw new Error(`${name}: ${command}: ${said}`);
  };
  try {
    const service = "aegis edge service install";
    const dropIn = "~/.config/systemd/user/aegis-edge.service.d";
    await must(
      `aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access && ${service} ${flags}`,
    );
    if (environment)
      await must(
        `mkdir -p ${dropIn} && printf '[Service]\\nEnvironment=${environment}\\n' > ${dropIn}/90-mine.conf && systemctl --user daemon-reload && aegis edge service restart`,
      );
    await Bun.sleep(quick ? 100 : 60_000);
    const [begun, at] = [await lookAt(bench), performance.now()];
    row(begun, "idle, after a minute");
    await Bun.sleep(idleSeconds * 1000);
    const [end, seconds] = [await lookAt(bench), (performance.now() - at) / 1000];
    const perSecond = (end.bytes - begun.bytes) / seconds;
    row(
      end,
      `idle, ${idleSeconds} s later`,
      `${((end.ticks - begun.ticks) / seconds).toFixed(3)} %`,
      `${perSecond.toFixed(0)} B/s`,
      `${(perSecond * heartbeatSeconds).toFixed(0)} B`,
    );
    for (const calls of [1, 16]) {
      const running = run(`/bin/sleep ${quick ? 1 : 10}`, calls);
      await Bun.sleep(quick ? 600 : 6_000);
      row(await lookAt(bench), calls === 1 ? "one call" : `${calls} calls`);
      await running;
    }
    const bytes = quick ? "16M" : "1G";
    await run(`/usr/bin/head -c ${bytes} /dev/zero`);
    row(await lookAt(bench), `after a call with ${bytes} of output`);
    await Bun.sleep(quick ? 0 : 2 * heartbeatSeconds * 1000);
    row(await lookAt(bench), "a minute later");
    return rows;
  } finally {
    bench.down();
  }
}

const footprint: Bench = async ({ quick }) => {
  const absent = missing("root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon", "command:ss");
  if (absent.length > 0) throw new Error(`the footprint is that of the real unit: it needs ${absent.join(", ")}`);
  const rows = await Promise.all((quick ? variants.slice(0, 1) : variants).map((variant) => measure(variant, quick)));
  return [
    {
      title: "Footprint of the daemon under its unit",
      columns,
      rows: rows.flat(),
      notes: [
        `systemd in namespaces of its own, one TLS stream, strict session, heartbeats every ${heartbeatSeconds} s; a call is \`sleep\`, whose processes are not counted`,
        "memory from /proc/PID/smaps_rollup, processor time from /proc/PID/stat, bytes both ways from the kernel's counters of the daemon's sockets, without headers of TCP and IP",
        "no other process runs the daemon's copy of the executable; each heartbeat of a quiet daemon gives clean pages back, which then stay in the page cache",
      ],
    },
  ];
};

export default footprint;
