/** What the daemon costs while it waits, during calls and after much output, with and without W^X. */
import { readFileSync } from "node:fs";
import type { Bench, Table } from "./bench.ts";
import { benchSite, cpuSecondsOf, memoryOf } from "./site.ts";

/** Bytes that went over the daemon's sockets so far, both ways, as the kernel counted them. */
function wireBytes(pid: number): number {
  const run = Bun.spawnSync(["ss", "-Htinp", "state", "established"]);
  const lines = run.stdout.toString().split("\n");
  let sum = 0;
  for (const [index, line] of lines.entries())
    if (line.includes(`pid=${pid},`))
      for (const field of ["bytes_sent", "bytes_received"])
        sum += Number(new RegExp(`${field}:(\\d+)`).exec(lines[index + 1] ?? "")?.[1] ?? 0);
  return sum;
}

const footprint: Bench = async ({ quick }) => {
  const idleSeconds = quick ? 2 : 60;
  const site = await benchSite();
  const rows: string[][] = [];
  try {
    for (const [name, wx] of [
      ["JIT", false],
      ["W^X", true],
    ] as const) {
      const host = await site.openHost(name === "JIT" ? "jit" : "wx", { wx });
      const pid = Number(/^\d+/.exec(readFileSync(`/proc/${host.daemon?.pid}/stat`, "utf8"))?.[0]);
      const row = (state: string, cpu = "", wire = "") => {
        const { rssMb, pssMb, anonMb } = memoryOf(pid);
        rows.push([`${name}, ${state}`, rssMb.toFixed(1), pssMb.toFixed(1), anonMb.toFixed(1), cpu, wire]);
      };
      await Bun.sleep(quick ? 500 : 5_000);
      const [cpu, wire, at] = [cpuSecondsOf(pid), wireBytes(pid), performance.now()];
      await Bun.sleep(idleSeconds * 1000);
      const seconds = (performance.now() - at) / 1000;
      row(
        `idle ${idleSeconds} s`,
        `${(((cpuSecondsOf(pid) - cpu) / seconds) * 100).toFixed(2)} %`,
        `${((wireBytes(pid) - wire) / seconds).toFixed(0)} B/s`,
      );
      for (const calls of [1, 16]) {
        const running = Array.from({ length: calls }, () =>
          site.call({ Node: host.name }, { command: "/bin/sleep", args: [quick ? "1" : "4"] }),
        );
        await Bun.sleep(quick ? 500 : 2_000);
        row(calls === 1 ? "one call" : `${calls} calls`);
        await Promise.all(running);
      }
      await site.call(
        { Node: host.name },
        { command: "/usr/bin/head", args: ["-c", quick ? "16M" : "1G", "/dev/zero"] },
      );
      row(quick ? "after 16 MiB of output" : "after 1 GiB of output");
      await host.daemon?.stop();
    }
    const table: Table = {
      title: "Footprint of the daemon",
      columns: ["state", "RSS MB", "PSS MB", "anonymous MB", "CPU", "wire"],
      rows,
      notes: [
        `one process each, TLS, strict session, heartbeats every 30 s; memory from /proc/PID/smaps_rollup, bytes from the kernel's socket counters`,
        "RSS counts pages of the executable that other processes share; PSS divides them",
        "a daemon that is quiet gives clean pages back, so a figure depends on how long it was quiet",
      ],
    };
    return [table];
  } finally {
    await site.close();
  }
};

export default footprint;
