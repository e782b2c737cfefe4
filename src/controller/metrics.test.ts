import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { startOfTime, type TestNodes, testNodes } from "../../test/support/controller-rows.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { scriptedDispatcher } from "../../test/support/scripted-dispatcher.ts";
import { type TestApi, testApi } from "../../test/support/test-api.ts";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/store.ts";
import type { CallRequest } from "./dispatch-types.ts";
import { createMetrics } from "./metrics.ts";
import type { Sessions } from "./sessions.ts";

let store: Store;
let nodes: TestNodes;
let metrics: ReturnType<typeof createMetrics>;
beforeEach(async () => {
  store = await openStore(":memory:");
  nodes = testNodes();
  metrics = createMetrics();
  const sessions = nodes as unknown as Sessions;
  metrics.attach({ store, sessions, certificateExpiresAt: startOfTime, time: () => startOfTime });
});
afterEach(() => store.close());

/** `name{labels}` -> value, of everything that is told. */
async function samples(tenantId?: string): Promise<Record<string, number>> {
  const lines = (await metrics.text(tenantId)).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]),
  );
}

const request = (tool: string) => ({ tool, commandId: "c", nodeId: "n" }) as CallRequest;

describe("metrics", () => {
  test("every one has a help text, a type and a name that says its unit", async () => {
    await nodes.add(store, "a");
    const text = await metrics.text();
    const typed = [...text.matchAll(/^# TYPE (\S+) (\w+)$/gm)].map(([, name = "", type = ""]) => [name, type] as const);
    expect(typed.length).toBeGreaterThan(10);
    for (const [name, type] of typed) {
      expect(text).toMatch(new RegExp(`^# HELP ${name} \\S`, "m"));
      expect(name).toMatch(/^aegis_[a-z_]+$/);
      if (type === "counter") expect(name).toEndWith("_total");
      if (type === "histogram") expect(name).toEndWith("_seconds");
    }
    for (const line of text.split("\n"))
      expect(line).toMatch(/^(?:# (?:HELP|TYPE) .+|[a-z_]+(?:\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? \S+|)$/);
  });

  test("hosts are counted by status and tenant, with the first token to expire", async () => {
    await nodes.add(store, "a");
    await nodes.add(store, "b");
    await nodes.add(store, "c", { status: "disconnected" });
    await nodes.add(store, "d", { revokedAt: startOfTime });
    await nodes.add(store, "e", { tenantId: "other" });
    expect(await samples()).toMatchObject({
      'aegis_edge_daemons_total{status="connected",tenant="acme"}': 2,
      'aegis_edge_daemons_total{status="disconnected",tenant="acme"}': 1,
      'aegis_edge_daemons_total{status="revoked",tenant="acme"}': 1,
      'aegis_edge_daemons_total{status="connected",tenant="other"}': 1,
      'aegis_edge_node_token_expires_timestamp_seconds{tenant="acme"}': startOfTime / 1000 + 30 * 86_400,
      aegis_certificate_expires_timestamp_seconds: startOfTime / 1000,
    });
    const own = Object.keys(await samples("acme"));
    expect(own.some((name) => name.includes("other"))).toBe(false);
    expect(own.some((name) => name.includes('tenant="acme"'))).toBe(true);
  });

  test("calls are counted by tool and outcome, denials and replays by themselves", async () => {
    const answers = [
      {},
      { ok: false, outcome: "err", errorKind: "policy_violation" },
      { ok: false, outcome: "err", errorKind: "replayed" },
    ] as const;
    let next = 0;
    const watched = metrics.watchDispatcher(scriptedDispatcher((call) => call.answer(answers[next++])));
    for (const _ of answers) await Array.fromAsync(watched.call(request("cmd.run"), new AbortController().signal));
    expect(await samples()).toMatchObject({
      'aegis_edge_commands_dispatched_total{tool="cmd.run",outcome="ok"}': 1,
      'aegis_edge_commands_dispatched_total{tool="cmd.run",outcome="err"}': 2,
      'aegis_edge_command_duration_seconds_count{tool="cmd.run"}': 3,
      'aegis_edge_denials_total{kind="policy_violation"}': 1,
      aegis_edge_replays_total: 1,
    });
  });

  test("names of tools that callers make up do not fill the memory", async () => {
    const watched = metrics.watchDispatcher(scriptedDispatcher((call) => call.answer()));
    for (let at = 0; at < 300; at++)
      await Array.fromAsync(watched.call(request(`made.up${at}`), new AbortController().signal));
    const names = Object.keys(await samples()).filter((name) =>
      name.startsWith("aegis_edge_commands_dispatched_total"),
    );
    expect(names.length).toBe(201);
    expect((await samples())['aegis_edge_commands_dispatched_total{tool="other",outcome="ok"}']).toBe(100);
  });

  test("runs, heartbeats, streams and what the log says of attacks are counted", async () => {
    metrics.runEnded("complete", ["disconnected", "paused", "paused"]);
    metrics.heartbeat("acme");
    const closed = metrics.streamOpened();
    closed();
    closed();
    const log = recordedLog();
    const watched = metrics.watchLog(log).with({ node_id: "n" });
    watched.warn("hello_refused");
    watched.error("receipt_invalid", { command_id: "c" });
    expect(log.lines.at(-1)).toMatchObject({ event: "receipt_invalid", node_id: "n", command_id: "c" });
    const told = await samples();
    expect(told).toMatchObject({
      'aegis_edge_fleet_runs_total{outcome="complete"}': 1,
      'aegis_edge_fleet_targets_skipped_total{reason="paused"}': 2,
      'aegis_edge_heartbeats_total{tenant="acme"}': 1,
      'aegis_auth_failures_total{where="hello"}': 1,
      'aegis_security_events_total{event="receipt_invalid"}': 1,
    });
    expect(told.aegis_edge_stream_seconds_total).toBeGreaterThanOrEqual(0);
  });
});

describe("who may read them", () => {
  let api: TestApi;
  beforeEach(async () => {
    api = await testApi({ metrics: { text: async (tenantId) => `tenant ${tenantId}`, contentType: "text/plain" } });
  });
  afterEach(() => api.close());
  const ask = (remoteAddress: string | undefined, headers: Record<string, string> = {}) =>
    api.app.fetch(new Request("http://localhost/metrics", { headers }), remoteAddress ? { remoteAddress } : {});

  test("this machine sees everything; others need an administrator's token and see their tenant", async () => {
    for (const address of ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
      expect(await (await ask(address)).text()).toBe("tenant undefined");
    for (const address of ["10.0.0.1", undefined]) expect((await ask(address)).status).toBe(401);
    expect((await ask("127.0.0.1", { "x-forwarded-for": "10.0.0.1" })).status).toBe(401);
    const admin = await api.token();
    const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
    expect(await (await ask("10.0.0.1", bearer(admin.token))).text()).toBe("tenant acme");
    const reader = await api.token({ scopes: ["aegis.edge.hosts.read"] });
    expect((await ask("10.0.0.1", bearer(reader.token))).status).toBe(403);
  });
});
