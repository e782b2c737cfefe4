/** Tests that need something of the machine run where it exists, and elsewhere say in their name what was missing. */

import { test } from "bun:test";
import { existsSync } from "node:fs";

/**
 * All but `linux` and files of the kernel (/dev, /proc, /sys) can be had by root with a package manager: CI takes their
 * absence for a failure. What npm test may install stands in test/debian-packages.txt.
 */
export type Requirement = "root" | "linux" | `command:${string}` | `file:${string}`;

/** How a skipped test's name ends; test/run.mjs reads it. */
const suffix = (missing: readonly string[]) => ` (skipped: needs ${missing.join(", ")})`;

function has(requirement: Requirement): boolean {
  if (requirement === "root") return process.getuid?.() === 0;
  if (requirement === "linux") return process.platform === "linux";
  const [kind = "", ...rest] = requirement.split(":");
  const value = rest.join(":");
  return kind === "command" ? Bun.which(value) !== null : existsSync(value);
}

export const missing = (...requirements: Requirement[]): Requirement[] => requirements.filter((one) => !has(one));

/** `test` where everything is there; otherwise a skipped test that names what is not. */
export function needs(...requirements: Requirement[]) {
  const absent = missing(...requirements);
  return (name: string, body: (() => void) | (() => Promise<unknown>), timeoutMs?: number): void => {
    if (absent.length === 0) test(name, body, timeoutMs);
    else test.skip(`${name}${suffix(absent)}`, body, timeoutMs);
  };
}
