/** Many cases over many targets, spread and counted: what each must hold, how often it was taken or refused, what was found. */
import { type Random, random } from "./random.ts";

/** Whether the case was taken for what it says, or refused. A target that only ever does one of them shows nothing. */
export type Outcome = "taken" | "refused";

export interface FuzzTarget {
  /** What must hold. */
  name: string;
  /** How many ordinary cases one of these is worth in time; fewer of it are run. */
  cost?: number;
  /** Throws on a finding. */
  run(by: Random): Outcome | Promise<Outcome>;
}

/** What is unchanged must be taken, or the refusal of everything else means nothing. */
export function taken(isTaken: boolean, what: string): "taken" {
  if (!isTaken) throw new Error(`${what} was refused`);
  return "taken";
}

export interface Finding {
  target: string;
  seed: number;
  what: string;
}

/** Longest one case may take. */
const maxCaseMs = 1_000;

export interface TargetReport {
  target: string;
  taken: number;
  refused: number;
}

export interface FuzzReport {
  cases: number;
  targets: TargetReport[];
  findings: Finding[];
  slowestMs: number;
}

/** Spreads `cases` over the targets; stops a target at its first finding. `onCase` is told of each before it begins. */
export async function fuzz(
  targets: readonly FuzzTarget[],
  cases: number,
  seed: number,
  onCase: (target: number, caseSeed: number) => void = () => {},
): Promise<FuzzReport> {
  const report: FuzzReport = { cases: 0, targets: [], findings: [], slowestMs: 0 };
  const share = cases / targets.reduce((sum, { cost = 1 }) => sum + 1 / cost, 0);
  for (const [at, target] of targets.entries()) {
    const own = Math.max(1, Math.ceil(share / (target.cost ?? 1)));
    const counts: TargetReport = { target: target.name, taken: 0, refused: 0 };
    report.targets.push(counts);
    for (let index = 0; index < own; index++) {
      const caseSeed = (seed + Math.imul(index, 0x9e3779b1)) >>> 0;
      onCase(at, caseSeed);
      const finding = await one(target, caseSeed, report, counts);
      report.cases++;
      if (!finding) continue;
      report.findings.push(finding);
      break;
    }
  }
  return report;
}

async function one(
  target: FuzzTarget,
  seed: number,
  report: FuzzReport,
  counts: TargetReport,
): Promise<Finding | null> {
  const started = performance.now();
  try {
    counts[await target.run(random(seed))]++;
  } catch (error) {
    return { target: target.name, seed, what: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  const tookMs = performance.now() - started;
  report.slowestMs = Math.max(report.slowestMs, tookMs);
  return tookMs > maxCaseMs ? { target: target.name, seed, what: `took ${Math.round(tookMs)} ms` } : null;
}
