import { expect, test } from "bun:test";
import { PassThrough } from "node:stream";
import { sink } from "../../test/support/sink.ts";
import { AegisError } from "../errors.ts";
import {
  configFile,
  controllerDir,
  duration,
  edgeDir,
  outputFormat,
  pairs,
  port,
  printResult,
  wholeNumber,
} from "./options.ts";
import { openTerminal } from "./terminal.ts";

const message = (act: () => unknown): string => {
  try {
    act();
    return "accepted";
  } catch (error) {
    const { code, message } = AegisError.from(error);
    return `${code}: ${message}`;
  }
};

test("the flag wins over AEGIS_OUTPUT, and a wrong AEGIS_OUTPUT is named", () => {
  expect(outputFormat(undefined, {})).toBe("table");
  expect(outputFormat(undefined, { AEGIS_OUTPUT: "" })).toBe("table");
  expect(outputFormat(undefined, { AEGIS_OUTPUT: "yaml" })).toBe("yaml");
  expect(outputFormat("json", { AEGIS_OUTPUT: "yaml" })).toBe("json");
  expect(message(() => outputFormat(undefined, { AEGIS_OUTPUT: "xml" }))).toBe(
    'usage: AEGIS_OUTPUT "xml" is not one of table, json, yaml',
  );
});

test("a result is one thing in three forms", async () => {
  const print = async (format: string) => {
    const stdout = sink();
    const terminal = openTerminal({ stdin: new PassThrough(), stdout, stderr: new PassThrough() }, {}, () => {});
    await printResult({ terminal, env: {} }, format, { name: "a", gone: undefined, at: new Date(0) }, () => "A\n");
    return stdout.text();
  };
  expect(await print("table")).toBe("A\n");
  expect(await print("json")).toBe('{\n  "name": "a",\n  "at": "1970-01-01T00:00:00.000Z"\n}\n');
  expect(Bun.YAML.parse(await print("yaml"))).toEqual({ name: "a", at: "1970-01-01T00:00:00.000Z" });
});

test("directories come from the flag, else AEGIS_HOME, else the home directory", () => {
  expect(edgeDir(undefined, { env: {}, home: "/h" })).toBe("/h/.aegis/edge");
  expect(edgeDir("~/e", { env: {}, home: "/h" })).toBe("/h/e");
  expect(edgeDir("e", { env: {}, home: "/h" })).toBe(`${process.cwd()}/e`);
  expect(controllerDir(undefined, { env: { AEGIS_HOME: "/a" }, home: "/h" })).toBe("/a/controller");
  expect(configFile(undefined, { env: {}, home: "/h" })).toEqual({});
  expect(configFile(undefined, { env: { AEGIS_CONFIG: "~/c.yaml" }, home: "/h" })).toEqual({ configPath: "/h/c.yaml" });
  expect(configFile("/x.yaml", { env: { AEGIS_CONFIG: "~/c.yaml" }, home: "/h" })).toEqual({ configPath: "/x.yaml" });
});

test("numbers, ports and durations are read whole or refused by the name of their flag", () => {
  expect(wholeNumber("--n", "7", 1, 9)).toBe(7);
  expect(port("--port", "0")).toBe(0);
  expect(duration("--ttl", "15m")).toBe(900_000);
  for (const text of ["", "x", "1.5", "-1", "10", "1e1", " 7"])
    expect(message(() => wholeNumber("--n", text, 1, 9))).toStartWith(`usage: --n ${JSON.stringify(text)} is not`);
  expect(message(() => port("--port", "65536"))).toStartWith("usage: --port");
  expect(message(() => duration("--ttl", "15"))).toBe('usage: --ttl: "15" is not a duration');
});

test("NAME=VALUE may hold more =, and a name comes once", () => {
  expect({ ...pairs("--label", ["a=1", "b=x=y", "c="]) }).toEqual({ a: "1", b: "x=y", c: "" });
  expect({ ...pairs("--label", ["__proto__=x"]) }).toEqual(JSON.parse('{"__proto__":"x"}'));
  expect(message(() => pairs("--label", ["a"]))).toBe('usage: --label "a" is not NAME=VALUE');
  expect(message(() => pairs("--label", ["=a"]))).toBe('usage: --label "=a" is not NAME=VALUE');
  expect(message(() => pairs("--label", ["a=1", "a=2"]))).toBe("usage: --label names a twice");
});
