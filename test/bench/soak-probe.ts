/** Loaded into dist/aegis by BUN_OPTIONS, for the soak alone: at SIGUSR2 it collects garbage and writes down what is left. */
import { heapStats } from "bun:jsc";
import { renameSync, writeFileSync } from "node:fs";

export interface ProbeReport {
  heapBytes: number;
  objects: number;
  timers: number;
}

process.on("SIGUSR2", () => {
  Bun.gc(true);
  const { heapSize, objectCount, objectTypeCounts } = heapStats();
  const report: ProbeReport = { heapBytes: heapSize, objects: objectCount, timers: objectTypeCounts.Timeout ?? 0 };
  const file = `${process.env.AEGIS_SOAK_FOLDER}/${process.pid}.json`;
  writeFileSync(`${file}.new`, JSON.stringify(report));
  renameSync(`${file}.new`, file);
});
