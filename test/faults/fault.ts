/** What a fault is, how one is struck and healed under load, and what must hold whatever it was. */
import type { Requirement } from "../support/needs.ts";
import { type FaultStage, type Ledger, onStage, type StageOptions } from "./stage.ts";

export interface FaultReport {
  /** From the blow until either end said that something is wrong; null where nothing has to be noticed. */
  noticedMs: number | null;
  /** From the end of the fault until a call succeeded again. */
  recoveredMs: number;
  ledger: Ledger;
  /** How much more memory each process has at the end than before, in MB. */
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
  run(): Promise<FaultReport>;
}

export interface Growth {
  daemon: number;
  controller: number;
}

/**
 * Memory that a process may have gained, whatever was done to it, in MB: buffers, what the garbage collector has not looked at,
 * and in the controller the last thousand runs, which stay at hand for ten minutes.
 */
export const maxGrowthMb: Growth = { daemon: 64, controller: 224 };

export const grown = (before: Growth, after: Growth): Growth => ({
  daemon: Math.max(0, after.daemon - before.daemon),
  controller: Math.max(0, after.controller - before.controller),
});

/** Why a report is not acceptable; empty when it is. */
export function violations({ ledger, growth }: FaultReport, { mayLose = false }: Pick<Fault, "mayLose">): string[] {
  const found: string[] = [];
  if (ledger.duplicated > 0) found.push(`${ledger.duplicated} calls ran twice`);
  if (ledger.falseOk.length > 0)
    found.push(`${ledger.falseOk.length} calls were reported ok and did not run: ${JSON.stringify(ledger.falseOk)}`);
  if (ledger.lost > 0 && !mayLose) found.push(`${ledger.lost} results were lost`);
  for (const process of ["daemon", "controller"] as const)
    if (growth[process] > maxGrowthMb[process])
      found.push(`the memory of the ${process} grew by ${Math.round(growth[process])} MB`);
  return found;
}

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
    const before = stage.memory();
    const long = stage.call(blow.long ?? "sleep 2");
    await Bun.sleep(300);
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
    const growth = grown(before, stage.memory());
    return { noticedMs, recoveredMs, ledger, growth, ...(note === undefined ? {} : { note }) };
  });
}

/** What holds is said; what does not is thrown. */
export function holds(condition: boolean, what: string): void {
  if (!condition) throw new Error(`does not hold: ${what}`);
}
