import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { type Problem, readRequest, readValue, withAliases } from "./read.ts";
import { enrollmentTokenRequestSchema, groupRequestSchema, invokeRequestSchema } from "./types.ts";

const read = <T>(schema: z.ZodType<T>, value: unknown): T => readRequest(schema, value, "the request");
const problems = (schema: z.ZodType, value: unknown): string[] => {
  const reading = readValue(schema, value);
  return reading.kind === "value" ? [] : reading.problems.map(({ path, message }: Problem) => `${path}: ${message}`);
};

const policy = {
  ...{ mode: "parallel", batch: null, max_concurrency: 64, on_error: "continue" },
  ...{ stop_after: null, require_min: null, deadline_secs: 60 },
};
const invoke = {
  ...{ target: "All", tool: "cmd.run", args: { command: "uptime" }, context: "default", policy },
  ...{ abort_on_disconnect: false, progress: true, args_json: null, operator_proofs: {} },
};

describe("requests as they are documented are taken", () => {
  test("an invocation with every field", () => {
    expect(read<unknown>(invokeRequestSchema, invoke)).toEqual(invoke);
  });

  test("an invocation with what it must have", () => {
    const { args: _, policy: given, ...rest } = invoke;
    expect(read<unknown>(invokeRequestSchema, { target: "All", tool: "cmd.run" })).toEqual({
      ...rest,
      policy: { ...given, on_error: null },
    });
  });

  test("targets of every kind", () => {
    const selector = { os: "linux", arch: null, tools: ["docker"], labels: [{ Equals: ["region", "eu"] }] };
    const tags = [{ AllOf: ["prod", "web"] }];
    const targets = ["All", { All: null }, { Node: "n" }, { Nodes: ["n", "m"] }, { Group: "web" }];
    for (const target of [...targets, { Selector: { ...selector, tags } }])
      expect(read<unknown>(invokeRequestSchema, { target, tool: "a" })).toMatchObject({ target });
  });

  test("an enrollment token and a group", () => {
    const token = { name: "workstation-east", ttl_seconds: 900, tags: ["prod"], for_node: null, compat: false };
    expect(read<unknown>(enrollmentTokenRequestSchema, token)).toEqual(token);
    const group = { name: "web", selector: { os: "linux", arch: null }, pinned_members: ["n1"] };
    expect(read<unknown>(groupRequestSchema, group)).toEqual(group);
  });
});

describe("the peer's names mean the same", () => {
  test("flat, as the peer sends them", () => {
    const peer = {
      ...{ target: "All", tool_name: "cmd.run", args: {}, security_context_name: "default", mode: "rolling", batch: 2 },
      ...{ max_concurrency: 8, failure_policy: "stop-after", stop_after: 3, require_min_targets: 4, deadline_secs: 5 },
    };
    expect(read<unknown>(invokeRequestSchema, peer)).toMatchObject({
      ...{ tool: "cmd.run", context: "default" },
      policy: {
        ...{ mode: "rolling", batch: 2, max_concurrency: 8, on_error: "stop-after" },
        ...{ stop_after: 3, require_min: 4, deadline_secs: 5 },
      },
    });
    expect(read<unknown>(enrollmentTokenRequestSchema, { issued_to: "east" })).toMatchObject({ name: "east" });
  });

  test("inside a policy, and beside one that has other fields", () => {
    const inside = { target: "All", tool: "a", policy: { failure_policy: "continue", require_min_targets: 1 } };
    expect(read<unknown>(invokeRequestSchema, inside)).toMatchObject({
      policy: { on_error: "continue", require_min: 1 },
    });
    const beside = { target: "All", tool: "a", policy: { on_error: "continue" }, deadline_secs: 7 };
    expect(read<unknown>(invokeRequestSchema, beside)).toMatchObject({
      policy: { on_error: "continue", deadline_secs: 7 },
    });
  });

  test("but not both at once", () => {
    expect(problems(invokeRequestSchema, { target: "All", tool: "a", tool_name: "b" })).toEqual([
      "tool_name: is another name of tool; give one of them",
    ]);
    const twice = { target: "All", tool: "a", mode: "parallel", policy: { mode: "parallel" } };
    expect(problems(invokeRequestSchema, twice)).toEqual(["mode: is given twice: here and in policy"]);
  });
});

describe("what is wrong is told all at once, by its path", () => {
  test("unknown fields with the nearest one, wrong types, wrong values", () => {
    const wrong = {
      target: "All",
      tool: "a b",
      polcy: {},
      policy: { max_concurrency: 0, on_eror: "continue" },
      progress: 1,
    };
    expect(problems(invokeRequestSchema, wrong)).toEqual([
      "tool: a tool's name looks like cmd.run",
      expect.stringContaining("policy.max_concurrency: "),
      "policy.on_eror: unknown field; did you mean on_error?",
      expect.stringContaining("progress: "),
      "polcy: unknown field; did you mean policy?",
    ]);
  });

  test("fields that objects have by birth are unknown too", () => {
    const value = JSON.parse('{"target":"All","tool":"a","__proto__":{"progress":false},"constructor":1}') as unknown;
    expect(problems(invokeRequestSchema, value)).toEqual(["__proto__: unknown field", "constructor: unknown field"]);
    expect(problems(withAliases(z.strictObject({ a: z.number() }), {}), { a: 1, toString: 1 })).toEqual([
      "toString: unknown field",
    ]);
  });

  test("what is no object is said to be none", () => {
    for (const value of [null, 1, "x", [], undefined])
      expect(problems(invokeRequestSchema, value)).toEqual([expect.stringContaining("expected object")]);
  });
});
