import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { aegis } from "../wire/gen/messages.js";
import { detect, encodeCapabilities } from "./capabilities.ts";

let base: string;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "aegis-capabilities-"));
  for (const [name, bits] of [
    ["one/jq", 0o755],
    ["two/git", 0o755],
    ["two/docker", 0o644],
    ["two/unheard-of", 0o755],
  ] as const) {
    const path = join(base, name);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, "");
    chmodSync(path, bits);
  }
});
afterAll(() => rmSync(base, { recursive: true }));

needs("linux")("a host tells which known programs its PATH holds, and always that it has a shell", async () => {
  const path = [join(base, "none"), "", join(base, "one"), join(base, "two")].join(delimiter);
  expect(await detect(path)).toEqual({
    os: "linux",
    arch: process.arch === "x64" ? "x86_64" : "aarch64",
    localTools: ["shell", "git", "jq"],
    mountPoints: ["/", "/home", "/etc", "/var/log"],
  });
  expect((await detect("")).localTools).toEqual(["shell"]);
});

test("what is sent names the host, its labels and each tool with the schema of its arguments", () => {
  const bytes = encodeCapabilities({
    ...{ os: "linux", arch: "x86_64", localTools: ["shell"], mountPoints: ["/"] },
    ...{ customLabels: { region: "eu" }, hostName: "web-1", heartbeatIntervalMs: 45_000 },
    tools: [
      {
        ...{ name: "cmd.run", description: "runs", inputSchema: { type: "object" } },
        ...{ readOnly: false, destructive: true, fleetCapable: true },
      },
    ],
  });
  const read = aegis.cluster.v1.EdgeCapabilities.decode(bytes);
  expect(read).toMatchObject({
    hostName: "web-1",
    heartbeatSecs: 45,
    localTools: ["shell"],
    customLabels: { region: "eu" },
  });
  const [tool] = read.tools;
  expect(tool).toMatchObject({ name: "cmd.run", readOnly: false, destructive: true, fleetCapable: true });
  expect(Buffer.from(tool?.inputSchemaJson ?? []).toString()).toBe('{"type":"object"}');
});
