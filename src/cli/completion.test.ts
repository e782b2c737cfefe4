import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { AegisError } from "../errors.ts";
import { scriptFor, wordsOf } from "./completion-scripts.ts";
import { tree } from "./tree.ts";

const words = await wordsOf(tree);

function withScript<T>(shell: string, use: (path: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "aegis-completion-"));
  try {
    const path = join(folder, "_aegis");
    writeFileSync(path, scriptFor(shell, words));
    return use(path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(command: string[]): string[] {
  const { stdout, stderr, exitCode } = Bun.spawnSync(command, { stderr: "pipe" });
  if (exitCode !== 0 || stderr.length > 0) throw new Error(`${command[0]} ended with ${exitCode}: ${stderr}`);
  return stdout.toString().split("\n").filter(Boolean);
}

/** What is offered after these words, the last of which is being typed. */
type Offers = (...typed: string[]) => string[];

const inBash: Offers = (...typed) =>
  withScript("bash", (path) => {
    const list = ["aegis", ...typed].map((word) => `'${word}'`).join(" ");
    const script = `. ${path}; COMP_WORDS=(${list}); COMP_CWORD=${typed.length}; _aegis; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return run(["bash", "--norc", "-c", script]);
  });

const inZsh: Offers = (...typed) =>
  withScript("zsh", (path) => {
    // Outside the line editor there is nobody to show things to: these two print what they would offer.
    const list = ["aegis", ...typed].map((word) => `'${word}'`).join(" ");
    const script = `compdef() { : }; compadd() { shift; print -l -- "$@" }; _files() { : }
      _describe() { local name; for name in "\${(@P)2}"; do print -r -- "\${name%%:*}"; done }
      . ${path}; words=(${list}); CURRENT=${typed.length + 1}; _aegis`;
    return run(["zsh", "-f", "-c", script]).filter((word) => word.startsWith(typed.at(-1) ?? ""));
  });

const inFish: Offers = (...typed) =>
  withScript("fish", (path) =>
    run(["fish", "--no-config", "-c", `source ${path}; complete -C ${JSON.stringify(`aegis ${typed.join(" ")}`)}`]).map(
      (line) => line.split("\t")[0] ?? "",
    ),
  );

const shells: [string, "bash" | "zsh" | "fish", Offers][] = [
  ["bash", "bash", inBash],
  ["zsh", "zsh", inZsh],
  ["fish", "fish", inFish],
];
for (const [name, program, offers] of shells)
  describe(`completion in ${name}`, () => {
    needs(`command:${program}`)(`finishes commands, flags and the values of flags (${name})`, () => {
      expect(offers("ed")).toEqual(["edge"]);
      expect(offers("edge", "fleet", "")).toEqual(expect.arrayContaining(["preview", "run", "cancel"]));
      expect(offers("edge", "fleet", "run", "--max")).toEqual(["--max-concurrency"]);
      expect(offers("edge", "fleet", "run", "--tool", "x", "--max")).toEqual(["--max-concurrency"]);
      expect(offers("edge", "ls", "--output", "")).toEqual(expect.arrayContaining(["table", "json", "yaml"]));
      expect(offers("edge", "fleet", "run", "--tool", "edge", "--yes", "--requ")).toEqual(["--require-min"]);
    });
  });

test("the PowerShell script names every command and escapes what quotes", () => {
  const script = scriptFor("powershell", words);
  for (const path of words.keys()) expect(script).toContain(`'${path}' = @(`);
  expect(scriptFor("powershell", new Map([["", [{ text: "a", summary: "it's" }]]]))).toContain("@('a', 'it''s')");
});

test("another shell is refused by name", () => {
  expect(() => scriptFor("bahs", words)).toThrow('no completion for "bahs"; did you mean bash?');
  expect(() => scriptFor("constructor", words)).toThrow(AegisError);
});
