import { expect, test } from "bun:test";
import { needs } from "../../test/support/needs.ts";
import { splitWords } from "./word-split.ts";

const words = (line: string) => {
  const split = splitWords(line);
  return split.kind === "words" ? split.words : split.reason;
};

const lines = [
  "ls -l  /tmp\t x",
  "  padded  ",
  `echo 'a b' "c d" e\\ f`,
  `echo 'it'"'"'s' '' "" x''y`,
  `echo "a\\"b" "a\\\\b" "a\\b" 'a\\b' a\\\\b`,
  `echo "\\$HOME" '$HOME' \\$HOME`,
  `echo "a;b|c" 'x&y' \\; \\| \\(`,
  `grep -e "it's" 'say "hi"'`,
];

needs("file:/bin/sh")("words are what a POSIX shell makes of the same line", () => {
  for (const line of lines) {
    const shell = Bun.spawnSync(["/bin/sh", "-c", `for word in ${line}; do printf '%s\\0' "$word"; done`]);
    expect(words(line)).toEqual(shell.stdout.toString().split("\0").slice(0, -1));
  }
});

test("nothing is expanded", () => {
  expect(words("echo $HOME `id` *.ts ~ #x {a,b} !x")).toEqual([
    "echo",
    "$HOME",
    "`id`",
    "*.ts",
    "~",
    "#x",
    "{a,b}",
    "!x",
  ]);
  expect(words("")).toEqual([]);
});

test("what only a shell can do is refused and not passed on as a word", () => {
  for (const operator of ["|", "&", ";", "<", ">", "(", ")"])
    expect(words(`a ${operator} b`)).toBe(`${operator} at character 3 needs a shell, or quotes`);
  expect(words("a\nb")).toBe("it has more than one line");
});

test("an open quote is told with its place", () => {
  expect(words("echo 'abc")).toBe("the ' at character 6 is never closed");
  expect(words('echo "abc\\"')).toBe('the " at character 6 is never closed');
  expect(words("echo \\")).toBe("it ends in a \\");
});
