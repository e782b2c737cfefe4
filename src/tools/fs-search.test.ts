import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { answerOf, refusalOf } from "../../test/support/call-tool.ts";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { systemClock } from "../platform/clock.ts";
import type { Access } from "../policy/access.ts";
import { fsGlob, fsGrep, maxSearchedBytes } from "./fs-search.ts";
import { parseGlob } from "./glob-match.ts";
import { parsePattern, requiredLiteral, slices } from "./line-search.ts";

const glob = fsGlob({ clock: systemClock });
const grep = fsGrep({ clock: systemClock });

let base: string;
const files: Record<string, string | Buffer> = {
  "a.ts": "one\n  two error here  \nthree",
  "src/b.ts": "error: 1\nwarning\nerror: 2\n",
  "src/deep/c.txt": "no match\n",
  "src/.hidden": "error in hidden\n",
  "src/binary": Buffer.from("error\0\n"),
  "src/latin1": Buffer.from("error \xe4\n", "latin1"),
  "secret/keys.ts": "error secret\n",
};
beforeAll(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), "aegis-search-")));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(base, path, ".."), { recursive: true });
    writeFileSync(join(base, path), content);
  }
  symlinkSync("/etc", join(base, "src/outside"));
  symlinkSync("../secret/keys.ts", join(base, "src/link.ts"));
  Bun.spawnSync(["mkfifo", join(base, "src/pipe")]);
});
afterAll(() => rmSync(base, { recursive: true }));

const noSecrets = (access: Access) => access.kind === "path" && !access.path.startsWith(join(base, "secret"));
const below = (paths: unknown) => (paths as string[]).map((path) => relative(base, path));

describe("fs.glob", () => {
  const find = async (pattern: string, more: object = {}) => {
    const { matches } = await answerOf(glob, { path: base, pattern, ...more }, { allows: noSecrets });
    return below(matches);
  };

  test("a pattern without a slash is compared with names, at any depth", async () => {
    expect(await find("*.ts")).toEqual(["a.ts", "src/b.ts", "src/link.ts"]);
    expect(await find("[bc].*")).toEqual(["src/b.ts", "src/deep/c.txt"]);
    expect(await find("{a,b}.ts")).toEqual(["a.ts", "src/b.ts"]);
    expect(await find(".h*")).toEqual(["src/.hidden"]);
  });

  test("one with slashes is compared with paths", async () => {
    expect(await find("src/*.ts")).toEqual(["src/b.ts", "src/link.ts"]);
    expect(await find("**/c.txt")).toEqual(["src/deep/c.txt"]);
    expect(await find(`${base}/src/deep`)).toEqual(["src/deep"]);
    expect(await find("src/**/*")).not.toContain("src");
  });

  test("links are named and never entered, and what policy keeps is neither shown nor entered, but counted", async () => {
    const all = await answerOf(glob, { path: base, pattern: "*" }, { allows: noSecrets });
    expect(below(all.matches)).toContain("src/outside");
    expect(below(all.matches).filter((path) => path.includes("outside/") || path.startsWith("secret"))).toEqual([]);
    expect(all).toMatchObject({ skipped: { denied: 1 }, truncated: false });
  });

  test("a longer answer is cut and says so", async () => {
    expect(await answerOf(glob, { path: base, pattern: "*.ts", max_matches: 2 })).toMatchObject({
      count: 2,
      truncated: true,
      ended_by: "max_matches",
    });
    expect(await answerOf(glob, { path: base, pattern: "a.ts", max_matches: 1 })).toMatchObject({
      count: 1,
      truncated: false,
    });
  });

  test("what cannot be a pattern or a folder is refused in words", async () => {
    expect(await refusalOf(glob, { path: base, pattern: "{a" })).toContain("are not closed");
    expect(await refusalOf(glob, { path: base, pattern: "[a" })).toContain("its [ is never closed");
    expect(await refusalOf(glob, { path: base, pattern: "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}" })).toContain(
      "more than 100 patterns",
    );
    expect(await refusalOf(glob, { path: join(base, "a.ts"), pattern: "*" })).toContain("is no directory");
  });
});

