import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringifyYAML } from "confbox/yaml";
import { AegisError } from "../errors.ts";
import { loadEdgeConfig } from "./load.ts";

let home: string;
let stateDir: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "aegis-load-"));
  stateDir = join(home, ".aegis", "edge");
  mkdirSync(stateDir, { recursive: true });
});
afterEach(() => rmSync(home, { recursive: true }));

const nodeId = "0a4f3f5e-1a9a-4c7e-9a50-6f4d3a1f9b11";
const root = "A".repeat(43);

interface Overrides {
  cluster?: object;
  edge?: object;
  controller?: object;
  spec?: object;
  top?: object;
}
const document = ({ cluster, edge, controller, spec, top }: Overrides = {}) => ({
  apiVersion: "100monkeys.ai/v1",
  kind: "NodeConfig",
  metadata: { name: "web-1" },
  spec: {
    node: { id: nodeId, type: "edge" },
    cluster: {
      enabled: true,
      role: "edge",
      controller: { endpoint: "https://c.example:50056", ...controller },
      edge: { tenant_id: "acme", seal: "strict", seal_root: root, ...edge },
      ...cluster,
    },
    ...spec,
  },
  ...top,
});

const own = () => join(stateDir, "aegis-config.yaml");
const write = (content: unknown, path = own()) =>
  writeFileSync(path, typeof content === "string" ? content : stringifyYAML(content));
const load = (configPath?: string) =>
  loadEdgeConfig({ stateDir, env: {}, home, ...(configPath ? { configPath } : {}) });
const refused = async () => {
  const error: unknown = await load().then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof AegisError)) throw new Error(`expected a refusal, got ${JSON.stringify(error)}`);
  expect(error.code).toBe("config_invalid");
  return error.message;
};

test("what is left out has the documented defaults, in milliseconds", async () => {
  write(document());
  const { config, warnings } = await load();
  expect(warnings).toEqual([]);
  expect(config).toMatchObject({
    name: "web-1",
    nodeId,
    tenantId: "acme",
    controller: {
      host: "c.example",
      port: 50056,
      url: "https://c.example:50056",
      tls: { pins: [], caPem: null, serverName: "c.example", clientCertificate: null },
    },
    keyPath: join(stateDir, "node.key"),
    tokenPath: join(stateDir, "node.token"),
    controllerKeysPath: join(stateDir, "controller.keys"),
    heartbeatIntervalMs: 30_000,
    backoffScheduleMs: [1_000, 2_000, 5_000, 15_000, 60_000],
    maxConcurrent: 16,
    seal: "strict",
    sealRoot: root,
    requireOperatorSignature: false,
    proxy: null,
    logLevel: "info",
  });
});

test("every problem is reported at once, each with file, path, what was expected and what was found", async () => {
  write(
    document({
      cluster: { heartbeat_interval_secs: 0, role: "worker" },
      edge: { tenant_id: "Not A Slug", max_concurrent_invocations: "many" },
      controller: { tls: { enabled: false, pin_sha256: ["sha256/abc"], cert_path: "x.pem" } },
      spec: { security_contexts: [{ name: "default", capabilities: "all" }] },
    }),
  );
  const lines = (await refused()).split("\n  ").slice(1);
  const at = `${own()}: spec.`;
  expect(lines.toSorted()).toEqual(
    [
      `${at}cluster.controller.tls.cert_path: expected cert_path and key_path together`,
      `${at}cluster.controller.tls.enabled: without TLS only this machine itself may be the controller, not c.example`,
      `${at}cluster.controller.tls.pin_sha256[0]: expected spki-sha256: and 43 characters of base64url, found "sha256/abc"`,
      `${at}cluster.edge.max_concurrent_invocations: expected a number, found "many"`,
      `${at}cluster.edge.tenant_id: expected 1-63 characters of a-z, 0-9 and inner hyphens, found "Not A Slug"`,
      `${at}cluster.heartbeat_interval_secs: expected at least 1, found 0`,
      `${at}cluster.role: expected edge, found "worker"`,
      `${at}security_contexts[0].capabilities: expected a list, found "all"`,
    ].toSorted(),
  );
});

