/**
 * `npm run faults [-- --only WORDS] [--repeat N] [--smoke] [--list]`: breaks what can break under a running controller, daemon
 * and operator, each a process of its own, and prints how long it took to notice and to recover, and what was lost.
 */
import { parseArgs } from "node:util";
import { missing } from "../support/needs.ts";
import { clockFaults } from "./clocks.ts";
import { diskFaults } from "./disks.ts";
import { type Fault, type FaultReport, violations } from "./fault.ts";
import { networkFaults } from "./network.ts";
import { processFaults } from "./processes.ts";
import { toolFaults } from "./tools.ts";

export const allFaults: readonly Fault[] = [
  ...processFaults,
  ...networkFaults,
  ...diskFaults,
  ...clockFaults,
  ...toolFaults,
];

const columns = ["FAULT", "NOTICED", "RECOVERED", "CALLS", "LOST", "LATE", "TWICE", "MB MORE", "SHOWS"] as const;

export const headings = (): string => row([...columns]);

function row(cells: readonly string[]): string {
  const widths = [58, 9, 10, 6, 5, 5, 6, 8];
  return cells
    .map((cell, index) => cell.padEnd(widths[index] ?? 0))
    .join(" ")
    .trimEnd();
}

const seconds = (ms: number | null): string => (ms === null ? "-" : `${(ms / 1000).toFixed(1)} s`);

export function line({ name }: Fault, { noticedMs, recoveredMs, ledger, growth, note = "" }: FaultReport): string {
  const { calls, lost, late, duplicated } = ledger;
  const memory = `${Math.round(growth.daemon)} + ${Math.round(growth.controller)}`;
  const counts = [...[calls, lost, late, duplicated].map(String), memory];
  return row([name, seconds(noticedMs), seconds(recoveredMs), ...counts, note]);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: "string", default: "" },
      repeat: { type: "string", default: "1" },
      smoke: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
    },
  });
  const chosen = allFaults.filter(({ name, smoke }) => name.includes(values.only) && (smoke || !values.smoke));
  if (values.list || chosen.length === 0) {
    for (const { name } of chosen.length === 0 ? allFaults : chosen) console.log(name);
    return chosen.length === 0 ? 2 : 0;
  }
  console.log(headings());
  let bad = 0;
  for (const fault of chosen) {
    const absent = missing(...fault.needs);
    if (absent.length > 0) {
      console.log(row([fault.name, `skipped: needs ${absent.join(", ")}`]));
      continue;
    }
    for (let time = 0; time < Number(values.repeat); time++)
      try {
        const report = await fault.run();
        console.log(line(fault, report));
        for (const what of violations(report, fault)) {
          bad++;
          console.log(`  VIOLATED: ${what}`);
        }
      } catch (thrown) {
        bad++;
        console.log(row([fault.name, `FAILED: ${(thrown as Error).message}`]));
      }
  }
  console.log(
    bad === 0
      ? "nothing ran twice, nothing was reported that was not, and all recovered by themselves"
      : `${bad} violations`,
  );
  return bad === 0 ? 0 : 1;
}

if (import.meta.main) process.exit(await main());
