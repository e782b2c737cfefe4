/**
 * `npm run check`: format, lint, types, generated code current, then the build and every test; each check counts as one
 * test in the last line. `--fast` leaves the build and the tests out; `--ci` is as in test/run.mjs.
 */
// @ts-check
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { build, root, runMain, SetupError, setup } from "../install/setup.mjs";
import { installDebianPackages } from "./debian.mjs";
import { counted, printTotal, runTests } from "./run.mjs";

/** Runs one tool; what it says is printed only when it fails. @param {string} name @param {string[]} command @param {string} remedy */
function check(name, command, remedy) {
  const [program = "", ...args] = command;
  const run = spawnSync(program, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (run.status === 0) return process.stdout.write(`ok: ${name}\n`);
  const said = `${run.stdout ?? ""}${run.stderr ?? ""}`.trim() || String(run.error ?? run.signal);
  throw new SetupError(`${name}\n${said}\n${remedy}`);
}

/** @param {string[]} argv */
async function main(argv) {
  const unknown = argv.find((word) => word !== "--fast" && word !== "--ci");
  if (unknown !== undefined) throw new SetupError(`unknown argument ${unknown}; there is: --fast --ci`);
  const bun = setup();
  const biome = [process.execPath, join(root, "node_modules/@biomejs/biome/bin/biome")];
  const tsc = [process.execPath, join(root, "node_modules/typescript/bin/tsc")];
  const total = { passed: 0, failed: 0 };
  /** @param {{ passed: number, failed: number }} more */
  const add = (more) => {
    total.passed += more.passed;
    total.failed += more.failed;
  };
  add(await counted(() => check("format", [...biome, "format", "."], "Try: npm run format")));
  add(
    await counted(() =>
      check(
        "lint",
        [...biome, "check", "--formatter-enabled=false", "--error-on-warnings", "."],
        "Try: npm run format",
      ),
    ),
  );
  add(await counted(() => check("types", [...tsc, "-p", "."], "Try: npm run types")));
  const generated = [bun, join(root, "proto/generate.ts"), "--check"];
  add(await counted(() => check("generated code is current", generated, "Try: npm run generate")));
  if (argv.includes("--fast")) return printTotal(total);

  installDebianPackages();
  add(await counted(() => build(bun)));
  const ci = argv.includes("--ci") || Boolean(process.env.CI);
  add(await runTests(bun, [], { ci, serial: false }));
  return printTotal(total);
}

await runMain(() => main(process.argv.slice(2)));
