import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { controllerConfigPath, loadControllerConfig, renderControllerConfig } from "./controller.ts";

const dir = mkdtempSync(join(tmpdir(), "aegis-config-"));
afterAll(() => rmSync(dir, { recursive: true }));

const config = {
  controllerId: "0a4f3f5e-1a9a-4c7e-9a50-6f4d3a1f9b11",
  publicEndpoint: "[2001:db8::1]:50056",
  createdAt: "2026-01-01T00:00:00.000Z",
};

test("what init writes is what start reads", async () => {
  writeFileSync(controllerConfigPath(dir), renderControllerConfig(config));
  const loaded = await loadControllerConfig(dir);
  expect(loaded).toEqual({
    ...config,
    limits: { hosts: 10_000, enrollmentAttemptsPerMinute: 30, enrollmentTokensPerMinute: 100, runRetentionDays: 90 },
    oidc: null,
    otlp: null,
  });
  expect(Object.isFrozen(loaded)).toBe(true);
});

test("its owner may write other limits, one or all", async () => {
  const path = controllerConfigPath(dir);
  writeFileSync(path, `${renderControllerConfig(config)}limits: {hosts: 3, enrollment_tokens_per_minute: 7}\n`);
  const { limits } = await loadControllerConfig(dir);
  expect(limits).toMatchObject({ hosts: 3, enrollmentAttemptsPerMinute: 30, enrollmentTokensPerMinute: 7 });
  writeFileSync(path, `${renderControllerConfig(config)}limits: {hosts: 0, host: 1}\n`);
  await expect(loadControllerConfig(dir)).rejects.toMatchObject({
    message: expect.stringMatching(/limits\.hosts: .*; limits\.host: unknown key/),
  });
});

test("an issuer is one that nobody can listen to, and each grant says what it gives", async () => {
  const path = controllerConfigPath(dir);
  const grants = "[{claim: groups, value: ops, tenant: acme, scopes: [aegis.admin]}]";
  const write = (text: string) => writeFileSync(path, `${renderControllerConfig(config)}oidc: ${text}\n`);
  write(`{issuer: "https://id.example/realm", audience: aegis, grants: ${grants}}`);
  const [grant] = (await loadControllerConfig(dir)).oidc?.grants ?? [];
  expect(grant).toMatchObject({ claim: "groups", tenant: "acme", contexts: ["default"] });
  write(`{issuer: "http://id.example", audience: aegis, grants: [{claim: groups, value: ops, tenant: ACME}]}`);
  await expect(loadControllerConfig(dir)).rejects.toMatchObject({
    message: expect.stringMatching(/oidc\.issuer: expected an https URL.*oidc\.grants\[0\]\.tenant.*scopes/),
  });
});

test("every problem of the file is named at once, with what was expected", async () => {
  writeFileSync(controllerConfigPath(dir), "controller_id: 7\npublic_endpoint: nowhere\nextra: 1\n");
  await expect(loadControllerConfig(dir)).rejects.toMatchObject({
    code: "config_invalid",
    message: expect.stringMatching(
      /controller_id: expected text, found 7; public_endpoint: expected HOST:PORT, found "nowhere"; created_at: expected text, found nothing; extra: unknown key$/,
    ),
  });
});

test("a directory without a controller says how to make one", async () => {
  await expect(loadControllerConfig(join(dir, "none"))).rejects.toMatchObject({
    code: "config_invalid",
    hint: expect.stringContaining("aegis controller init --data-dir"),
  });
});

test("what is not YAML is said with its line", async () => {
  writeFileSync(controllerConfigPath(dir), "controller_id: [\nb: 1\n");
  await expect(loadControllerConfig(dir)).rejects.toMatchObject({ message: expect.stringContaining("(2:1)") });
});