test("each rule of the cluster section is kept", async () => {
  const cases: Array<[Overrides, string]> = [
    [{ cluster: { cluster_grpc_port: 50057 } }, "spec.cluster.cluster_grpc_port: expected 50056, found 50057"],
    [{ cluster: { edge: undefined } }, "spec.cluster.edge: expected a mapping, found nothing"],
    [{ edge: { tenant_id: undefined } }, "spec.cluster.edge.tenant_id: expected text, found nothing"],
    [{ cluster: { enabled: false } }, "spec.cluster.enabled: expected true"],
    [{ controller: { endpoint: "http://c.example:50056" } }, "spec.cluster.controller.endpoint: without TLS only"],
    [
      { controller: { endpoint: "ftp://c.example" } },
      'expected a URL such as https://controller.example:50056, found "ftp',
    ],
    [{ controller: { endpoint: "c.example/path" } }, "expected a URL such as"],
    [
      { controller: { tls: { ca_pem: "x", ca_path: "y" } } },
      "spec.cluster.controller.tls.ca_path: expected ca_pem or ca_path, found both",
    ],
    [
      { controller: { tls: { ca_pem: "no pem" } } },
      "spec.cluster.controller.tls.ca_pem: expected PEM text of a certificate",
    ],
    [{ controller: { tls: { ca_path: "ca.pem" } } }, "ca.pem does not exist"],
    [{ edge: { seal_root: undefined } }, "spec.cluster.edge.seal_root: expected the root's key id"],
    [{ cluster: { heartbeat_interval_secs: 3601 } }, "expected at most 3600, found 3601"],
    [{ edge: { stream_reconnect_backoff_secs: [1, 4000] } }, "stream_reconnect_backoff_secs[1]: expected at most 3600"],
    [{ spec: { node: { id: nodeId.toUpperCase() } } }, "spec.node.id: expected a UUID in lower case"],
    [{ spec: { node: { id: nodeId, type: "hybrid" } } }, "spec.node.type: expected edge"],
    [{ spec: { trusted_operators: [{ name: "ann", public_key: `ed25519:${"A".repeat(43)}` }] } }, "usable Ed25519"],
    [
      {
        spec: {
          mcp_servers: [
            { name: "a", command: "x" },
            { name: "a", command: "y" },
          ],
        },
      },
      'spec.mcp_servers[1].name: a second one named "a"',
    ],
    [{ top: { apiVersion: "v1" } }, "apiVersion: expected 100monkeys.ai/v1"],
    [{ top: { kind: undefined } }, "kind: expected NodeConfig"],
  ];
  for (const [overrides, message] of cases) {
    write(document(overrides));
    expect(await refused()).toContain(message);
  }
});

test("a bare host means https on 443, and loopback may do without TLS", async () => {
  write(document({ controller: { endpoint: "relay.example" } }));
  expect((await load()).config.controller).toMatchObject({
    host: "relay.example",
    port: 443,
    url: "https://relay.example:443",
  });
  write(document({ controller: { endpoint: "[::1]:50056", tls: { enabled: false } } }));
  expect((await load()).config.controller).toEqual({ host: "::1", port: 50056, url: "http://[::1]:50056", tls: null });
});

test("an unknown key warns with the nearest name and leaves the rest in force", async () => {
  write(
    document({ cluster: { heartbeat_intervall_secs: 5, heartbeat_interval_secs: 7 }, edge: { labels: { a: "b" } } }),
  );
  const { config, warnings } = await load();
  expect(config.heartbeatIntervalMs).toBe(7_000);
  expect(warnings).toEqual(
    [
      `${own()}: spec.cluster.edge.labels is unknown and has no effect`,
      `${own()}: spec.cluster.heartbeat_intervall_secs is unknown and has no effect; did you mean heartbeat_interval_secs?`,
    ].toSorted((a, b) => warnings.indexOf(a) - warnings.indexOf(b)),
  );
});

