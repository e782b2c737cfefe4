/** Runs the cases in a process of their own: one that never ends stops nobody but itself, and is named like any finding. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FuzzReport, FuzzTarget } from "./fuzz.ts";

/** How long one case may go on before its process is ended. What ends within it is told how long it took. */
const hangMs = 10_000;

export interface WatchedOptions {
  /** A module that exports `targets`. */
  module?: string;
  cases: number;
  seed: number;
  /** Only targets whose name holds these words. */
  only?: string;
  /** Instead of ten seconds. */
  patienceMs?: number;
}

/** Where the child says what it begins: how many cases before, which target, which seed. */
export const progressWords = 3;

export async function watched(options: WatchedOptions): Promise<FuzzReport> {
  const { module = join(import.meta.dir, "targets.ts"), cases, seed, only = "", patienceMs = hangMs } = options;
  const folder = mkdtempSync(join(tmpdir(), "aegis-fuzz-"));
  const file = join(folder, "progress");
  writeFileSync(file, Buffer.alloc(progressWords * 4));
  const command = [
    process.execPath,
    join(import.meta.dir, "child.ts"),
    module,
    file,
    String(cases),
    String(seed),
    only,
  ];
  const child = Bun.spawn(command, {
    ...{ stdin: "ignore", stdout: "pipe", stderr: "inherit" },
    env: { ...process.env, TMPDIR: folder },
  });
  try {
    const output = new Response(child.stdout).text();
    const hanging = await watch(file, child, patienceMs);
    if (hanging) {
      const targets = ((await import(module)) as { targets: FuzzTarget[] }).targets;
      const target = targets.filter(({ name }) => name.includes(only))[hanging.target]?.name ?? "?";
      const what = `did not end within ${patienceMs / 1000} s`;
      return {
        cases: hanging.cases,
        targets: [],
        findings: [{ target, seed: hanging.seed, what }],
        slowestMs: patienceMs,
      };
    }
    const text = await output;
    if (child.exitCode !== 0) throw new Error(`the cases ended with ${child.exitCode ?? child.signalCode}: ${text}`);
    return JSON.parse(text) as FuzzReport;
  } finally {
    child.kill("SIGKILL");
    await child.exited;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Null once the child has ended by itself, else the case that it does not get past. */
async function watch(
  file: string,
  child: Bun.Subprocess,
  patienceMs: number,
): Promise<{ cases: number; target: number; seed: number } | null> {
  let seen = -1;
  let since = performance.now();
  while (child.exitCode === null && child.signalCode === null) {
    await Promise.race([child.exited, Bun.sleep(100)]);
    const words = readFileSync(file);
    const cases = words.readUInt32LE(0);
    if (cases !== seen) {
      seen = cases;
      since = performance.now();
    } else if (cases > 0 && performance.now() - since > patienceMs)
      return { cases, target: words.readUInt32LE(4), seed: words.readUInt32LE(8) };
  }
  return null;
}
