/** What a fault is, how one is struck and healed under load, and what must hold whatever it was. */
import type { Requirement } from "../support/needs.ts";
import { type FaultStage, type Ledger, onStage, type StageOptions } from "./stage.ts";

export interface FaultReport {
  /** From the blow until either end said that something is wrong; null where nothing has to be noticed. */
  noticedMs: number | null;
  /** From the end of the fault until a call succeeded again. */
  recoveredMs: number;
  ledger: Ledger;
  /** How much more memory of its own each process had at most than before, in MB. */
  growth: Growth;
  /** What this fault shows besides. */
  note?: string;
}

export interface Fault {
  name: string;
  needs: readonly Requirement[];
  /** Quick enough for every test run. */
  smoke: boolean;
  /** The host's memory is lost with its process, and with it results that nobody has. */
  mayLose?: boolean;
  /** Default: `maxGrowthMb`. */
  maxMb?: Growth;
  run(): Promise<FaultReport>;
}

export interface Growth {
  daemon: number;
  controller: number;
}

/**
 * How much more memory of its own each process may have at any moment of a fault, in MB. What a controller keeps of a thousand
 * ended runs is 6; the rest is the garbage of its calls, of which 1 600 in a few seconds let 70 lie about.
 */
export const maxGrowthMb: Growth = { daemon: 32, controller: 96 };

/**
 * At full speed, where what lies about counts more than what is in use: after a collection the daemon has what it had, and the
 * controller 22 MB more (8 of output kept for readers that come back, 4 on their way, the rest gaps in its heap). Every MiB
 * that passes leaves 2 to 6 of garbage, and a busy machine lets more pass before it is collected.
 */
export const fullSpeedMb: Growth = { daemon: 64, controller: 128 };

/** Why a report is not acceptable; empty when it is. */
export function violations(
  { ledger, growth }: FaultReport,
  { mayLose = false, maxMb = maxGrowthMb }: Pick<Fault, "mayLose" | "maxMb">,
): string[] {
  const found: string[] = [];
  if (ledger.duplicated > 0) found.push(`${ledger.duplicated} calls ran twice`);
  if (ledger.falseOk.length > 0)
    found.push(`${ledger.falseOk.length} calls were reported ok and did not run: ${JSON.stringify(ledger.falseOk)}`);
  if (ledger.lost > 0 && !mayLose) found.push(`${ledger.lost} results were lost`);
  for (const process of ["daemon", "controller"] as const)
    if (growth[process] > maxMb[process])
      found.push(`the memory of the ${process} grew by ${Math.round(growth[process])} MB`);
  return found;
}

/** Of calls by the thousand, whose ids a host remembers for an hour: what is in use and what lies about were not told apart. */
export const manyCallsMb: Growth = { daemon: 48, controller: 128 };

export interface Blow {
  /** Under load, with a long call going on. */
  strike(stage: FaultStage): Promise<void> | void;
  /** Ends the fault. */
  heal?(stage: FaultStage): Promise<void> | void;
  /** False: it must not even be noticed. */
  noticed?: boolean;
  /** How long the fault lasts before it is healed, at least. */
  lastsMs?: number;
  /** What goes on meanwhile; a shell script. */
  long?: string;
  /** What must hold at the end. */
  check?(stage: FaultStage): Promise<string | undefined> | string | undefined;
}

/** Long enough for buffers to have the size they keep. */
const warmUpMs = 1_000;

export async function struck(options: StageOptions, blow: Blow): Promise<FaultReport> {
  return await onStage(options, async (stage) => {
    const stop = stage.load();
    await Bun.sleep(warmUpMs);
    const long = stage.call(blow.long ?? "sleep 2");
    await Bun.sleep(300);
    stage.memory.mark();
    stage.arm();
    const at = performance.now();
    await blow.strike(stage);
    const noticedMs = blow.noticed === false ? null : await stage.noticed();
    await Bun.sleep(Math.max(0, at + (blow.lastsMs ?? 0) - performance.now()));
    await blow.heal?.(stage);
    const recoveredMs = await stage.recovered();
    await stop();
    await long.result;
    const note = await blow.check?.(stage);
    const ledger = await stage.ledger();
    const growth = stage.memory.grown();
    return { noticedMs, recoveredMs, ledger, growth, ...(note === undefined ? {} : { note }) };
  });
}

/** What holds is said; what does not is thrown. */
export function holds(condition: boolean, what: string): void {
  if (!condition) throw new Error(`does not hold: ${what}`);
}
