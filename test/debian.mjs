/**
 * Debian packages that tests need and Node does not bring: installed where root and apt exist, so that nothing is skipped
 * there. Elsewhere tests that need them say so in their names.
 */
// @ts-check
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** One package a line; what follows `#` says which tests need it. @param {string} text */
export const packagesIn = (text) =>
  text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "");

/** Those of `wanted` that dpkg does not have. @param {string[]} wanted */
function missingPackages(wanted) {
  const format = "--showformat=$" + "{Package} $" + "{db:Status-Status}\\n";
  const run = spawnSync("dpkg-query", ["-W", format, ...wanted], { encoding: "utf8" });
  const present = new Set((run.stdout ?? "").split("\n").filter((line) => line.endsWith(" installed")));
  return wanted.filter((name) => !present.has(`${name} installed`));
}

/**
 * Says in one line what it installs; a failure is told and left to the tests, which name what they miss.
 * @param {string} [list] a file beside this one
 */
export function installDebianPackages(list = "debian-packages.txt") {
  if (process.platform !== "linux" || process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) return;
  const missing = missingPackages(packagesIn(readFileSync(join(here, list), "utf8")));
  if (missing.length === 0) return;
  process.stderr.write(`installing Debian packages for tests: ${missing.join(" ")} ...\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const apt = (/** @type {string[]} */ ...args) =>
    spawnSync("apt-get", ["-qq", "-o", "DPkg::Lock::Timeout=120", ...args], { env, encoding: "utf8" });
  const updated = apt("update");
  const run = apt("install", "-y", "--no-install-recommends", ...missing);
  if (run.status === 0) return;
  process.stderr.write(`could not install them:\n${updated.stderr ?? ""}${run.stderr ?? run.error}\n`);
}
