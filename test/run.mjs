/**
 * `npm test [PATTERN...]`: installs, builds, runs every test file (or those whose path contains a pattern) and ends with
 * the line `N passed, N failed`. `--ci` also fails skips that a CI machine could avoid; `--serial` uses one process.
 */
// @ts-check
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build, root, runMain, SetupError, setup } from "../install/setup.mjs";
import { installDebianPackages } from "./debian.mjs";

/** @typedef {{ where: string, name: string, message: string }} Failure */
/** @typedef {{ where: string, name: string, reason: string | null }} Skip */
/** @typedef {{ passed: number, failures: Failure[], skips: Skip[] }} Report */

const maxRunMs = 20 * 60_000;

/** Test files below src and test, sorted, as paths relative to the root. @param {string[]} patterns */
export function testFiles(patterns) {
  const below = ["src", "test"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) => join(folder, path)),
  );
  const files = below.map((path) => path.replaceAll("\\", "/")).filter((path) => path.endsWith(".test.ts"));
  return files.sort().filter((path) => patterns.length === 0 || patterns.some((pattern) => path.includes(pattern)));
}

const entities = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/** @param {string} text */
const plain = (text) =>
  text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex, decimal, name) => {
    if (hex || decimal) return String.fromCodePoint(Number.parseInt(hex ?? decimal, hex ? 16 : 10));
    return entities[/** @type {keyof typeof entities} */ (name)] ?? whole;
  });

/** @param {string} text @param {string} name */
const attribute = (text, name) => plain(new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1] ?? "");

/**
 * What a JUnit report says. A file that ended early, could not be loaded or has no tests is missing from it, or bun
 * calls it fine, so every file we asked for must appear.
 * @param {string} xml @param {string[]} files @returns {Report}
 */
export function readReport(xml, files) {
  /** @type {Report} */
  const report = { passed: 0, failures: [], skips: [] };
  const seen = new Set();
  for (const [, head = "", body = ""] of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const file = attribute(head, "file").replaceAll("\\", "/");
    const inside = attribute(head, "classname");
    const where = `${file}:${attribute(head, "line")}`;
    const name = `${inside ? `${inside} > ` : ""}${attribute(head, "name")}`;
    seen.add(file);
    const failure = /<(?:failure|error)\b([^>]*)/.exec(body);
    if (failure) report.failures.push({ where, name, message: attribute(failure[1] ?? "", "message") });
    else if (/<skipped\b/.test(body)) report.skips.push({ where, name, reason: skipReason(name) });
    else report.passed += 1;
  }
  for (const file of files)
    if (!seen.has(file))
      report.failures.push({
        where: file,
        name: "the file as a whole",
        message: "reported no test: see its output above",
      });
  return report;
}

/** What test/support/needs.ts wrote into the name. @param {string} name */
const skipReason = (name) => /\(skipped: needs (.+)\)$/.exec(name)?.[1] ?? null;

/** What a kernel has or has not; everything else is root's and the package manager's to provide. @param {string} need */
const isGiven = (need) => need === "linux" || /^file:\/(?:dev|proc|sys)\//.test(need);

/** A skip that names nothing, or only what root and a package manager can provide. @param {Skip} skip */
export const isAvoidable = (skip) => skip.reason === null || !skip.reason.split(", ").some(isGiven);

/**
 * Runs the files and prints what failed and what was skipped.
 * @param {string} bun @param {string[]} patterns @param {{ ci: boolean, serial: boolean }} options
 * @returns {Promise<{ passed: number, failed: number }>}
 */
export async function runTests(bun, patterns, options) {
  const files = testFiles(patterns);
  if (files.length === 0) throw new SetupError(`no test file matches ${patterns.join(" ") || "*.test.ts"}`);
  const scratch = mkdtempSync(join(tmpdir(), "aegis-test-"));
  try {
    const outfile = join(scratch, "report.xml");
    const workers = options.serial ? ["--isolate"] : ["--parallel=2"];
    const flags = [
      "--only-failures",
      "--timeout=30000",
      ...workers,
      "--reporter=junit",
      `--reporter-outfile=${outfile}`,
    ];
    const status = await new Promise((resolve, reject) => {
      const child = spawn(bun, ["test", ...flags, ...files.map((file) => `./${file}`)], {
        cwd: root,
        stdio: "inherit",
      });
      const watchdog = setTimeout(() => child.kill("SIGKILL"), maxRunMs);
      child.on("error", reject);
      child.on("exit", (code, signal) => {
        clearTimeout(watchdog);
        resolve(code ?? signal);
      });
    });
    const report = readReport(existsSync(outfile) ? readFileSync(outfile, "utf8") : "", files);
    if (status !== 0 && report.failures.length === 0)
      report.failures.push({ where: "bun test", name: "the run as a whole", message: `ended with ${status}` });
    print(report, options.ci);
    const avoidable = options.ci ? report.skips.filter(isAvoidable).length : 0;
    return { passed: report.passed, failed: report.failures.length + avoidable };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** @param {Report} report @param {boolean} ci */
function print(report, ci) {
  const lines = report.failures.map(({ where, name, message }) => {
    const first = message.split("\n").find((line) => line.trim() !== "") ?? "";
    return `failed: ${where} ${name}${first ? `: ${first}` : ""}`;
  });
  for (const skip of report.skips) {
    const reason = skip.reason === null ? " (gives no reason)" : "";
    lines.push(
      `${ci && isAvoidable(skip) ? "failed, must run in CI" : "skipped"}: ${skip.where} ${skip.name}${reason}`,
    );
  }
  if (lines.length > 0) process.stdout.write(`\n${lines.join("\n")}\n`);
}

/**
 * Prints the last line; answers the exit status. That nothing ran is a failure too.
 * @param {{ passed: number, failed: number }} total
 */
export function printTotal({ passed, failed }) {
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  return failed > 0 || passed === 0 ? 1 : 0;
}

/** Does `step`; a SetupError is printed and counts as one failure. @param {() => unknown} step */
export async function counted(step) {
  try {
    await step();
    return { passed: 1, failed: 0 };
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stdout.write(`failed: ${error.message}\n`);
    return { passed: 0, failed: 1 };
  }
}

/** @param {string[]} argv */
async function main(argv) {
  const flags = argv.filter((word) => word.startsWith("--"));
  const unknown = flags.find((flag) => flag !== "--ci" && flag !== "--serial");
  if (unknown !== undefined) throw new SetupError(`unknown flag ${unknown}; there is: --ci --serial`);
  const options = { ci: flags.includes("--ci") || Boolean(process.env.CI), serial: flags.includes("--serial") };
  const patterns = argv.filter((word) => !word.startsWith("--"));
  const total = { passed: 0, failed: 0 };
  const { failed } = await counted(async () => {
    const bun = setup();
    installDebianPackages();
    total.failed += (await counted(() => build(bun))).failed;
    const tests = await runTests(bun, patterns, options);
    total.passed += tests.passed;
    total.failed += tests.failed;
  });
  return printTotal({ passed: total.passed, failed: total.failed + failed });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await runMain(() => main(process.argv.slice(2)));
