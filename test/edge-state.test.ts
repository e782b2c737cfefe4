/** The state directory of an edge: its modes under any umask, its damage, and what the other implementation leaves in it. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { EdgeEvent } from "../src/daemon/link.ts";
import { importSigningKey, newSeed } from "../src/envelope/public-key.ts";
import { type BareHost, bareHost, type Enrolling, enrolling, failure } from "./support/enrolling.ts";
import { needs } from "./support/needs.ts";

let controller: Enrolling;
let enrolled: BareHost;
let host: BareHost;

beforeAll(async () => {
  controller = await enrolling();
  enrolled = bareHost();
  await enrolled.enroll(await controller.issue());
});
afterAll(async () => {
  enrolled.remove();
  await controller.remove();
});
beforeEach(() => {
  host = bareHost();
  cpSync(enrolled.stateDir, host.stateDir, { recursive: true });
  for (const directory of ["", "secrets", "archive", "run"]) chmodSync(host.file(directory), 0o700);
  for (const name of ["node.key", "node.token", "controller.keys"]) chmodSync(host.file(name), 0o600);
});
afterEach(() => host.remove());

const modes = (one: BareHost) =>
  Object.fromEntries(
    ["", ...readdirSync(one.stateDir)].map((name) => [name, (statSync(one.file(name)).mode & 0o7777).toString(8)]),
  );

describe("modes are the same under every umask", () => {
  for (const umask of ["000", "022", "077"])
    test(umask, async () => {
      const fresh = bareHost();
      mkdirSync(fresh.file("secrets"), { recursive: true });
      for (const directory of ["", "secrets"]) chmodSync(fresh.file(directory), 0o777);
      const script = `
        process.umask(0o${umask});
        const { enroll } = await import(${JSON.stringify(join(import.meta.dir, "../src/daemon/enroll.ts"))});
        const { planEnrollment } = await import(${JSON.stringify(join(import.meta.dir, "../src/daemon/enroll-plan.ts"))});
        const { systemClock } = await import(${JSON.stringify(join(import.meta.dir, "../src/platform/clock.ts"))});
        const { silentLog } = await import(${JSON.stringify(join(import.meta.dir, "../src/platform/log.ts"))});
        const input = JSON.parse(process.env.INPUT);
        const done = { clock: systemClock, log: silentLog };
        await enroll(await planEnrollment({ ...input, token: input.first }), done);
        await enroll(await planEnrollment({ ...input, token: input.second, conflicts: "force" }), done);`;
      const input = { ...fresh.input(""), first: await controller.issue(), second: await controller.issue() };
      const child = Bun.spawn([process.execPath, "-e", script], {
        env: { ...process.env, INPUT: JSON.stringify(input) },
        stdio: ["ignore", "ignore", "pipe"],
      });
      expect([await new Response(child.stderr).text(), await child.exited]).toEqual(["", 0]);
      expect(modes(fresh)).toEqual({
        "": "700",
        archive: "700",
        secrets: "700",
        run: "700",
        "node.key": "600",
        "node.key.pub": "644",
        "node.token": "600",
        "controller.keys": "600",
        "aegis-config.yaml": "644",
        "aegis-config.yaml.bak": "600",
      });
      expect(
        readdirSync(fresh.file("archive")).map(
          (name) =>
            modes({ ...fresh, stateDir: fresh.file("archive"), file: (inner) => join(fresh.file("archive"), inner) })[
              name
            ],
        ),
      ).toEqual(["600"]);
      fresh.remove();
    });
});

describe("damage is named with its file and the command that repairs it, and nothing is overwritten", () => {
  const half = (name: string) => readFileSync(enrolled.file(name)).subarray(0, 20);
  const missingKeys = "is missing; this host is set to seal: strict";
  const cases: Array<[name: string, content: () => Uint8Array | string | null, code: string, message: string]> = [
    ["node.key", () => null, "not_enrolled", "does not exist"],
    ["node.key", () => "", "config_invalid", "is damaged: it has 0 bytes, a node key has 32"],
    ["node.key", () => half("node.key"), "config_invalid", "is damaged: it has 20 bytes"],
    ["node.key", () => "-----BEGIN PRIVATE KEY-----", "config_invalid", "is damaged: it has 27 bytes"],
    ["node.key", newSeed, "config_invalid", "is not the key that"],
    ["node.token", () => null, "not_enrolled", "does not exist"],
    ["node.token", () => "", "config_invalid", "is damaged: it holds no token"],
    ["node.token", () => half("node.token"), "config_invalid", "is damaged: it holds no token"],
    ["node.token", () => "aaaa.bbbb.cccc", "config_invalid", "is damaged: its claims cannot be read"],
    ["controller.keys", () => null, "config_invalid", missingKeys],
    ["controller.keys", () => "", "config_invalid", "is damaged"],
    ["controller.keys", () => half("controller.keys"), "config_invalid", "is damaged"],
    ["aegis-config.yaml", () => null, "not_enrolled", "does not exist"],
    ["aegis-config.yaml", () => "", "config_invalid", "is empty"],
    ["aegis-config.yaml", () => "\0\xff", "config_invalid", "is not YAML"],
    ["aegis-config.yaml", () => half("aegis-config.yaml"), "config_invalid", "the input is empty"],
    ["aegis-config.yaml", () => "- a list", "config_invalid", "expected a mapping at the top"],
  ];
  for (const [name, content, code, message] of cases)
    test(`${message === missingKeys ? "62 " : ""}${name}: ${message}`, async () => {
      const bytes = content();
      if (bytes === null) rmSync(host.file(name));
      else writeFileSync(host.file(name), bytes);
      const before = host.snapshot();
      const error = await host.refusal();
      expect([error.code, error.exitCode]).toEqual([code, 78] as never);
      expect(error.message).toContain(message);
      expect(error.message).toContain(host.file(name));
      expect(error.hint).toMatch(/aegis edge (?:enroll|token issue)|edit .*aegis-config\.yaml/);
      expect(host.snapshot()).toEqual(before);
    });

  test("a key and a token of two hosts, and a token of another host than the settings", async () => {
    const second = bareHost();
    await second.enroll(await controller.issue());
    cpSync(second.file("node.token"), host.file("node.token"));
    expect((await host.refusal()).message).toMatch(/node\.token and .* do not belong together: the token is for node/);
    cpSync(second.file("aegis-config.yaml"), host.file("aegis-config.yaml"));
    expect((await host.refusal()).message).toContain(`${host.file("node.key")} is not the key that`);
    second.remove();
  });

  test("controller keys of another controller", async () => {
    const other = await enrolling();
    const second = bareHost();
    await second.enroll(await other.issue());
    cpSync(second.file("controller.keys"), host.file("controller.keys"));
    const error = await host.refusal();
    expect(error.message).toMatch(/controller\.keys is for root .*, but seal_root in the config is /);
    expect(error.hint).toContain("aegis edge enroll --force");
    second.remove();
    await other.remove();
  });

  test("a public key that is not the key's is set right, and said", async () => {
    const right = readFileSync(host.file("node.key.pub"));
    writeFileSync(host.file("node.key.pub"), "garbage");
    const daemon = await host.run();
    await daemon.stop();
    expect(readFileSync(host.file("node.key.pub"))).toEqual(right);
    expect(JSON.stringify(daemon.log.lines)).toContain("did not hold the public half");
  });

  test("files that are too open are closed, and said", async () => {
    chmodSync(host.file("node.key"), 0o644);
    chmodSync(host.stateDir, 0o755);
    const daemon = await host.run();
    await daemon.stop();
    expect(modes(host)).toMatchObject({ "": "700", "node.key": "600" });
    const said = daemon.log.lines.filter(({ event }) => event === "settings").map(({ message }) => message);
    expect(said).toContain(`${host.file("node.key")} had mode 0644, which is too open; it is 0600 now`);
  });

  needs("root")("a file of another user's is refused with how to take it over", async () => {
    chownSync(host.file("node.token"), 4711, 4711);
    expect(await host.refusal()).toMatchObject({ code: "config_invalid", hint: expect.stringContaining("chown") });
  });

  test("an enrollment that a crash left half in its place is ended before anything is read", async () => {
    mkdirSync(host.file("enroll.next"));
    cpSync(host.file("node.key"), host.file("enroll.next/0"));
    const plan = [{ path: host.file("node.key"), mode: 0o600, content: "0" }];
    writeFileSync(host.file("enroll.next/plan.json"), JSON.stringify(plan));
    writeFileSync(host.file("node.key"), "half");
    await (await host.run()).stop();
    expect(existsSync(host.file("enroll.next"))).toBe(false);
  });
});

test("no directory at all is no enrollment", async () => {
  rmSync(host.stateDir, { recursive: true });
  expect(await host.refusal()).toMatchObject({ code: "not_enrolled", exitCode: 78, hint: "aegis edge enroll TOKEN" });
});

test("a directory that the other implementation wrote is served as it would be there", async () => {
  rmSync(host.stateDir, { recursive: true });
  mkdirSync(host.stateDir, { recursive: true });
  const nodeId = "5e3bb6a1-5a1c-4a3c-9d65-0a8b1c2d3e4f";
  const seed = newSeed();
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub: nodeId, role: "edge", tid: "acme", cap_hash: "x", iat: 1_700_000_000, exp: 1_700_003_600 };
  const files: Record<string, [string | Uint8Array, number]> = {
    "node.key": [seed, 0o600],
    "node.pub": [importSigningKey(seed).raw, 0o644],
    "node.token": [`${part({ alg: "RS256", typ: "JWT" })}.${part(claims)}.ab+/cd==\n`, 0o600],
    "enrollment.jwt": ["left.over.token", 0o600],
    "aegis-config.yaml": [
      `apiVersion: 100monkeys.ai/v1
kind: NodeConfig
metadata: { name: rusty, version: 0.15.0 }
spec:
  node: { id: ${nodeId}, type: edge }
  cluster:
    enabled: true
    role: edge
    controller: { endpoint: "https://localhost:${controller.port}", tls: { enabled: true } }
    cluster_grpc_port: 50056
    heartbeat_interval_secs: 30
    token_refresh_margin_secs: 120
    edge:
      tenant_id: acme
      node_security_token_path: ~/.aegis/edge/node.token
      stream_reconnect_backoff_secs: [1, 2, 5, 15, 60]
      capabilities: { os: linux, arch: x86_64, local_tools: [shell], mount_points: ["/"], custom_labels: {} }
  security_contexts:
    - { name: zaru-free, description: all, capabilities: [{ tool_pattern: "*" }] }
`,
      0o600,
    ],
  };
  for (const [name, [content, bits]] of Object.entries(files)) {
    writeFileSync(host.file(name), content);
    chmodSync(host.file(name), bits);
  }
  const sent: EdgeEvent[] = [];
  const daemon = await host.run({
    link: {
      async open() {
        return { send: (event) => sent.push(event) > 0, drained: () => Promise.resolve(), close() {} };
      },
      rotate: () => failure(Promise.reject(new Error("not asked"))) as never,
      attest: () => failure(Promise.reject(new Error("not asked"))) as never,
      challenge: () => failure(Promise.reject(new Error("not asked"))) as never,
      close() {},
    },
  });
  await daemon.stop();
  const [first] = sent;
  expect(first?.hello?.envelope?.nodeSecurityToken).toEndWith(".ab+/cd==");
  expect(first?.hello?.sealHello ?? null).toBeNull();
  expect(readFileSync(host.file("node.key.pub"))).toEqual(readFileSync(host.file("node.pub")));
  expect(modes(host)).toMatchObject({ "": "700", "aegis-config.yaml": "600", "enrollment.jwt": "600" });
  expect(daemon.log.events()).toContain("compat_session");
}, 20_000);
