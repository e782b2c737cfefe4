/**
 * `npm run fuzz -- --cases N [--seed S] [--only WORDS]`: N cases over all targets. A finding is printed with the seed of its
 * very case, which `--seed` repeats alone.
 */
import { watched } from "./watched.ts";

const value = (flag: string) => {
  const at = process.argv.indexOf(flag);
  return at > 0 ? process.argv[at + 1] : undefined;
};
const only = value("--only");
const seed = Number(value("--seed") ?? Date.now() % 2 ** 32);
const started = performance.now();
const report = await watched({
  cases: Number(value("--cases") ?? 10_000),
  seed,
  ...(only === undefined ? {} : { only }),
});
for (const { target, taken, refused } of report.targets)
  console.log(`${String(taken).padStart(7)} taken ${String(refused).padStart(7)} refused  ${target}`);
for (const { target, seed: own, what } of report.findings)
  console.error(
    `finding: ${target}\n${what}\nrepeat: npm run fuzz -- --cases 1 --seed ${own} --only ${JSON.stringify(target)}\n`,
  );
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(
  `${report.cases} cases, seed ${seed}: ${report.findings.length} findings, slowest ${report.slowestMs.toFixed(1)} ms, ${seconds} s`,
);
process.exitCode = report.findings.length > 0 ? 1 : 0;
