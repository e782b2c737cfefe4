/** The process in which the cases run: says in a shared file which one begins, and at the end prints the report. */
import { type FuzzTarget, fuzz } from "./fuzz.ts";

const [module = "", file = "", cases = "0", seed = "0", only = ""] = process.argv.slice(2);
const { targets } = (await import(module)) as { targets: readonly FuzzTarget[] };
const progress = new Uint32Array(Bun.mmap(file, { shared: true }).buffer, 0, 3);
let begun = 0;
const report = await fuzz(
  targets.filter(({ name }) => name.includes(only)),
  Number(cases),
  Number(seed),
  (target, caseSeed) => {
    progress[1] = target;
    progress[2] = caseSeed;
    progress[0] = ++begun;
  },
);
await Bun.write(Bun.stdout, JSON.stringify(report));
process.exit(0);
