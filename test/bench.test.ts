/** Every bench runs and fills its tables; the figures of such a quick run mean nothing. `npm run bench` has the real ones. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { benches, type Table } from "./bench/bench.ts";
import { withResults } from "./bench/results.ts";
import { missing, needs, type Requirement } from "./support/needs.ts";

setDefaultTimeout(120_000);

const run = join(import.meta.dir, "bench/run.ts");
const ssh: Requirement[] = ["root", "linux", "command:sshd", "command:ssh"];
const required: Readonly<Record<string, Requirement[]>> = {
  startup: [],
  footprint: ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon", "command:ss"],
  dispatch: [...ssh, "command:python3"],
  fanout: [...ssh, "command:python3", "command:clush"],
  stream: ssh,
  crypto: ["linux", "command:python3"],
  scale: ["linux", "command:prlimit"],
  grep: ["linux", "command:python3"],
};

async function ended(...words: string[]) {
  const child = Bun.spawn([process.execPath, ...words], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { exit: await child.exited, stdout, stderr };
}

const bench = (...words: string[]) => ended(run, ...words);

const soakNeeds: Requirement[] = ["linux", "command:python3"];
const soak = () => ended(join(import.meta.dir, "bench/soak.ts"), "--minutes", "0.04");

/** Most of a bench is waiting, so some run at a time, those that take longest first; each test waits for its own. */
const atOnce = 6;
const longest = ["footprint", "scale", "soak"];
const outcomes = new Map<string, ReturnType<typeof bench>>();
const runnable = [...longest, ...Object.keys(benches).filter((name) => !longest.includes(name))].filter(
  (name) => missing(...(name === "soak" ? soakNeeds : (required[name] ?? []))).length === 0,
);
const waiting = runnable.map((name) => ({ name, done: Promise.withResolvers<Awaited<ReturnType<typeof bench>>>() }));
for (const { name, done } of waiting) outcomes.set(name, done.promise);
for (let place = 0; place < atOnce; place++)
  void (async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const { name, done } = next;
      await (name === "soak" ? soak() : bench("--child", name, "--quick")).then(done.resolve, done.reject);
    }
  })();

for (const name of Object.keys(benches))
  needs(...(required[name] ?? []))(`${name} fills its tables`, async () => {
    const { exit = -1, stdout = "", stderr = "" } = (await outcomes.get(name)) ?? {};
    expect([exit, exit === 0 ? "" : stderr]).toEqual([0, ""]);
    const tables = JSON.parse(stdout) as Table[];
    expect(tables.length).toBeGreaterThan(0);
    for (const { columns, rows, notes } of tables) {
      expect(notes.filter((note) => note.startsWith("failed:"))).toEqual([]);
      expect(rows.length).toBeGreaterThan(0);
      for (const row of rows) expect(row).toHaveLength(columns.length);
      expect(rows.flat().filter((cell) => /NaN|undefined|Infinity/.test(cell))).toEqual([]);
    }
  });

needs(...soakNeeds)("a soak measures the controller and its hosts", async () => {
  const { exit = -1, stdout = "", stderr = "" } = (await outcomes.get("soak")) ?? {};
  expect([exit, stderr]).toEqual([0, expect.stringMatching(/^\d+ s: [\d ]+ MB$/m)]);
  expect(stdout).toMatch(/^\| controller \| [\d.]+ \| [\d.]+ \|/m);
  expect(stdout).toMatch(/^\| host-1, W\^X \| [\d.]+ \| [\d.]+ \|/m);
});

test("a name that is no bench is refused with those that are", async () => {
  const { exit, stderr } = await bench("startpu");
  expect([exit, stderr]).toEqual([2, expect.stringContaining("unknown: startpu; there is: startup ")]);
});

test("BENCHMARKS.md has a place for the tables of every bench, and they replace those of the run before", () => {
  const text = readFileSync(join(import.meta.dir, "../BENCHMARKS.md"), "utf8");
  const table: Table = { title: "New", columns: ["way", "ms"], rows: [["ours", "1.0"]], notes: ["a note"] };
  for (const name of Object.keys(benches)) {
    const once = withResults(text, name, [table], "*a machine*");
    expect(once).toContain(`<!-- ${name} -->\n\n### New\n\n| way | ms |\n| --- | ---: |\n| ours | 1.0 |\n`);
    expect(withResults(once, name, [table], "*a machine*")).toBe(once);
  }
});
