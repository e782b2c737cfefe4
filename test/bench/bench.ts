/** What every bench is made of: a table, how its figures are taken, and which benches there are. */

import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";

export interface Table {
  title: string;
  columns: readonly string[];
  rows: readonly (readonly string[])[];
  /** How the figures were got, and what to know before comparing them. One that begins with `failed:` fails the bench. */
  notes: readonly string[];
}

export interface BenchOptions {
  quick: boolean;
  /** What a bench makes for BENCHMARKS.md beside its tables is to be kept. */
  keep: boolean;
}

export type Bench = (options: BenchOptions) => Promise<Table[]>;

/** In the order they are run. A bench that takes longer than its minutes is ended and counts as failed. */
export const benches: Readonly<Record<string, { minutes: number; load: () => Promise<{ default: Bench }> }>> = {
  startup: { minutes: 3, load: () => import("./startup.ts") },
  footprint: { minutes: 17, load: () => import("./footprint.ts") },
  dispatch: { minutes: 5, load: () => import("./dispatch.ts") },
  fanout: { minutes: 12, load: () => import("./fanout.ts") },
  stream: { minutes: 6, load: () => import("./stream.ts") },
  crypto: { minutes: 3, load: () => import("./crypto.ts") },
  scale: { minutes: 15, load: () => import("./scale.ts") },
  grep: { minutes: 4, load: () => import("./grep.ts") },
};

export interface Spread {
  median: number;
  p95: number;
  p99: number;
  min: number;
  max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((left, right) => left - right);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { median: at(0.5), p95: at(0.95), p99: at(0.99), min: at(0), max: at(1) };
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

/** Builds dist/aegis unless it is current; what that says goes to stderr, where no program reads figures. */
export function buildExecutable(): void {
  const build = join(import.meta.dir, "../../install/build.ts");
  const { exitCode } = Bun.spawnSync([process.execPath, build], { stdin: "ignore", stdout: 2, stderr: 2 });
  if (exitCode !== 0) throw new Error("dist/aegis could not be built");
}

/** What one must know of the machine to compare figures with those of another. */
export function machine(): string {
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  const processors = `${cpus().length} x ${cpus()[0]?.model.trim() ?? "unknown"}`;
  return `${processors}, ${memory}, ${process.platform} ${release()}, Bun ${Bun.version}, load ${loadavg()[0]?.toFixed(1)}`;
}

export function markdown({ title, columns, rows, notes }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = line(columns.map((_, index) => (index === 0 ? "---" : "---:")));
  return [`### ${title}`, "", line(columns), rule, ...rows.map(line), "", ...notes.map((note) => `- ${note}`), ""].join(
    "\n",
  );
}
