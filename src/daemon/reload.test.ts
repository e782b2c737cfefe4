import { expect, test } from "bun:test";
import type { EdgeConfig } from "../config/edge.ts";
import { renewed } from "./reload.ts";

const before: EdgeConfig = {
  ...{ stateDir: "/s", configPath: "/s/c", keyPath: "/s/k", tokenPath: "/s/t", controllerKeysPath: "/s/keys" },
  ...{ name: "h", nodeId: "0a4f3f5e-1a9a-4c7e-9a50-6f4d3a1f9b11", tenantId: "acme" },
  controller: {
    host: "c",
    port: 50056,
    url: "https://c:50056",
    tls: { pins: [], caPem: null, serverName: "c", clientCertificate: null },
  },
  ...{ heartbeatIntervalMs: 30_000, backoffScheduleMs: [1000], maxConcurrent: 16, seal: "strict", sealRoot: "r" },
  capabilities: { customLabels: { site: "a" } },
  ...{
    contexts: new Map(),
    trustedOperators: [],
    requireOperatorSignature: false,
    mcpServers: [],
    proxy: null,
    otlp: null,
  },
  logLevel: "info",
};

test("what is asked each time is taken over, and nothing is said about it", () => {
  const fresh: EdgeConfig = {
    ...before,
    contexts: new Map([["default", {} as never]]),
    requireOperatorSignature: true,
    capabilities: { customLabels: { site: "b" } },
    logLevel: "debug",
    maxConcurrent: 3,
  };
  expect(renewed(before, fresh)).toEqual({ config: fresh, afterRestart: [] });
});

test("what runs already stays as it is until a restart, and is named as the file names it", () => {
  const { config, afterRestart } = renewed(before, {
    ...before,
    controller: { ...before.controller, host: "other" },
    seal: "compat",
    heartbeatIntervalMs: 1_000,
    logLevel: "warn",
  });
  expect(config).toEqual({ ...before, logLevel: "warn" });
  expect(afterRestart).toEqual([
    "spec.cluster.controller",
    "spec.cluster.heartbeat_interval_secs",
    "spec.cluster.edge.seal",
  ]);
});

test("the same settings change nothing", () => {
  expect(renewed(before, structuredClone(before)).afterRestart).toEqual([]);
});
