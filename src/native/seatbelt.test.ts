import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { quoted, seatbeltArgs, seatbeltProfile } from "./seatbelt.ts";

const paths = {
  protectedPaths: ["/Users/ann/.aegis/edge", "/Users/ann/.aegis", "/private/etc/aegis/node.key"],
  readOnlyPaths: ["/usr/local/bin/aegis", "/Users/ann/Library/LaunchAgents"],
};

type Form = string | { text: string } | Form[];

/** Reads the language as its own reader does: lists, words, strings with escapes, comments to the end of a line. */
function read(source: string): Form[] {
  let at = 0;
  const list = (isInner: boolean): Form[] => {
    const forms: Form[] = [];
    for (;;) {
      const char = source[at++];
      if (char === undefined) {
        if (isInner) throw new Error("a list without an end");
        return forms;
      }
      if (/\s/.test(char)) continue;
      if (char === ";") at = source.indexOf("\n", at) + 1 || source.length;
      else if (char === "(") forms.push(list(true));
      else if (char === ")") {
        if (!isInner) throw new Error("an end without a list");
        return forms;
      } else if (char === '"') {
        let text = "";
        for (; source[at] !== '"'; at++) {
          if (source[at] === undefined) throw new Error("a string without an end");
          if (source[at] === "\\") at++;
          text += source[at];
        }
        at++;
        forms.push({ text });
      } else {
        const from = at - 1;
        while (at < source.length && !/[\s();"]/.test(source[at] ?? "")) at++;
        forms.push(source.slice(from, at));
      }
    }
  };
  return list(false);
}

const rules = (profile: string) => read(profile).map((form) => JSON.stringify(form));

describe("the profile", () => {
  test("is this one, word for word", () => {
    const golden = readFileSync(join(import.meta.dir, "../../test/fixtures/seatbelt-profile.sb"), "utf8");
    expect(seatbeltProfile(paths)).toBe(golden);
  });

  test("closes the identity, keeps program and agents as they are, and lets no folder on the way be renamed", () => {
    const [version, start, ...rest] = rules(seatbeltProfile(paths));
    expect([version, start]).toEqual(['["version","1"]', '["allow","default"]']);
    const closed = paths.protectedPaths.map((text) => ["subpath", { text }]);
    expect(rest).toContain(JSON.stringify(["deny", "file*", ...closed]));
    const kept = paths.readOnlyPaths.map((text) => ["subpath", { text }]);
    expect(rest).toContain(JSON.stringify(["deny", "file-write*", "file-link", ...kept]));
    const onTheWay = rest.find((rule) => rule.startsWith('["deny","file-write-unlink"')) ?? "";
    for (const folder of ["/Users", "/Users/ann", "/Users/ann/Library", "/private/etc/aegis", "/usr/local/bin"])
      expect(onTheWay).toContain(`["literal",{"text":"${folder}"}]`);
    expect(onTheWay).not.toContain('{"text":"/"}');
  });

  test("denies signals to, and looks into, everything but what came from the same tool, the later rule being the one that counts", () => {
    const all = rules(seatbeltProfile(paths));
    for (const what of ["signal", "process-info*", "mach-priv-task-port"]) {
      const denied = all.indexOf(`["deny","${what}"]`);
      expect(denied).toBeGreaterThan(0);
      expect(all.indexOf(`["allow","${what}",["target","same-sandbox"]]`)).toBe(denied + 1);
    }
    // Nothing that is said later opens the identity again.
    expect(all.filter((rule) => /"allow","file/.test(rule))).toEqual([
      JSON.stringify(["allow", "file-read-metadata", ...paths.protectedPaths.map((text) => ["literal", { text }])]),
    ]);
  });

  test("has no rule without a path, which would be one for every path", () => {
    const profile = seatbeltProfile({ protectedPaths: [], readOnlyPaths: [] });
    expect(rules(profile).filter((rule) => rule.includes("file"))).toEqual([]);
  });
});

describe("a path in the profile", () => {
  test("stays one string and means itself, whatever it holds", () => {
    const pieces = [
      '"',
      "\\",
      "(",
      ")",
      ";",
      "#",
      " ",
      "'",
      "`",
      "$(x)",
      "%",
      "é",
      "雪",
      "🙂",
      '"))(allow default)',
      "a",
      "/x",
      "|#",
    ];
    let seed = 7;
    const pick = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((seed / 2_147_483_648) * below);
    };
    const plain = rules(seatbeltProfile({ protectedPaths: ["/p/x"], readOnlyPaths: ["/y"] })).length;
    for (let round = 0; round < 2_000; round++) {
      const path = `/p/a${Array.from({ length: 1 + pick(8) }, () => pieces[pick(pieces.length)]).join("")}`;
      expect(read(quoted(path))).toEqual([{ text: path }]);
      const all = rules(seatbeltProfile({ protectedPaths: [path], readOnlyPaths: ["/y"] }));
      expect(all.length).toBe(plain);
      expect(all).toContain(JSON.stringify(["deny", "file*", ["subpath", { text: path }]]));
    }
  });

  test("that the language cannot hold is refused", () => {
    for (const path of ["/a\nb", "/a\0b", "/a\u007fb", "/a\u0085b", "/a\ud800b", "relative", ""])
      expect(() => quoted(path)).toThrow("cannot stand in a profile");
  });
});

test("a command is run as it is, and under another name where the name decides what it does", () => {
  expect(seatbeltArgs("P", { command: "/bin/ls", name: "ls", args: ["-p", "--", "x y"] })).toEqual([
    ...["-p", "P", "--", "/bin/ls", "-p", "--", "x y"],
  ]);
  expect(seatbeltArgs("P", { command: "/opt/box", name: "cat", args: ["f"] })).toEqual([
    ...["-p", "P", "--", "/bin/bash", "-c", 'exec -a "$0" "$@"', "cat", "/opt/box", "f"],
  ]);
});