test("the shared file lies below the host's own, and a problem in it is said with its name", async () => {
  const shared = join(home, ".aegis", "config.yaml");
  write(
    {
      ...document(),
      metadata: undefined,
      spec: { cluster: { heartbeat_interval_secs: 90, edge: { max_concurrent_invocations: 4 } } },
    },
    shared,
  );
  write(document({ edge: { max_concurrent_invocations: 8 } }));
  expect((await load()).config).toMatchObject({ heartbeatIntervalMs: 90_000, maxConcurrent: 8 });
  write({ ...document(), spec: { cluster: { heartbeat_interval_secs: "soon" } } }, shared);
  expect(await refused()).toBe(`${shared}: spec.cluster.heartbeat_interval_secs: expected a number, found "soon"`);
  write(document({ cluster: { heartbeat_interval_secs: "later" } }));
  expect(await refused()).toBe(`${own()}: spec.cluster.heartbeat_interval_secs: expected a number, found "later"`);
});

test("a file whose top level is cluster is read the same way, and its paths are its own", async () => {
  const { spec } = document();
  write(spec);
  expect((await load()).config).toMatchObject({ nodeId, tenantId: "acme" });
  write({ ...spec, cluster: { ...spec.cluster, heartbeat_interval_secs: 0 } });
  expect(await refused()).toStartWith(`${own()}: cluster.heartbeat_interval_secs: expected at least 1`);
});

test("a directory of the peer's is served as compat; one that was enrolled strictly never is", async () => {
  const peer = document({
    edge: { seal: undefined, seal_root: undefined, node_security_token_path: "~/.aegis/edge/node.token" },
    controller: { token: "x" },
    cluster: { token_refresh_margin_secs: 120 },
  });
  write(peer);
  const { config, warnings } = await load();
  expect([config.seal, config.sealRoot, config.tokenPath]).toEqual([
    "compat",
    null,
    join(home, ".aegis/edge/node.token"),
  ]);
  expect(warnings).toHaveLength(2);
  writeFileSync(join(stateDir, "controller.keys"), "{}");
  expect(await refused()).toContain("spec.cluster.edge.seal: expected strict");
});

test("settings cannot be changed once they are loaded", async () => {
  write(document({ spec: { security_contexts: [{ name: "default", principals: [{ sub: "*" }] }] } }));
  const { config } = await load();
  expect(() => Object.assign(config, { maxConcurrent: 1 })).toThrow();
  expect(() => Object.assign(config.controller, { host: "evil" })).toThrow();
  expect(() => (config.contexts as Map<string, unknown>).set("x", {})).toThrow();
  expect(() => (config.contexts as Map<string, unknown>).clear()).toThrow();
});

test("broken YAML, an empty file, no mapping and no file are told apart", async () => {
  write("spec: [\n");
  expect(await refused()).toContain(`${own()} is not YAML`);
  write("  \n");
  expect(await refused()).toBe(`${own()} is empty`);
  write("- a\n");
  expect(await refused()).toContain(`${own()}: expected a mapping at the top`);
  writeFileSync(own(), Buffer.from([0xff, 0xfe]));
  expect(await refused()).toBe(`${own()} is not UTF-8 text`);
  rmSync(own());
  expect(await load().catch((error: unknown) => error)).toMatchObject({ code: "not_enrolled", exitCode: 78 });
});

test("keys of the prototype are nobody's settings", async () => {
  write(document(), join(home, ".aegis", "config.yaml"));
  write(
    JSON.stringify(document()).replace('"enabled":true', '"enabled":true,"__proto__":{"heartbeat_interval_secs":5}'),
  );
  expect((await load()).config.heartbeatIntervalMs).toBe(30_000);
  expect(({} as Record<string, unknown>).heartbeat_interval_secs).toBeUndefined();
});

test("nothing behind a restriction of a policy is a mistake, not the absence of a restriction", async () => {
  const context = { name: "default", capabilities: [{ tool_pattern: "cmd.run", args_allowlist: null }] };
  write(document({ spec: { security_contexts: [context] } }));
  expect(await refused()).toContain(
    "spec.security_contexts[0].capabilities[0].args_allowlist: expected a list, found null",
  );
});

test("settings that others can change are said to be, wherever they lie", async () => {
  const elsewhere = join(home, "edge.yaml");
  write(document(), elsewhere);
  chmodSync(elsewhere, 0o664);
  expect((await load(elsewhere)).warnings).toEqual([`${elsewhere} can be changed by others: chmod go-w ${elsewhere}`]);
  chmodSync(elsewhere, 0o644);
  expect((await load(elsewhere)).warnings).toEqual([]);
});
