/** The executable does what it does wherever it is started, and takes no orders from the folder it is started in. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, hardening } from "../install/build.ts";
import manifest from "../package.json" with { type: "json" };

const executable = join(import.meta.dir, "../dist/aegis");
const scratch = mkdtempSync(join(tmpdir(), "aegis-binary-"));
/** A folder whose owner would like to run code in whatever is started there. */
const hostile = join(scratch, "hostile");
const marker = join(scratch, "preload-ran");

function run(file: string, args: string[], env: Record<string, string> = {}) {
  const child = Bun.spawnSync([file, ...args], { cwd: hostile, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  return { exit: child.exitCode, stdout: child.stdout.toString(), stderr: child.stderr.toString() };
}

beforeAll(() => {
  if (!existsSync(executable)) throw new Error("dist/aegis is missing. Try: npm run build");
  mkdirSync(hostile);
  writeFileSync(join(hostile, ".env"), "FROM_DOTENV=1\nAEGIS_HOME=/from-dotenv\nAEGIS_OUTPUT=from-dotenv\n");
  writeFileSync(join(hostile, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(join(hostile, "preload.ts"), `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "");\n`);
  writeFileSync(join(hostile, "package.json"), '{"name":"hostile","type":"commonjs"}\n');
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("dist/aegis", () => {
  test("answers --version from an empty environment", () => {
    expect(run(executable, ["--version"])).toEqual({ exit: 0, stdout: `aegis ${manifest.version}\n`, stderr: "" });
  });

  test("runs no preload of the current folder, reads no .env there and leaves nothing behind", () => {
    const before = readdirSync(hostile).sort();
    const asked = [run(executable, ["--version"]), run(executable, ["edge", "status"], { HOME: scratch })];
    expect(existsSync(marker)).toBe(false);
    expect(asked.map(({ stdout, stderr }) => stdout + stderr).join("")).not.toContain("from-dotenv");
    expect(readdirSync(hostile).sort()).toEqual(before);
  });
});

describe("the build recipe", () => {
  const probe = 'console.log(process.env.FROM_DOTENV ?? "no .env");\n';

  function buildProbe(name: string, flags: readonly string[]): string {
    const entry = join(scratch, `${name}.ts`);
    writeFileSync(entry, probe);
    const outfile = join(scratch, name);
    compile({ entry, outfile, bunTarget: `bun-${process.platform}-${process.arch}`, define: {}, hardening: flags });
    return outfile;
  }

  test("keeps an executable from reading .env and bunfig.toml", () => {
    expect(run(buildProbe("hardened", hardening), [])).toEqual({ exit: 0, stdout: "no .env\n", stderr: "" });
    expect(existsSync(marker)).toBe(false);
  });

  test("without its two flags both would be obeyed, so they are needed", () => {
    expect(run(buildProbe("soft", []), []).stdout).toBe("1\n");
    expect(existsSync(marker)).toBe(true);
    rmSync(marker);
  });
});
