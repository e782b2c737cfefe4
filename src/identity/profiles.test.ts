import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Secret } from "../platform/log.ts";
import { credentialsPath, listProfiles, loadProfile, type Profile, removeProfile, saveProfile } from "./profiles.ts";

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "aegis-profiles-"));
});
afterEach(() => rmSync(home, { recursive: true }));

const place = (env = {}) => ({ env, home });
const profile = (name: string, url = `https://${name}.example:8088`): Profile => ({
  ...{ name, url, token: new Secret(`token-of-${name}`), caPem: "PEM\n", tenantId: "acme", fingerprint: "SHA256:x" },
});
const rejection = (promise: Promise<unknown>) => promise.then(() => null).catch((error: unknown) => error);

test("the profile saved last is the current one, others stay, and nobody else can read the file", async () => {
  const path = await saveProfile(place(), profile("one"));
  await saveProfile(place(), profile("two"));
  expect(path).toBe(join(home, ".aegis", "credentials"));
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(statSync(join(home, ".aegis")).mode & 0o777).toBe(0o700);
  const current = await loadProfile(place());
  expect([current.name, current.token.reveal(), current.caPem]).toEqual(["two", "token-of-two", "PEM\n"]);
  expect((await loadProfile({ ...place(), name: "one" })).token.reveal()).toBe("token-of-one");
  expect((await listProfiles(place())).profiles.map(({ name }) => name)).toEqual(["one", "two"]);
});

test("a removed profile is gone from the file and another becomes current", async () => {
  await saveProfile(place(), profile("one"));
  await saveProfile(place(), profile("two"));
  expect(await removeProfile(place(), "two")).toBe(true);
  expect(await removeProfile(place(), "two")).toBe(false);
  expect((await loadProfile(place())).name).toBe("one");
  expect(readFileSync(credentialsPath(place()), "utf8")).not.toContain("token-of-two");
});

test("controller and token from the environment win over every profile", async () => {
  await saveProfile(place(), profile("one"));
  const env = { AEGIS_CONTROLLER: "https://other.example", AEGIS_USER_TOKEN: "t" };
  const { url, token, caPem } = await loadProfile(place(env));
  expect([url, token.reveal(), caPem]).toEqual(["https://other.example", "t", null]);
});

test("a stored token never goes to an address it was not stored for", async () => {
  await saveProfile(place(), profile("one"));
  const error = await rejection(loadProfile(place({ AEGIS_CONTROLLER: "https://other.example:8088" })));
  expect(error).toMatchObject({
    code: "unauthenticated",
    message: expect.stringContaining("https://other.example:8088"),
  });
  expect((await loadProfile(place({ AEGIS_CONTROLLER: "https://one.example:8088/" }))).token.reveal()).toBe(
    "token-of-one",
  );
});

test("a file that others can read is closed to them when it is read", async () => {
  const path = await saveProfile(place(), profile("one"));
  chmodSync(path, 0o644);
  await loadProfile(place());
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("YAML written by hand is read too", async () => {
  await saveProfile(place(), profile("x"));
  writeFileSync(credentialsPath(place()), "profiles:\n  mine: { url: 'https://c.example', token: abc }\n");
  expect((await loadProfile(place())).token.reveal()).toBe("abc");
});

test("no profile, an unknown one and a damaged file each say what to do", async () => {
  expect(await rejection(loadProfile(place()))).toMatchObject({
    code: "unauthenticated",
    hint: expect.stringContaining("aegis login"),
  });
  const path = await saveProfile(place(), profile("one"));
  expect(await rejection(loadProfile({ ...place(), name: "constructor" }))).toMatchObject({
    message: `${path} has no profile "constructor", only one`,
  });
  writeFileSync(path, "profiles: { a: { url: 3, token: SECRET } }");
  expect(await rejection(loadProfile(place()))).toMatchObject({
    code: "config_invalid",
    message: `${path} is damaged at profiles.a.url`,
  });
});
