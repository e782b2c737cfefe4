import { describe, expect, test } from "bun:test";
import { AegisError } from "../errors.ts";
import { isEmptySelector, matchesSelector, type Selector, type Target } from "./target.ts";
import { formatTarget, parseTarget } from "./target-text.ts";

const random = (seed: number) => () => {
  seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
  return seed / 2 ** 31;
};

describe("targets as text", () => {
  const pairs: [string, Target][] = [
    ["all", "All"],
    ["@web-1", { Node: "web-1" }],
    ["@3f2a9c,web-2", { Nodes: ["3f2a9c", "web-2"] }],
    ["group:web", { Group: "web" }],
    ["os=linux arch=x86_64", { Selector: { os: "linux", arch: "x86_64" } }],
    ["tools=docker,kubectl", { Selector: { tools: ["docker", "kubectl"] } }],
    [
      "labels=region=us labels=Exists(gpu) labels=In(env,prod,staging)",
      { Selector: { labels: [{ Equals: ["region", "us"] }, { Exists: "gpu" }, { In: ["env", ["prod", "staging"]] }] } },
    ],
    [
      "tags=prod tags=AnyOf(a,b) tags=AllOf(a,b) tags=NoneOf(x)",
      { Selector: { tags: [{ Has: "prod" }, { AnyOf: ["a", "b"] }, { AllOf: ["a", "b"] }, { NoneOf: ["x"] }] } },
    ],
    ["labels=url=a=b", { Selector: { labels: [{ Equals: ["url", "a=b"] }] } }],
  ];
  for (const [text, target] of pairs)
    test(text, () => {
      expect(parseTarget(text)).toEqual(target);
      expect(formatTarget(target)).toBe(text);
    });

  test("any target that can be said in JSON comes back from its text", () => {
    const next = random(7);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)] as T;
    const name = () =>
      Array.from({ length: 1 + Math.floor(next() * 6) }, () => pick([..."aZ9-_.:/é漢@!'\"=*"])).join("");
    const plain = () => name().replaceAll("=", "").replaceAll("@", "") || "x";
    const some = <T>(make: () => T): T[] => Array.from({ length: Math.floor(next() * 4) }, make);
    const several = () => [plain(), ...some(plain)];
    const label = () =>
      pick([{ Equals: [plain(), name()] }, { Exists: plain() }, { In: [plain(), [name(), ...some(name)]] }]);
    const tag = () => pick([{ Has: plain() }, { AnyOf: several() }, { AllOf: several() }, { NoneOf: several() }]);
    let checked = 0;
    for (let round = 0; round < 2_000; round++) {
      const all = { os: name(), arch: name(), tools: several(), labels: some(label), tags: some(tag) } as Selector;
      const kept = Object.entries(all).filter(([, value]) => next() < 0.6 && value?.length !== 0);
      const selector = Object.fromEntries(kept) as Selector;
      const nodes = [plain(), plain(), ...some(plain)];
      const targets: Target[] = [{ Node: plain() }, { Nodes: nodes }, { Group: plain() }];
      if (!isEmptySelector(selector)) targets.push({ Selector: selector });
      for (const target of targets) {
        expect(parseTarget(formatTarget(target))).toEqual(target);
        checked++;
      }
    }
    expect(checked).toBeGreaterThan(6_000);
  });

  const wrong: [string, RegExp][] = [
    ["", /the target is empty/],
    ["web-1", /"web-1" is no part of a target/],
    ["@", /a node is an id/],
    ["@web-1 os=linux", /"@web-1" stands alone, and "os=linux" follows/],
    ["all tags=prod", /"all" stands alone/],
    ["group:", /a group's name has/],
    ["os=linux os=darwin", /os is given twice/],
    ["tag=prod", /there is no "tag"; did you mean tags=\?/],
    ["labels=region", /needs a value/],
    ["labels=Has(x)", /neither labels=Exists/],
    ["tags=OneOf(a)", /neither tags=TAG/],
    ["tags=a(b", /a tag has 1-64 characters/],
    ["tools=docker,,x", /a tool has 1-64 characters/],
    ["os=", /"os=" is no part of a target/],
  ];
  for (const [text, message] of wrong)
    test(`${JSON.stringify(text)} is refused, and the message says why`, () => {
      try {
        parseTarget(text);
        expect("no error").toBe("an error");
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(AegisError);
        expect(thrown).toMatchObject({ code: "usage", message: expect.stringMatching(message) });
        expect((thrown as AegisError).hint).toContain("@NODE");
      }
    });

  test("a bare node is one only where it is asked for", () => {
    expect(parseTarget("web-1", { bareNode: true })).toEqual({ Node: "web-1" });
    expect(parseTarget("os=linux", { bareNode: true })).toEqual({ Selector: { os: "linux" } });
  });
});

describe("a selector", () => {
  const host = {
    ...{ os: "linux", arch: "x86_64", localTools: ["docker", "shell"] },
    ...{ labels: { region: "eu", gpu: "" }, tags: ["prod", "web"] },
  };
  const cases: [string, boolean][] = [
    ["os=linux", true],
    ["os=darwin", false],
    ["arch=x86_64 tools=docker", true],
    ["tools=docker,kubectl", false],
    ["labels=region=eu", true],
    ["labels=region=us", false],
    ["labels=Exists(gpu)", true],
    ["labels=Exists(constructor)", false],
    ["labels=In(region,us,eu)", true],
    ["labels=In(region,us)", false],
    ["tags=prod", true],
    ["tags=AnyOf(db,web)", true],
    ["tags=AnyOf(db,mail)", false],
    ["tags=AllOf(prod,web)", true],
    ["tags=AllOf(prod,db)", false],
    ["tags=NoneOf(db)", true],
    ["tags=NoneOf(db,web)", false],
    ["tags=prod os=darwin", false],
  ];
  for (const [text, matches] of cases)
    test(`${text} ${matches ? "matches" : "does not match"}`, () => {
      const target = parseTarget(text) as { Selector: Selector };
      expect(matchesSelector(target.Selector, host)).toBe(matches);
    });
});
