/** What sealing costs: frames, statements and receipts per second, with node:crypto and with noble, with and without JIT; and what part of the work it is. */
import { join } from "node:path";
import { type Bench, spread } from "./bench.ts";
import { sealingShare } from "./sealing-share.ts";
import { underWx } from "./site.ts";

const worker = join(import.meta.dir, "crypto-worker.ts");

const crypto: Bench = async ({ quick }) => {
  const seconds = quick ? "0.05" : "1";
  const measure = async (before: readonly string[]): Promise<Record<string, number>> => {
    const rounds: Record<string, number>[] = [];
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      const run = Bun.spawnSync([...before, process.execPath, worker, seconds], { stdout: "pipe", stderr: "pipe" });
      if (run.exitCode !== 0) throw new Error(run.stderr.toString());
      rounds.push(JSON.parse(run.stdout.toString()));
    }
    return Object.fromEntries(
      Object.keys(rounds[0] ?? {}).map((name) => [name, spread(rounds.map((one) => one[name] ?? 0)).median]),
    );
  };
  const [jit, wx] = [await measure([]), await measure(underWx)];
  const rows = Object.entries(jit).map(([name, perSecond]) => [
    name,
    perSecond.toFixed(0),
    (wx[name] ?? 0).toFixed(0),
    ((wx[name] ?? 0) / perSecond).toFixed(2),
  ]);
  return [
    {
      title: "Sealing",
      columns: ["operation", "per second, JIT", "per second, W^X", "W^X / JIT"],
      rows,
      notes: [
        "median of 3 runs of 1 s each, one core; frames carry 32 KiB",
        "the daemon signs and verifies with node:crypto; noble is the second implementation of the tests",
      ],
    },
    await sealingShare(quick),
  ];
};

export default crypto;
