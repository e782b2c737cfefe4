/** A gibibyte from a child to a reader: at full speed, at a slower one, and to one that stops; beside ssh. */
import { watchMemory } from "../support/memory.ts";
import { type Bench, shown, spread } from "./bench.ts";
import { bareGrpc } from "./floors.ts";
import { benchSite } from "./site.ts";
import { slowReaders } from "./slow-readers.ts";
import { sshd } from "./sshd.ts";

const stream: Bench = async ({ quick }) => {
  const mib = quick ? 16 : 1024;
  const rounds = quick ? 1 : 3;
  const site = await benchSite();
  const ssh = await sshd();
  const bare = await bareGrpc(site);
  const rows: string[][] = [];
  try {
    const host = await site.openHost("one");
    const pid = host.daemon?.pid ?? 0;
    const rate = async (work: () => Promise<unknown>) => {
      const rates: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const started = performance.now();
        await work();
        rates.push(mib / ((performance.now() - started) / 1000));
      }
      return spread(rates);
    };
    const drain = async (command: string[]) => {
      const child = Bun.spawn(command, { stdout: "pipe", stderr: "ignore", stdin: "ignore" });
      for await (const _ of child.stdout) void _;
      await child.exited;
    };
    const text = `head -c ${mib}M /dev/zero | tr '\\0' a`;
    const peer = await rate(() => drain([...ssh.master(), text]));
    rows.push(["ssh, open ControlMaster", shown(peer, 0), "1.00", ""]);
    const transport = await rate(() => bare.send(mib));
    rows.push([
      "bare gRPC over TLS, the same chunks",
      shown(transport, 0),
      (transport.median / peer.median).toFixed(2),
      "",
    ]);
    const memory = watchMemory(() => ({ daemon: pid, controller: site.controller.pid }));
    memory.mark();
    const own = await rate(() => site.call({ Node: "one" }, { command: "/bin/sh", args: ["-c", text] })).finally(
      memory.stop,
    );
    const { daemon, controller } = memory.grown();
    const grown = `+${daemon.toFixed(0)} / +${controller.toFixed(0)}`;
    rows.push(["aegis, REST events", shown(own, 0), (own.median / peer.median).toFixed(2), grown]);
    return [
      {
        title: `${mib} MiB of output to one reader`,
        columns: ["way", "MiB/s: median (min-max)", "x ssh", "MB more, daemon / controller"],
        rows,
        notes: [
          `${rounds} runs each; plain text, which JSON carries as it is`,
          "every chunk is sealed, chained into the receipt, and written as an event of JSON",
          "memory is the most that either process had of its own meanwhile",
        ],
      },
      await slowReaders({ site, host: "one", pid, ssh, quick }),
    ];
  } finally {
    bare.stop();
    await ssh.stop();
    await site.close();
  }
};

export default stream;
