/** A controller that may open fewer files than it has hosts: who is let in, what the others hear, and whether they come later. */
import { eventually } from "../support/aegis.ts";
import type { BenchOptions, Table } from "./bench.ts";
import { seedHosts, startSwarm } from "./hosts.ts";
import { benchSite } from "./site.ts";

export async function atDescriptorLimit({ quick }: Pick<BenchOptions, "quick">): Promise<Table> {
  const [most, count] = quick ? [160, 60] : [512, 700];
  const site = await benchSite({ before: ["prlimit", `--nofile=${most}:${most}`] });
  const inside = await seedHosts(site, 0, Math.floor(most / 8));
  const outside = await seedHosts(site, inside.hosts.length, count - inside.hosts.length);
  const retries = [500, 1_000, 2_000];
  const first = startSwarm(inside, 1, retries);
  let second: ReturnType<typeof startSwarm> | null = null;
  try {
    await eventually("the first hosts are connected", () => first.connected() === inside.hosts.length, 30_000);
    second = startSwarm(outside, 1, retries);
    const others = second;
    let before = -1;
    await eventually(
      "no more hosts get in",
      async () => {
        const now = others.connected();
        await Bun.sleep(quick ? 1_100 : 4_000);
        const isSame = now === before && now > 0;
        before = now;
        return isSame;
      },
      60_000,
    );
    const letIn = inside.hosts.length + others.connected();
    const heard = others.lastFailure();
    const node = inside.hosts[0]?.nodeId ?? "";
    const asked = await site.run({ target: { Node: node }, tool: "bench.nothing", args: {} }).then(
      ({ summary }) => (summary.ok === 1 ? "answered" : JSON.stringify(summary)),
      (error: unknown) => `refused: ${(error as Error).message}`,
    );
    const began = performance.now();
    await first.stop();
    await eventually(
      "those that waited come in",
      () => others.connected() >= Math.min(outside.hosts.length, letIn - 8),
      60_000,
    );
    const after = ((performance.now() - began) / 1000).toFixed(1);
    const { summary } = await site.run({ target: "All", tool: "bench.nothing", args: {} });
    return {
      title: `A controller that may open ${most} files, and ${count} hosts`,
      columns: ["what", "measured"],
      rows: [
        ["hosts let in", String(letIn)],
        ["what the others hear", heard],
        ["a call over REST to one that is in", asked],
        [`${inside.hosts.length} leave: others in their places after`, `${after} s`],
        ["a run over all then answers from", `${summary.ok}`],
      ],
      notes: ["hosts try again after 0.5 to 2 s here"],
    };
  } finally {
    await first.stop();
    await second?.stop();
    await site.close();
  }
}