describe("a glob", () => {
  const matches = (pattern: string, path: string) => {
    const parsed = parseGlob(pattern);
    return (
      parsed.kind === "glob" &&
      parsed.matches({ name: path.split("/").at(-1) ?? "", relative: path, path: `/root/${path}` })
    );
  };
  const cases: [pattern: string, yes: string[], no: string[]][] = [
    ["*", ["a", ".a", "x/y"], []],
    ["a?c", ["abc", "x/a\u{1F600}c"], ["ac", "abbc"]],
    ["[a-c]x", ["bx"], ["dx", "x"]],
    ["[!a-c]x", ["dx"], ["ax"]],
    ["[]]", ["]"], ["["]],
    ["\\*", ["*"], ["a"]],
    ["a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "b"]],
    ["**/*.md", ["x.md", "a/b/x.md"], ["x.mdx"]],
    ["{src,test}/{a,b{1,2}}.ts", ["src/a.ts", "test/b2.ts"], ["src/b.ts"]],
    ["/root/*.c", ["x.c"], ["a/x.c"]],
  ];
  for (const [pattern, yes, no] of cases)
    test(`${pattern} stands for what it says`, () => {
      expect(yes.filter((path) => !matches(pattern, path))).toEqual([]);
      expect(no.filter((path) => matches(pattern, path))).toEqual([]);
    });

  test("made to take for ever takes no time", () => {
    const began = performance.now();
    expect(matches(`${"*a".repeat(400)}b`, "a".repeat(255))).toBe(false);
    expect(matches(`${"**/a/".repeat(150)}b`, "a/".repeat(500))).toBe(false);
    expect(performance.now() - began).toBeLessThan(2_000);
  });
});

describe("fs.grep", () => {
  const lines = async (args: object) => {
    const { matches } = await answerOf(grep, { path: base, ...args }, { allows: noSecrets });
    return (matches as Array<{ file: string; line_number: number; line: string }>).map(
      ({ file, line_number, line }) => `${relative(base, file)}:${line_number}:${line}`,
    );
  };

  test("finds lines with their file and number, in all text files that policy lets it see", async () => {
    expect(await lines({ pattern: "error" })).toEqual([
      "a.ts:2:two error here",
      "src/.hidden:1:error in hidden",
      "src/b.ts:1:error: 1",
      "src/b.ts:3:error: 2",
    ]);
    expect(await lines({ pattern: "^(w|t)[a-z]+$" })).toEqual(["a.ts:3:three", "src/b.ts:2:warning"]);
    expect(await lines({ pattern: "ERROR: \\d", ignore_case: true })).toEqual([
      "src/b.ts:1:error: 1",
      "src/b.ts:3:error: 2",
    ]);
    expect(await lines({ pattern: "error", include: "*.ts" })).toHaveLength(3);
    expect(await lines({ pattern: "error", path: join(base, "a.ts") })).toEqual(["a.ts:2:two error here"]);
  });

  test("says what it left out", async () => {
    const answer = await answerOf(grep, { path: base, pattern: "error" }, { allows: noSecrets });
    expect(answer).toMatchObject({
      count: 4,
      files_searched: 4,
      truncated: false,
      skipped: { denied: 1, not_text: 2, unreadable: 0 },
    });
    expect(await answerOf(grep, { path: base, pattern: "error", max_matches: 1 })).toMatchObject({
      count: 1,
      truncated: true,
      ended_by: "max_matches",
    });
  });

  test("a long file is searched as far as the limit, and that is said", async () => {
    const path = join(base, "long");
    writeFileSync(path, Buffer.concat([Buffer.alloc(maxSearchedBytes, "line of filling\n"), Buffer.from("needle\n")]));
    expect(await answerOf(grep, { path, pattern: "needle" })).toMatchObject({ count: 0, files_cut: 1 });
    const last = await answerOf(grep, { path, pattern: "f[i]lling", max_matches: 1000 });
    expect(last).toMatchObject({ count: 1000, truncated: true });
    rmSync(path);
  });

  test("a search that takes too long answers with what it has", async () => {
    const clock = fakeClock();
    const slow = { ...clock, monotonic: () => clock.monotonic() + reads++ * 400, sleep: clock.sleep };
    let reads = 0;
    expect(await answerOf(fsGrep({ clock: slow }), { path: base, pattern: "error", timeout_secs: 2 })).toMatchObject({
      truncated: true,
      ended_by: "timeout_secs",
    });
  });

  test("a pattern that cannot be is refused in words", async () => {
    expect(await refusalOf(grep, { path: base, pattern: "(a" })).toContain("missing closing )");
    expect(await refusalOf(grep, { path: base, pattern: "(?=a)" })).toContain("invalid or unsupported Perl syntax");
    expect(await refusalOf(grep, { path: base, pattern: "(\\w{1,60}x){1,16}" })).toContain("too large");
  });

  test("a pattern made to take for ever takes no time", async () => {
    const path = join(base, "evil");
    writeFileSync(path, `${"a".repeat(100_000)}\n`.repeat(10));
    const began = performance.now();
    for (const pattern of ["(a*)*b", "(a|aa)+$b", "(.*)(.*)(.*)(.*)x"])
      expect(await lines({ path, pattern })).toEqual([]);
    expect(performance.now() - began).toBeLessThan(3_000);
    rmSync(path);
  });
});

describe("a pattern's literal", () => {
  const literals: [pattern: string, literal: string | null][] = [
    ["error", "error"],
    ["error.*timeout", "timeout"],
    ["colou?r", "colo"],
    ["ab+c", "ab"],
    ["ab*cd", "cd"],
    ["ab{0,2}cd", "cd"],
    ["(abc)?def", "def"],
    ["(abc)def[xyz]{3}", "def"],
    ["a\\.b\\(c", "a.b(c"],
    ["foo\\dbar1", "bar1"],
    ["\\x41bcd", null],
    ["\\Qab", null],
    ["foo|bar", null],
    ["(foo|bar)", null],
    ["(?i)foo", null],
    ["x[[:alpha:]]yy", null],
    ["a.b", null],
    ["\u{1F600}?ab", "ab"],
  ];
  for (const [pattern, literal] of literals)
    test(`of ${pattern} is ${literal}`, () => expect(requiredLiteral(pattern)).toBe(literal));

  test("changes nothing about which lines are found", async () => {
    const text = Array.from(
      { length: 300 },
      (_, i) => ["foo1bar1", "", "xx fo foo", "barfoo", `a.b(c${i}`, "colour", "ab cd"][i % 7],
    ).join("\n");
    for (const pattern of ["foo", "fo+", "foo\\d", "a\\.b", "colou?r", "^foo", "o+$", "ab{0,2} cd", "b[ac](r|f)"]) {
      const parsed = await parsePattern(pattern, { ignoreCase: false });
      if (parsed.kind === "refused") throw new Error(parsed.reason);
      const found: string[] = [];
      for (const slice of slices(text, 64))
        parsed.search(slice.text, (line, number) => found.push(`${slice.firstLine + number - 1}:${line}`) > 0);
      const expected = text
        .split("\n")
        .flatMap((line, index) => (new RegExp(pattern).test(line) ? [`${index + 1}:${line}`] : []));
      expect(found).toEqual(expected);
    }
  });
});
