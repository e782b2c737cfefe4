/**
 * `npm run fuzz -- --cases N [--seed S] [--only WORDS]`: N cases over all targets. A finding is printed with the seed of its
 * very case, which `--seed` repeats alone.
 */
import { type Random, random } from "./random.ts";

export interface FuzzTarget {
  /** What must hold. */
  name: string;
  /** How many ordinary cases one of these is worth in time; fewer of it are run. */
  cost?: number;
  /** Throws on a finding. */
  run(by: Random): void | Promise<void>;
}

export interface Finding {
  target: string;
  seed: number;
  what: string;
}

/** Longest one case may take. */
const maxCaseMs = 1_000;

export interface FuzzReport {
  cases: number;
  findings: Finding[];
  slowestMs: number;
}

/** Spreads `cases` over the targets; stops a target at its first finding. */
export async function fuzz(targets: readonly FuzzTarget[], cases: number, seed: number): Promise<FuzzReport> {
  const report: FuzzReport = { cases: 0, findings: [], slowestMs: 0 };
  const share = cases / targets.reduce((sum, { cost = 1 }) => sum + 1 / cost, 0);
  for (const target of targets) {
    const own = Math.max(1, Math.ceil(share / (target.cost ?? 1)));
    for (let index = 0; index < own; index++) {
      const caseSeed = (seed + Math.imul(index, 0x9e3779b1)) >>> 0;
      const finding = await one(target, caseSeed, report);
      report.cases++;
      if (!finding) continue;
      report.findings.push(finding);
      break;
    }
  }
  return report;
}

async function one(target: FuzzTarget, seed: number, report: FuzzReport): Promise<Finding | null> {
  const started = performance.now();
  try {
    await target.run(random(seed));
  } catch (error) {
    return { target: target.name, seed, what: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  const tookMs = performance.now() - started;
  report.slowestMs = Math.max(report.slowestMs, tookMs);
  return tookMs > maxCaseMs ? { target: target.name, seed, what: `took ${Math.round(tookMs)} ms` } : null;
}

if (import.meta.main) {
  const value = (flag: string) => {
    const at = process.argv.indexOf(flag);
    return at > 0 ? process.argv[at + 1] : undefined;
  };
  const { envelopeTargets } = await import("./envelope-targets.ts");
  const { operatorTargets } = await import("./operator-targets.ts");
  const { removeScratch, textTargets } = await import("./text-targets.ts");
  const only = value("--only");
  const targets = [...envelopeTargets, ...operatorTargets, ...textTargets].filter(
    ({ name }) => only === undefined || name.includes(only),
  );
  const seed = Number(value("--seed") ?? Date.now() % 2 ** 32);
  const cases = Number(value("--cases") ?? 10_000);
  const started = performance.now();
  const report = await fuzz(targets, cases, seed);
  removeScratch();
  for (const { target, seed: own, what } of report.findings)
    console.error(
      `finding: ${target}\n${what}\nrepeat: npm run fuzz -- --cases 1 --seed ${own} --only ${JSON.stringify(target)}\n`,
    );
  console.log(
    `${report.cases} cases over ${targets.length} targets, seed ${seed}: ${report.findings.length} findings, slowest ${report.slowestMs.toFixed(1)} ms, ${((performance.now() - started) / 1000).toFixed(1)} s`,
  );
  process.exitCode = report.findings.length > 0 ? 1 : 0;
}
