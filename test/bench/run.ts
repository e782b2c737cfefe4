/**
 * `npm run bench [-- NAME...]`: figures beside what people use instead, each table from one run. `--json` for programs,
 * `--write` puts the tables into BENCHMARKS.md, `--quick` is a look at whether everything still works: its figures mean
 * nothing. Each bench is a process of its own: one that fails or takes too long stops no other, and the exit status tells.
 */
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installDebianPackages } from "../debian.mjs";
import { benches, buildExecutable, machine, markdown, type Table } from "./bench.ts";
import { writeResults } from "./results.ts";

type Outcome = { kind: "measured"; tables: Table[] } | { kind: "failed"; reason: string };

const flagNames = ["--json", "--quick", "--write"];

/** Runs one bench with a folder of its own for what is temporary; whatever it leaves behind is ended and removed. */
async function measured(name: string, minutes: number, flags: readonly string[]): Promise<Outcome> {
  const scratch = mkdtempSync(join(tmpdir(), `aegis-bench-${name}-`));
  // The user that sshd lets in must find its key below.
  chmodSync(scratch, 0o755);
  const child = spawn(process.execPath, [import.meta.path, "--child", name, ...flags], {
    ...{ env: { ...process.env, TMPDIR: scratch }, stdio: ["ignore", "pipe", "inherit"], detached: true },
  });
  const endAll = () => {
    try {
      if (child.pid) process.kill(-child.pid, "SIGKILL");
    } catch {
      // nothing of it is left
    }
  };
  let isLate = false;
  const patience = setTimeout(() => {
    isLate = true;
    endAll();
  }, minutes * 60_000);
  const clear = () => {
    endAll();
    rmSync(scratch, { recursive: true, force: true });
  };
  process.once("exit", clear);
  try {
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    const status = await new Promise((resolve) => child.once("close", (code, signal) => resolve(code ?? signal)));
    if (isLate) return { kind: "failed", reason: `it took longer than ${minutes} minutes` };
    if (status !== 0) return { kind: "failed", reason: `it ended with ${status}` };
    return { kind: "measured", tables: JSON.parse(text) as Table[] };
  } finally {
    clearTimeout(patience);
    process.off("exit", clear);
    clear();
  }
}

async function main(words: readonly string[]): Promise<number> {
  const has = (flag: string) => words.includes(flag);
  const wanted = words.filter((word) => !word.startsWith("--"));
  const unknown = words.filter((word) => !(word in benches) && !flagNames.includes(word));
  if (unknown.length > 0) {
    console.error(`unknown: ${unknown.join(" ")}; there is: ${[...Object.keys(benches), ...flagNames].join(" ")}`);
    return 2;
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
  installDebianPackages("bench/debian-packages.txt");
  buildExecutable();
  const isKept = has("--write") && !has("--quick");
  const flags = [...(has("--quick") ? ["--quick"] : []), ...(isKept ? ["--keep"] : [])];
  const on = machine();
  const results: Record<string, Table[]> = {};
  const failures: Record<string, string> = {};
  for (const name of wanted.length > 0 ? wanted : Object.keys(benches)) {
    process.stderr.write(`${name} ...\n`);
    const began = performance.now();
    const outcome = await measured(name, benches[name]?.minutes ?? 0, flags);
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    if (outcome.kind === "failed") failures[name] = outcome.reason;
    else {
      results[name] = outcome.tables;
      const told = outcome.tables.flatMap(({ notes }) => notes).find((note) => note.startsWith("failed:"));
      if (told !== undefined) failures[name] = told;
    }
    process.stderr.write(
      `${name}: ${outcome.kind === "failed" ? `FAILED: ${outcome.reason}` : "done"}, ${seconds} s\n`,
    );
    if (outcome.kind === "measured" && !has("--json")) console.log(outcome.tables.map(markdown).join("\n"));
    if (outcome.kind === "measured" && isKept) writeResults(name, outcome.tables, on);
  }
  const failed = Object.entries(failures);
  if (has("--json")) console.log(JSON.stringify({ machine: on, results, failures }, null, 2));
  else console.log(`${new Date().toISOString().slice(0, 10)}, ${on}`);
  for (const [name, reason] of failed) console.error(`failed: ${name}: ${reason}`);
  return failed.length > 0 ? 1 : 0;
}

/** The process that measures: its only output is the tables, as JSON. */
async function child(name: string, flags: readonly string[]): Promise<number> {
  const bench = await benches[name]?.load();
  if (!bench) return 2;
  const tables = await bench.default({ quick: flags.includes("--quick"), keep: flags.includes("--keep") });
  process.stdout.write(JSON.stringify(tables));
  return 0;
}

const [first, second = "", ...others] = process.argv.slice(2);
process.exit(first === "--child" ? await child(second, others) : await main(process.argv.slice(2)));
