/** The table of layouts as a whole: no statement can be taken for another, and no value for one it is not. */
import { describe, expect, test } from "bun:test";
import { domain, layouts, type StatementName, statement, uuidBytes, uuidFromBytes } from "./statement.ts";

const id = "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b";

/** Some value of each field, the same for all. */
function sample(name: StatementName, change: Record<string, unknown> = {}): Uint8Array {
  const values = {
    id,
    b16: new Uint8Array(16),
    b32: new Uint8Array(32),
    hash: new Uint8Array(3),
    u32: 1,
    u64: 2,
    lp: "x",
  };
  const fields = Object.entries(layouts[name].fields).map(([field, type]) => [field, values[type]]);
  return statement(name, { ...Object.fromEntries(fields), ...change } as never);
}

const names = Object.keys(layouts) as StatementName[];

describe("layouts", () => {
  test("each has a kind of its own, behind the domain", () => {
    const kinds = names.map((name) => layouts[name].kind as number);
    expect(new Set(kinds).size).toBe(names.length);
    for (const name of names) {
      const said = Buffer.from(sample(name));
      expect(said.subarray(0, 13)).toEqual(domain);
      expect(said[13]).toBe(layouts[name].kind);
      // The raw nonce that a client signs at enrollment has 32 bytes: nothing of ours does.
      expect(said.length).toBeGreaterThan(32);
    }
    expect([...domain].map((byte) => String.fromCharCode(byte)).join("")).toBe("AEGIS-SEAL/1\0");
  });

  test("changing any field changes the statement", () => {
    const other = {
      id: uuidFromBytes(new Uint8Array(16)),
      b16: new Uint8Array(16).fill(1),
      b32: new Uint8Array(32).fill(1),
      hash: new Uint8Array(4),
    };
    const values = { ...other, u32: 7, u64: 8, lp: "y" };
    for (const name of names)
      for (const [field, type] of Object.entries(layouts[name].fields))
        expect([name, field, sample(name, { [field]: values[type] })]).not.toEqual([name, field, sample(name)]);
  });

  test("lengths keep neighbours apart", () => {
    const one = sample("user", { tenant: "a", context: "bc" });
    const two = sample("user", { tenant: "ab", context: "c" });
    expect(one).not.toEqual(two);
  });
});

describe("values a field cannot hold", () => {
  const wrong: Array<[StatementName, string, unknown]> = [
    ["user", "nodeId", id.toUpperCase()],
    ["user", "nodeId", `${id}\n`],
    ["user", "nodeId", id.replaceAll("-", "")],
    ["user", "nodeId", `{${id}}`],
    ["user", "deadlineMs", -1],
    ["user", "deadlineMs", 1.5],
    ["user", "deadlineMs", 2 ** 53],
    ["user", "deadlineMs", Number.NaN],
    ["user", "deadlineMs", "1"],
    ["user", "argsJson", "{}"],
    ["user", "tenant", 7],
    ["user", "tenant", undefined],
    ["refusal", "reason", 2 ** 32],
    ["command", "sessionId", new Uint8Array(31)],
    ["command", "sessionId", new Uint8Array(33)],
    ["enrollProof", "rootKeyId", new Uint8Array(0)],
  ];
  for (const [name, field, value] of wrong)
    test(`${name}.${field}: ${typeof value === "object" ? "another length" : JSON.stringify(value)}`, () =>
      expect(() => sample(name, { [field]: value })).toThrow(RangeError));
});

test("a UUID has one spelling, and its bytes give it back", () => {
  expect(uuidFromBytes(uuidBytes(id) ?? new Uint8Array())).toBe(id);
  for (const other of ["", "x", id.slice(1), `${id}0`, ` ${id}`, id.replace("-", "_")])
    expect(uuidBytes(other)).toBeNull();
});
