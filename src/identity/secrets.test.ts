import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { maxSecretBytes, openSecrets, type Secrets } from "./secrets.ts";

let dir: string;
let secrets: Secrets;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "aegis-secrets-"));
  secrets = openSecrets(dir);
});
afterEach(() => rmSync(dir, { recursive: true }));

const text = async (name: string) => (await secrets.read(name))?.reveal() ?? null;

test("a secret is kept in a file of its own that nobody else can read, and read back as it was", async () => {
  expect(await secrets.list()).toEqual([]);
  expect(await secrets.set("DB_PASSWORD", Buffer.from(" pass wörd\n"))).toBe("created");
  expect(await secrets.set("DB_PASSWORD", Buffer.from("other"))).toBe("replaced");
  await secrets.set("api.key", Buffer.from("k"));
  expect(await secrets.list()).toEqual(["DB_PASSWORD", "api.key"]);
  expect(await text("DB_PASSWORD")).toBe("other");
  expect(statSync(join(dir, "secrets")).mode & 0o777).toBe(0o700);
  expect(statSync(join(dir, "secrets", "DB_PASSWORD")).mode & 0o777).toBe(0o600);
});

test("a value does not show where a secret is printed or logged", async () => {
  await secrets.set("A", Buffer.from("hunter2"));
  const secret = await secrets.read("A");
  expect(`${secret} ${JSON.stringify({ secret })} ${Bun.inspect(secret)}`).not.toContain("hunter2");
});

test("removing one removes that one, and says whether there was one", async () => {
  await secrets.set("A", Buffer.from("1"));
  await secrets.set("B", Buffer.from("2"));
  expect([await secrets.remove("A"), await secrets.remove("A")]).toEqual([true, false]);
  expect([await text("A"), await text("B")]).toEqual([null, "2"]);
});

test("a name reaches no other file", async () => {
  writeFileSync(join(dir, "node.key"), "identity");
  for (const name of [
    "../node.key",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\0b",
    "-x",
    ".hidden",
    "NUL",
    "com1.txt",
    "a.",
    "x".repeat(129),
  ]) {
    await expect(secrets.set(name, Buffer.from("x"))).rejects.toMatchObject({ code: "usage" });
    await expect(secrets.remove(name)).rejects.toMatchObject({ code: "usage" });
    expect(await secrets.read(name)).toBeNull();
  }
  expect(readFileSync(join(dir, "node.key"), "utf8")).toBe("identity");
});

test("what no environment can carry is refused without naming the value", async () => {
  for (const [value, code] of [
    [Buffer.from(""), "usage"],
    [Buffer.from("top\0secret"), "usage"],
    [Buffer.alloc(maxSecretBytes + 1, 65), "too_large"],
  ] as const) {
    const error: unknown = await secrets.set("A", value).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code, message: expect.not.stringContaining("top") });
  }
  await secrets.set("A", Buffer.alloc(maxSecretBytes, 65));
});
