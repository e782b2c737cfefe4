/** Output to readers that do not take it as fast as it comes: one that takes 10 MB a second, and one that stands still. */
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { watchMemory } from "../support/memory.ts";
import { keepPace, type OutputRead } from "../support/output-reader.ts";
import type { Table } from "./bench.ts";
import { type BenchSite, cpuSecondsOf } from "./site.ts";
import type { Sshd } from "./sshd.ts";

const reader = new URL("../support/output-reader.ts", import.meta.url).pathname;
const bytesASecond = 10e6;

interface Scene {
  site: BenchSite;
  /** A host of it, and the process of its daemon. */
  host: string;
  pid: number;
  ssh: Sshd;
  quick: boolean;
}

/** Lines of numbers: no two chunks are the same. */
const lines = (mib: number): string => `seq 150000000 | head -c ${mib}M`;

const sha256Of = (mib: number): string => {
  const { stdout } = Bun.spawnSync(["sh", "-c", `${lines(mib)} | sha256sum`]);
  return stdout.toString().split(" ")[0] ?? "";
};

/** Share of one processor that `pids` take until the answer is asked for. */
function processorShare(pids: readonly number[]): () => string {
  const used = () => pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
  const [before, began] = [used(), performance.now()];
  return () => `${(((used() - before) / (performance.now() - began)) * 100_000).toFixed(1)} %`;
}

/** Reads `mib` on the host through a client of its own; `meanwhile` gets that client once the first output has arrived. */
export async function readOutput(
  { site, host }: Pick<Scene, "site" | "host">,
  script: string,
  { pace, meanwhile }: { pace?: number; meanwhile?: (client: Bun.Subprocess) => Promise<void> } = {},
): Promise<OutputRead> {
  const words = [site.httpUrl, host, script, ...(pace === undefined ? [] : [String(pace)])];
  const client = Bun.spawn([process.execPath, reader, ...words], {
    ...{ env: { ...process.env, ...site.desk.env }, stdin: "ignore", stdout: "pipe", stderr: "inherit" },
  });
  try {
    let last = "";
    for await (const line of createInterface({ input: Readable.fromWeb(client.stdout as never) })) {
      if (last === "") await meanwhile?.(client);
      last = line;
    }
    const read = JSON.parse(last || "{}") as Partial<OutputRead>;
    if (!read.ok || read.output !== "complete" || read.skipped !== 0)
      throw new Error(`the output is not whole: ${last}`);
    return read as OutputRead;
  } finally {
    client.kill("SIGKILL");
  }
}

const rate = (bytes: number, seconds: number): string => (bytes / 1e6 / seconds).toFixed(1);
const equal = (sum: string, expected: string): string => {
  if (sum !== expected) throw new Error(`the reader has ${sum}, the child printed ${expected}`);
  return "equal";
};

async function paced({ site, host, pid, ssh, quick }: Scene): Promise<string[][]> {
  const mib = quick ? 4 : 128;
  const expected = sha256Of(mib);
  const sides = ssh.processes();
  const theirs = [processorShare(sides.server), processorShare(sides.client)];
  const child = Bun.spawn([...ssh.master(), lines(mib)], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
  const [hash, began] = [createHash("sha256"), performance.now()];
  let bytes = 0;
  for await (const chunk of child.stdout) {
    hash.update(chunk);
    bytes += chunk.length;
    await keepPace(bytes, began, bytesASecond);
  }
  const peer = rate(bytes, (performance.now() - began) / 1000);
  const peerShare = theirs.map((share) => share()).join(" / ");
  const peerSum = equal(hash.digest("hex"), expected);

  const pids = { daemon: pid, controller: site.controller.pid };
  const memory = watchMemory(() => pids);
  try {
    memory.mark();
    const ours = [processorShare([pids.daemon]), processorShare([pids.controller])];
    const read = await readOutput({ site, host }, lines(mib), { pace: bytesASecond });
    const share = ours.map((one) => one()).join(" / ");
    const name = `at 10 MB/s, ${mib} MiB`;
    return [
      [`ssh, open ControlMaster, ${name}`, peer, peerShare, "", peerSum],
      [`aegis, ${name}`, rate(read.bytes, read.seconds), share, grownOf(memory.grown()), equal(read.sha256, expected)],
    ];
  } finally {
    memory.stop();
  }
}

const grownOf = ({ daemon, controller }: Record<"daemon" | "controller", number>): string =>
  `+${daemon.toFixed(0)} / +${controller.toFixed(0)}`;

async function stopped({ site, host, pid, quick }: Scene): Promise<string[]> {
  const mib = quick ? 16 : 1024;
  const stillSeconds = quick ? 0.5 : 30;
  const expected = sha256Of(mib);
  const pids = { daemon: pid, controller: site.controller.pid };
  const memory = watchMemory(() => pids);
  let [grown, share] = ["", ""];
  try {
    memory.mark();
    const read = await readOutput({ site, host }, lines(mib), {
      async meanwhile(client) {
        client.kill("SIGSTOP");
        const shares = [processorShare([pids.daemon]), processorShare([pids.controller])];
        await Bun.sleep(stillSeconds * 1000);
        [grown, share] = [grownOf(memory.grown()), shares.map((one) => one()).join(" / ")];
        client.kill("SIGCONT");
      },
    });
    const after = rate(read.bytes, read.seconds - stillSeconds);
    const name = `aegis, stopped for ${stillSeconds} s, then the rest of ${mib} MiB`;
    return [name, `0, then ${after}`, share, grown, equal(read.sha256, expected)];
  } finally {
    memory.stop();
  }
}

export async function slowReaders(scene: Scene): Promise<Table> {
  return {
    title: "Output to slower readers",
    columns: ["reader", "MB/s", "CPU, host's / reader's side", "MB more, daemon / controller", "sha256"],
    rows: [...(await paced(scene)), await stopped(scene)],
    notes: [
      "memory is the most that either process had of its own meanwhile, looked at 25 times a second; of the stopped reader, while it stands still",
      "CPU is of one processor: sshd's session and the ControlMaster, the daemon and the controller; of the stopped reader, while it stands still",
    ],
  };
}
