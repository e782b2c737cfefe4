/**
 * Makes a fresh clone ready with nothing but Node and npm: installs what the lockfile names and finds the project's Bun.
 * `node install/setup.mjs ARG...` does that and then runs Bun with those arguments.
 */
// @ts-check
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** A message for people without a stack: what failed and what to do. */
export class SetupError extends Error {}

/** @param {string} path @returns {Record<string, any>} */
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

/**
 * Whether node_modules holds what package-lock.json names. npm writes its own record last, so half an install has none.
 * Optional packages may be missing: they belong to other platforms.
 * @param {string} [folder]
 */
export function isInstalled(folder = root) {
  const record = join(folder, "node_modules/.package-lock.json");
  if (!existsSync(record)) return false;
  const wanted = readJson(join(folder, "package-lock.json")).packages;
  const present = readJson(record).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "" || (entry.optional && !present[path])) return true;
    return present[path]?.version === entry.version && present[path]?.integrity === entry.integrity;
  });
}

/** Installs if needed; says so in one line and shows npm's own words only when it fails. */
function install() {
  if (isInstalled()) return;
  process.stderr.write("installing what package-lock.json names (npm ci) ...\n");
  const npmScript = process.env.npm_execpath;
  const flags = [
    "ci",
    "--include=dev",
    "--include=optional",
    "--no-audit",
    "--no-fund",
    "--no-progress",
    "--loglevel=error",
  ];
  const options = { cwd: root, encoding: /** @type {const} */ ("utf8"), maxBuffer: 64 * 1024 * 1024 };
  const run = npmScript?.endsWith(".js")
    ? spawnSync(process.execPath, [npmScript, ...flags], options)
    : spawnSync("npm", flags, { ...options, shell: process.platform === "win32" });
  if (run.status === 0) return;
  const said = `${run.stdout ?? ""}${run.stderr ?? ""}`.trim() || (run.error?.message ?? `ended with ${run.signal}`);
  throw new SetupError(`npm ci failed in ${root}:\n${said}`);
}

/**
 * The pinned Bun. Its package moves the runtime into place in a lifecycle script; where scripts are off the runtime
 * still lies in the package of this platform, so every place is tried and the first that answers rightly wins.
 * @param {string} [folder]
 */
export function findBun(folder = root) {
  const wanted = readJson(join(folder, "package.json")).dependencies.bun;
  const oven = join(folder, "node_modules/@oven");
  const packages = existsSync(oven) ? readdirSync(oven).sort() : [];
  const places = [join(folder, "node_modules/bun"), ...packages.map((name) => join(oven, name))];
  const candidates = places.flatMap((place) => [join(place, "bin/bun.exe"), join(place, "bin/bun")]).filter(existsSync);
  const found = candidates.find((path) => {
    const answer = spawnSync(path, ["--version"], { encoding: "utf8", timeout: 20_000 });
    return answer.status === 0 && answer.stdout.trim() === wanted;
  });
  if (found) return found;
  const tried = candidates.length === 0 ? "none was installed" : `these did not answer: ${candidates.join(", ")}`;
  throw new SetupError(
    `no Bun ${wanted} that runs on ${process.platform}-${process.arch} (${tried}).\nTry: npm ci --include=optional`,
  );
}

/** Installed and ready: the path of Bun. */
export function setup() {
  install();
  return findBun();
}

/** Builds dist/aegis unless it is current. @param {string} bun */
export function build(bun) {
  const run = spawnSync(bun, [join(root, "install/build.ts")], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (run.status !== 0) throw new SetupError("dist/aegis could not be built; the reason stands above");
}

/**
 * Runs a command in the foreground until it ends and answers its exit status; 128 + n when signal n ended it.
 * A terminal sends Ctrl-C to both of us, so it is passed on only where there is no terminal. When npm is ended, the
 * shell between us dies without a word to us: a new parent is the only sign of it.
 * @param {string} command @param {string[]} args @returns {Promise<number>}
 */
export function foreground(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit" });
    for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]))
      process.on(signal, () => {
        if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
      });
    const parent = process.ppid;
    const orphaned = () => {
      if (process.ppid !== parent) child.kill("SIGTERM");
    };
    const watch = process.env.npm_lifecycle_event ? setInterval(orphaned, 500) : undefined;
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      clearInterval(watch);
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0));
    });
  });
}

/** Runs a script's main part; a SetupError is printed without a stack and ends with status 1. @param {() => Promise<number>} main */
export async function runMain(main) {
  try {
    process.exitCode = await main();
  } catch (error) {
    process.stderr.write(
      `${error instanceof SetupError ? error.message : (error instanceof Error && error.stack) || error}\n`,
    );
    process.exitCode = 1;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await runMain(async () => foreground(setup(), process.argv.slice(2)));
}
