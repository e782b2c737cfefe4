/** The test runner itself: a run that broke must never look like a run that passed. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findBun, isInstalled } from "../install/setup.mjs";
import { isAvoidable, readReport } from "./run.mjs";
import { missing } from "./support/needs.ts";

const scratch = mkdtempSync(join(tmpdir(), "aegis-run-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const suite = (cases: string) => `<testsuites><testsuite name="a.test.ts">${cases}</testsuite></testsuites>`;
const testcase = (name: string, inside = "") =>
  `<testcase name="${name}" classname="grp &lt;x&gt;" file="a.test.ts" line="7"${inside ? `>${inside}</testcase>` : " />"}`;

describe("a report is read", () => {
  test("into what passed, failed and was skipped", () => {
    const failure = '<failure type="AssertionError" message="not &quot;it&quot;&#10;&#10;at all">x</failure>';
    const xml = suite(
      testcase("fine") +
        testcase("bad", failure) +
        testcase("late (skipped: needs root)", "<skipped />") +
        testcase("fine too"),
    );
    expect(readReport(xml, ["a.test.ts"])).toEqual({
      passed: 2,
      failures: [{ where: "a.test.ts:7", name: "grp <x> > bad", message: 'not "it"\n\nat all' }],
      skips: [{ where: "a.test.ts:7", name: "grp <x> > late (skipped: needs root)", reason: "root" }],
    });
  });

  test("and a file that is missing from it counts as failed", () => {
    expect(readReport(suite(testcase("fine")), ["a.test.ts", "b.test.ts"]).failures).toHaveLength(1);
    expect(readReport("", ["a.test.ts"]).failures).toHaveLength(1);
  });
});

describe("a skip", () => {
  const skip = (reason: string | null) => ({ where: "", name: "", reason });

  test("that names nothing, or only what a package manager provides, is avoidable", () => {
    const library = "file:/usr/lib/python3/dist-packages/grpc/__init__.py";
    const avoidable = [null, "root", "command:python3", "root, command:nft", library, `command:protoc, ${library}`];
    expect(avoidable.filter((reason) => !isAvoidable(skip(reason)))).toEqual([]);
    const given = ["linux", "file:/dev/net/tun", "file:/sys/kernel/security", "root, linux"];
    expect(given.filter((reason) => isAvoidable(skip(reason)))).toEqual([]);
  });

  test("names exactly what is missing", () => {
    expect(missing("command:sh", "command:no-such-command", "file:/no/such/file", `file:${scratch}`)).toEqual([
      "command:no-such-command",
      "file:/no/such/file",
    ]);
  });
});

describe("an installation", () => {
  const lock = {
    packages: {
      "": {},
      "node_modules/a": { version: "1.0.0", integrity: "x" },
      "node_modules/mac": { optional: true },
    },
  };
  const folder = (name: string, installed: unknown) => {
    const path = join(scratch, name);
    mkdirSync(join(path, "node_modules"), { recursive: true });
    writeFileSync(join(path, "package-lock.json"), JSON.stringify(lock));
    writeFileSync(join(path, "package.json"), JSON.stringify({ dependencies: { bun: "1.0.0" } }));
    if (installed) writeFileSync(join(path, "node_modules/.package-lock.json"), JSON.stringify(installed));
    return path;
  };

  test("is current when everything named is there, but for what belongs to other platforms", () => {
    expect(
      isInstalled(folder("current", { packages: { "node_modules/a": { version: "1.0.0", integrity: "x" } } })),
    ).toBe(true);
    expect(isInstalled(folder("none", null))).toBe(false);
    expect(isInstalled(folder("empty", { packages: {} }))).toBe(false);
    expect(isInstalled(folder("older", { packages: { "node_modules/a": { version: "0.9.0", integrity: "x" } } }))).toBe(
      false,
    );
  });

  test("finds the runtime in its platform's package when the bun package holds only a placeholder", () => {
    const path = folder("no-scripts", null);
    const place = (file: string, text: string) => {
      mkdirSync(join(path, file, ".."), { recursive: true });
      writeFileSync(join(path, file), text, { mode: 0o755 });
    };
    place("node_modules/bun/bin/bun.exe", "#!/bin/sh\nexit 1\n");
    place("node_modules/@oven/bun-linux-x64-musl/bin/bun", "#!/no/such/loader\n");
    expect(() => findBun(path)).toThrow("no Bun 1.0.0 that runs on");
    place("node_modules/@oven/bun-linux-x64/bin/bun", "#!/bin/sh\necho 1.0.0\n");
    expect(findBun(path)).toBe(join(path, "node_modules/@oven/bun-linux-x64/bin/bun"));
  });
});
