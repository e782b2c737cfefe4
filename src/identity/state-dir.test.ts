import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, chownSync, existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { checkStateDir, makeStateDir } from "./state-dir.ts";

let base: string;
let dir: string;
beforeEach(async () => {
  base = mkdtempSync(join(tmpdir(), "aegis-state-"));
  dir = join(base, "edge");
  await makeStateDir(dir);
});
afterEach(() => rmSync(base, { recursive: true }));

const mode = (name: string) => (statSync(join(dir, name)).mode & 0o7777).toString(8);
const put = (name: string, bits: number) => {
  writeFileSync(join(dir, name), "x");
  chmodSync(join(dir, name), bits);
};
const refused = (promise: Promise<unknown>) => promise.then(() => null).catch((error: unknown) => error);

test("what is too open is closed and named; what is closed further is left alone", async () => {
  put("node.key", 0o644);
  put("node.token", 0o400);
  put("node.key.pub", 0o600);
  put("aegis-config.yaml", 0o666);
  put("aegis-config.yaml.bak", 0o644);
  put("controller.keys", 0o640);
  put("secrets/DB_PASSWORD", 0o604);
  chmodSync(join(dir, "secrets"), 0o755);
  chmodSync(dir, 0o755);
  const warnings = await checkStateDir(dir);
  expect(warnings.map((text) => text.slice(base.length + 1).split(",")[0] ?? "").toSorted()).toEqual([
    "edge had mode 0755",
    "edge/aegis-config.yaml had mode 0666",
    "edge/aegis-config.yaml.bak had mode 0644",
    "edge/controller.keys had mode 0640",
    "edge/node.key had mode 0644",
    "edge/secrets had mode 0755",
    "edge/secrets/DB_PASSWORD had mode 0604",
  ]);
  const names = ["", "node.key", "node.token", "node.key.pub", "aegis-config.yaml", "aegis-config.yaml.bak"];
  expect([...names, "controller.keys", "secrets", "secrets/DB_PASSWORD"].map(mode)).toEqual([
    ...["700", "600", "400", "600", "644", "600", "600", "700", "600"],
  ]);
  expect(await checkStateDir(dir)).toEqual([]);
});

test("no directory is no enrollment, and a file in its place is said to be one", async () => {
  expect(await refused(checkStateDir(join(base, "none")))).toMatchObject({ code: "not_enrolled", exitCode: 78 });
  writeFileSync(join(base, "file"), "");
  expect(await refused(checkStateDir(join(base, "file")))).toMatchObject({
    message: `${join(base, "file")} is not a directory`,
  });
});

test("a link in the directory is neither followed nor changed", async () => {
  writeFileSync(join(base, "mine"), "x");
  chmodSync(join(base, "mine"), 0o666);
  symlinkSync(join(base, "mine"), join(dir, "aegis-config.yaml"));
  symlinkSync(join(base, "mine"), join(dir, "secrets", "LINK"));
  symlinkSync(join(base, "gone"), join(dir, "node.key"));
  expect(await checkStateDir(dir)).toEqual([]);
  expect(statSync(join(base, "mine")).mode & 0o777).toBe(0o666);
  expect(existsSync(join(base, "gone"))).toBe(false);
});

needs("root")("a file of another user's is an error that says how to take it over", async () => {
  put("node.key", 0o600);
  chownSync(join(dir, "node.key"), 12345, 12345);
  expect(await refused(checkStateDir(dir))).toMatchObject({
    code: "config_invalid",
    message: `${join(dir, "node.key")} belongs to user 12345, and this program runs as 0`,
    hint: expect.stringContaining("chown"),
  });
});
