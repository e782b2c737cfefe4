/**
 * `npm run bench [-- NAME...]`: figures beside what people use instead, each table from one run. `--json` for programs,
 * `--quick` for a look at whether everything still works; figures of a quick run mean nothing.
 */
import { cpus, release, totalmem } from "node:os";
import { installDebianPackages } from "../debian.mjs";

export interface Table {
  title: string;
  columns: readonly string[];
  rows: readonly (readonly string[])[];
  /** How the figures were got, and what to know before comparing them. */
  notes: readonly string[];
}

export interface BenchOptions {
  quick: boolean;
}

export type Bench = (options: BenchOptions) => Promise<Table[]>;

const benches: Readonly<Record<string, () => Promise<{ default: Bench }>>> = {
  startup: () => import("./startup.ts"),
  dispatch: () => import("./dispatch.ts"),
  footprint: () => import("./footprint.ts"),
  stream: () => import("./stream.ts"),
  crypto: () => import("./crypto.ts"),
};

export interface Spread {
  median: number;
  p95: number;
  min: number;
  max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((left, right) => left - right);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { median: at(0.5), p95: at(0.95), min: at(0), max: at(1) };
}

/** `12.3 (11.9-14.0)`: the median, then the least and the most. */
export const shown = ({ median, min, max }: Spread, digits = 1): string =>
  `${median.toFixed(digits)} (${min.toFixed(digits)}-${max.toFixed(digits)})`;

/** Times `work` after a few rounds that do not count; milliseconds. */
export async function timed(rounds: number, work: () => unknown, warmUp = Math.min(5, rounds)): Promise<number[]> {
  for (let round = 0; round < warmUp; round++) await work();
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    await work();
    times.push(performance.now() - started);
  }
  return times;
}

const machine = (): string =>
  `${cpus().length} x ${cpus()[0]?.model.trim() ?? "unknown"}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform} ${release()}, Bun ${Bun.version}`;

export function markdown({ title, columns, rows, notes }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = line(columns.map((_, index) => (index === 0 ? "---" : "---:")));
  return [`### ${title}`, "", line(columns), rule, ...rows.map(line), "", ...notes.map((note) => `- ${note}`), ""].join(
    "\n",
  );
}

if (import.meta.main) {
  const flags = process.argv.slice(2).filter((word) => word.startsWith("--"));
  const wanted = process.argv.slice(2).filter((word) => !word.startsWith("--"));
  const unknown = [
    ...flags.filter((flag) => flag !== "--json" && flag !== "--quick"),
    ...wanted.filter((name) => !(name in benches)),
  ];
  if (unknown.length > 0) {
    console.error(`unknown: ${unknown.join(" ")}; there is: ${Object.keys(benches).join(" ")} --json --quick`);
    process.exit(2);
  }
  installDebianPackages("bench/debian-packages.txt");
  const results: Record<string, Table[]> = {};
  for (const name of wanted.length > 0 ? wanted : Object.keys(benches)) {
    const bench = (await benches[name]?.())?.default;
    if (!bench) continue;
    process.stderr.write(`${name} ...\n`);
    results[name] = await bench({ quick: flags.includes("--quick") });
    if (!flags.includes("--json")) for (const table of results[name]) console.log(markdown(table));
  }
  if (flags.includes("--json")) console.log(JSON.stringify({ machine: machine(), results }, null, 2));
  else console.log(`${new Date().toISOString().slice(0, 10)}, ${machine()}`);
  process.exit(0);
}
