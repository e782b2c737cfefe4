/** Lines that match below a folder: fs.grep of a daemon, beside grep -r on the same tree. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createApiClient } from "../../src/api/client.ts";
import { Secret } from "../../src/platform/log.ts";
import { type Bench, shown, spread, timed } from "./bench.ts";
import { benchSite } from "./site.ts";

const words = "the node keeps its own key and signs what it did so that nobody has to believe a network".split(" ");
const lineWords = 11;

const parts = 50;

/**
 * Files of plain text, the same on every machine; every `needleEvery`th has one line with a number in it. Answers how many
 * such lines are in each of the folder's parts.
 */
function plant(folder: string, files: number, kib: number, needleEvery: number): number[] {
  let random = 1;
  const next = (below: number) => {
    random = (random * 48_271) % 2_147_483_647;
    return random % below;
  };
  const needles = Array.from({ length: parts }, () => 0);
  for (let number = 0; number < files; number++) {
    const below = join(folder, `part-${number % parts}`, `set-${number % 7}`);
    mkdirSync(below, { recursive: true });
    const lines: string[] = [];
    for (let size = 0; size < kib * 1024; size += lines.at(-1)?.length ?? 0)
      lines.push(Array.from({ length: lineWords }, () => words[next(words.length)]).join(" "));
    if (number % needleEvery === 0) {
      lines[lines.length >> 1] = `needle ${100_000 + number} in ${words[next(words.length)]}`;
      needles[number % parts] = (needles[number % parts] ?? 0) + 1;
    }
    writeFileSync(join(below, `file-${number}.txt`), `${lines.join("\n")}\n`);
  }
  return needles;
}

const grep: Bench = async ({ quick }) => {
  const [files, kib] = quick ? [50, 4] : [4_000, 16];
  const rounds = quick ? 1 : 5;
  const tree = mkdtempSync(join(tmpdir(), "aegis-grep-"));
  const site = await benchSite();
  const rows: string[][] = [];
  try {
    const planted = plant(tree, files, kib, quick ? 5 : 20);
    const whole = { folder: tree, needles: planted.reduce((sum, one) => sum + one, 0), files };
    const part = { folder: join(tree, "part-0"), needles: planted[0] ?? 0, files: files / parts };
    const api = createApiClient({
      ...{ url: site.httpUrl, token: new Secret(site.desk.env.AEGIS_USER_TOKEN ?? ""), caPem: null },
    });
    const searched = async (name: string, pattern: string, { folder, needles }: typeof whole) => {
      for await (const { event, data } of api.invoke(
        { target: { Node: name }, tool: "fs.grep", context: "operator", args: { pattern, path: folder } },
        { signal: AbortSignal.timeout(60_000) },
      )) {
        if (event !== "command_result") continue;
        const found = data.structured as { count?: number; truncated?: boolean } | null;
        if (found?.count !== needles || found.truncated)
          throw new Error(`fs.grep found ${JSON.stringify(found)?.slice(0, 200)} instead of ${needles} lines`);
      }
    };
    const hosts = [await site.openHost("JIT"), await site.openHost("W^X", { wx: true })];
    for (const [what, pattern, below] of [
      ["a word", "needle", whole],
      ["a number of six digits", "[0-9]{6}", part],
    ] as const) {
      const where = `${what}, ${below.files} files`;
      const peer = spread(
        await timed(rounds, () => {
          const run = Bun.spawnSync(["grep", "-rnE", pattern, below.folder], { env: { LC_ALL: "C.UTF-8" } });
          const found = run.stdout.toString().split("\n").length - 1;
          if (found !== below.needles) throw new Error(`grep found ${found} lines instead of ${below.needles}`);
        }),
      );
      rows.push([`grep -rnE, ${where}`, shown(peer, 1), "1.00"]);
      for (const { name } of hosts) {
        const own = spread(await timed(rounds, () => searched(name, pattern, below), 1));
        rows.push([`fs.grep, ${name}, ${where}`, shown(own, 0), (own.median / peer.median).toFixed(1)]);
      }
    }
    return [
      {
        title: `Searching ${files} files of ${kib} KiB`,
        columns: ["way", "ms: median (min-max)", "x grep"],
        rows,
        notes: [
          `${rounds} runs each after warm-ups, the tree in the page cache; every way must find the same lines`,
          "a pattern with no plain text in it is searched by RE2 in JavaScript, whose time no pattern can make explode; without JIT it takes nearly a second a MiB, and after 20 s a search answers with what it has",
          "fs.grep asks policy about every file, opens each through its guarded folder, and answers over the network, signed",
        ],
      },
    ];
  } finally {
    await site.close();
    rmSync(tree, { recursive: true, force: true });
  }
};

export default grep;
