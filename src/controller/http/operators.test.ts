/** What operators do besides calls: hosts, groups, tokens, tenants and history, through requests. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { startOfTime, uuidOf } from "../../../test/support/controller-rows.ts";
import { type RequestOptions, type TestApi, testApi } from "../../../test/support/test-api.ts";
import type { RunDetail, RunRecord } from "../../api/runs.ts";
import type { ApiToken, Host, HostDetail, HostGroup, NewApiToken, Page } from "../../api/types.ts";
import { structToJson } from "../../wire/json.ts";

let api: TestApi;
beforeEach(async () => {
  api = await testApi();
});
afterEach(() => api.close());

const ask = async <T>(method: string, path: string, options: RequestOptions = {}) => {
  const response = await api.request(method, path, options);
  const text = await response.text();
  const body = text === "" ? null : (JSON.parse(text) as unknown);
  const error = (body as { error?: { code: string; message: string; hint: string } } | null)?.error;
  return { status: response.status, body: body as T, error, etag: response.headers.get("etag") ?? "", response };
};
const hostPath = `/v1/edge/hosts/${uuidOf("acme a")}`;

describe("hosts", () => {
  test("are named and tagged; a change that did not see the last one is refused", async () => {
    await api.nodes.add(api.store, "a", { tags: ["old"] });
    const first = await ask<HostDetail>("GET", hostPath);
    const named = await ask<Host>("PATCH", hostPath, {
      body: { name: "desk", tags: ["x", "x"] },
      headers: { "if-match": first.etag },
    });
    expect(named.body).toMatchObject({ name: "desk", tags: ["x"] });
    expect(named.etag).not.toBe(first.etag);
    expect((await ask("GET", hostPath)).etag).toBe(named.etag);
    const late = await ask("PATCH", hostPath, { body: { tags: [] }, headers: { "if-match": first.etag } });
    expect([late.status, late.error?.code]).toEqual([412, "precondition_failed"]);
    expect((await ask<Host>("GET", "/v1/edge/hosts/desk")).body.tags).toEqual(["x"]);
    const blind = await ask<Host>("PATCH", hostPath, { body: { tags: ["y"] } });
    expect(blind.body).toMatchObject({ name: "desk", tags: ["y"] });
    expect((await ask("PATCH", hostPath, { body: {} })).status).toBe(400);
  });

  test("tags are added and removed without a look at the others, also at the same time", async () => {
    await api.nodes.add(api.store, "a", { tags: ["keep", "drop"] });
    const change = (body: unknown) => ask<Host>("POST", `${hostPath}/tags`, { body });
    await Promise.all([change({ add: ["db"], remove: ["drop"] }), change({ add: ["eu"] }), change({ add: ["db"] })]);
    expect((await ask<Host>("GET", hostPath)).body.tags.sort()).toEqual(["db", "eu", "keep"]);
    const many = Array.from({ length: 64 }, (_, at) => `t${at}`);
    expect((await change({ add: many })).error?.message).toContain("64 tags");
    expect((await change({ add: ["a b"] })).status).toBe(400);
  });

  test("a revoked host is gone from the list, its stream cut, its name free, and it changes no more", async () => {
    await api.nodes.add(api.store, "a");
    await ask("POST", "/v1/edge/groups", { body: { name: "g", pinned_members: ["a"] } });
    const seen = await ask("GET", hostPath);
    const stale = await ask("DELETE", hostPath, { headers: { "if-match": '"other"' } });
    expect(stale.status).toBe(412);
    const gone = await ask("DELETE", hostPath, { headers: { "if-match": seen.etag } });
    expect([gone.status, gone.body]).toEqual([204, null]);
    expect(api.nodes.ended).toEqual([{ nodeId: uuidOf("acme a"), reason: 4 }]);
    expect((await ask<Page<Host>>("GET", "/v1/edge/hosts")).body.items).toEqual([]);
    const all = await ask<Page<Host>>("GET", "/v1/edge/hosts?all=true");
    expect(all.body.items.map(({ status }) => status)).toEqual(["revoked"]);
    expect((await ask("GET", "/v1/edge/hosts/a")).status).toBe(404);
    expect((await ask("PATCH", hostPath, { body: { tags: [] } })).status).toBe(409);
    expect((await ask("DELETE", hostPath)).status).toBe(204);
    expect((await ask<HostGroup>("GET", "/v1/edge/groups/g")).body.pinned_members).toEqual([]);
  });

  test("settings, drain and shutdown reach a connected host; another one is said to be unavailable", async () => {
    await api.nodes.add(api.store, "a");
    await api.nodes.add(api.store, "off", { status: "disconnected" });
    const config = { heartbeat_interval_secs: 10, log_level: "debug", custom_labels: { rack: "7" } };
    const pushed = await ask("POST", `${hostPath}/config`, { body: config });
    expect([pushed.status, pushed.body]).toEqual([202, { node_id: uuidOf("acme a") }]);
    expect(structToJson(api.nodes.told[0]?.command.pushConfig?.mergedConfigDelta ?? {})).toEqual(config);
    expect((await ask("POST", `${hostPath}/drain`, { body: { finish_within_ms: 5_000 } })).status).toBe(202);
    expect(Number(api.nodes.told[1]?.command.drain?.finishWithinMs)).toBe(5_000);
    expect((await ask("POST", `${hostPath}/shutdown`)).status).toBe(202);
    expect(api.nodes.told[2]?.command.shutdown?.detail).toContain("ann");
    const off = await ask("POST", "/v1/edge/hosts/off/drain", { body: {} });
    expect([off.status, off.error?.code]).toEqual([503, "edge_unavailable"]);
    const foreign = await ask("POST", `${hostPath}/config`, { body: { security_contexts: [] } });
    expect([foreign.status, foreign.error?.message]).toEqual([400, expect.stringContaining("security_contexts")]);
  });
});

describe("groups", () => {
  test("are made, found by id and name, changed by who saw them last, and removed", async () => {
    await api.nodes.add(api.store, "a", { tags: ["web"] });
    await api.nodes.add(api.store, "b");
    const made = await ask<HostGroup>("POST", "/v1/edge/groups", {
      body: { name: "web", selector: { tags: [{ Has: "web" }] }, pinned_members: ["b"] },
    });
    expect(made.status).toBe(201);
    expect(made.body).toMatchObject({
      ...{ name: "web", pinned_members: [uuidOf("acme b")], created_by: "ann" },
      resolved_members: [
        { name: "a", status: "connected" },
        { name: "b", status: "connected" },
      ],
    });
    expect((await ask("GET", `/v1/edge/groups/${made.body.id}`)).etag).toBe(made.etag);
    const path = "/v1/edge/groups/web";
    const headers = { "if-match": made.etag };
    const changed = await ask<HostGroup>("PATCH", path, { body: { pinned_members: [] }, headers });
    expect(changed.body.resolved_members.map(({ name }) => name)).toEqual(["a"]);
    expect((await ask("PATCH", path, { body: { name: "x" }, headers })).status).toBe(412);
    expect((await ask("POST", "/v1/edge/groups", { body: { name: "web" } })).status).toBe(409);
    expect((await ask("DELETE", path)).status).toBe(204);
    expect((await ask("GET", path)).status).toBe(404);
  });

  test("of two changes at once that saw the same, one is done", async () => {
    await ask("POST", "/v1/edge/groups", { body: { name: "g" } });
    const { etag } = await ask("GET", "/v1/edge/groups/g");
    const change = (arch: string) =>
      ask("PATCH", "/v1/edge/groups/g", { body: { selector: { arch } }, headers: { "if-match": etag } });
    const statuses = (await Promise.all([change("x86_64"), change("aarch64")])).map(({ status }) => status);
    expect(statuses.sort()).toEqual([200, 412]);
  });

  test("take no host that is unknown, foreign or revoked, and no nonsense", async () => {
    await api.nodes.add(api.store, "theirs", { tenantId: "other" });
    await api.nodes.add(api.store, "old", { revokedAt: startOfTime });
    const make = (body: unknown) => ask("POST", "/v1/edge/groups", { body });
    expect((await make({ name: "g", pinned_members: ["nobody"] })).status).toBe(404);
    expect((await make({ name: "g", pinned_members: [uuidOf("other theirs")] })).status).toBe(404);
    expect((await make({ name: "g", pinned_members: [uuidOf("acme old")] })).status).toBe(409);
    expect((await make({ name: "a b" })).error?.message).toContain("without white space");
    expect((await make({ name: "g", selector: { tags: [{ SomeOf: ["x"] }] } })).status).toBe(400);
  });

  test("are listed page by page", async () => {
    for (const name of ["a", "b", "c"]) {
      await ask("POST", "/v1/edge/groups", { body: { name } });
      await api.clock.advance(1);
    }
    const first = await ask<Page<HostGroup>>("GET", "/v1/edge/groups?limit=2");
    expect(first.body.items.map(({ name }) => name)).toEqual(["a", "b"]);
    const next = await ask<Page<HostGroup>>("GET", `/v1/edge/groups?limit=2&cursor=${first.body.next_cursor}`);
    expect([next.body.items.map(({ name }) => name), next.body.next_cursor]).toEqual([["c"], null]);
  });
});

describe("tokens", () => {
  test("are told once, listed without what they are, and end at once", async () => {
    const body = { name: "ci", scopes: ["aegis.edge.hosts.read"], expires_at: "2026-01-01T01:00:00+00:30" };
    const made = await ask<NewApiToken>("POST", "/v1/tokens", { body });
    expect(made.status).toBe(201);
    const { token, ...rest } = made.body;
    expect(rest).toMatchObject({ name: "ci", contexts: ["default"], expires_at: "2026-01-01T00:30:00.000Z" });
    expect((await ask("GET", "/v1/edge/hosts", { token })).status).toBe(200);
    expect((await ask("GET", "/v1/tokens", { token })).status).toBe(403);
    const list = await ask<Page<ApiToken>>("GET", "/v1/tokens");
    expect(list.body.items.find(({ id }) => id === rest.id)).toMatchObject({ name: "ci", revoked_at: null });
    expect(JSON.stringify(list.body)).not.toContain(token);
    for (let twice = 0; twice < 2; twice++) expect((await ask("DELETE", `/v1/tokens/${rest.id}`)).status).toBe(204);
    expect((await ask("GET", "/v1/edge/hosts", { token })).status).toBe(401);
  });

  test("are made for the own tenant only, with scopes that exist, and not for the past", async () => {
    const make = (change: object) =>
      ask("POST", "/v1/tokens", { body: { name: "x", scopes: ["aegis.admin"], ...change } });
    expect((await make({ tenant_id: "acme" })).status).toBe(201);
    expect((await make({ tenant_id: "other" })).status).toBe(404);
    expect((await make({ scopes: ["aegis.everything"] })).error?.message).toContain("scopes[0]");
    expect((await make({ scopes: [] })).status).toBe(400);
    expect((await make({ expires_at: "2025-12-31T23:59:59Z" })).error?.message).toContain("has passed");
  });
});

describe("a tenant that is removed", () => {
  test("takes its hosts, streams and tokens with it, and leaves the others alone", async () => {
    await api.nodes.add(api.store, "a");
    await api.nodes.add(api.store, "b", { tenantId: "other" });
    const other = await api.token({ tenantId: "other" });
    expect((await ask<Page<unknown>>("GET", "/v1/tenants")).body.items).toEqual([
      { tenant_id: "acme", created_at: "2026-01-01T00:00:00.000Z" },
    ]);
    expect((await ask("DELETE", "/v1/tenants/acme")).status).toBe(204);
    expect(api.nodes.ended).toEqual([{ nodeId: uuidOf("acme a"), reason: 4 }]);
    expect((await ask("GET", "/v1/whoami")).status).toBe(401);
    expect((await ask<Page<Host>>("GET", "/v1/edge/hosts", { token: other.token })).body.items.length).toBe(1);
  });
});

describe("history", () => {
  const invoke = async (body: object) => {
    const response = await api.request("POST", "/v1/edge/fleet/invoke", {
      body: { target: "All", tool: "cmd.run", ...body },
    });
    await response.text();
    await api.clock.advance(1);
  };

  test("lists runs the newest first, by tool and outcome, and tells how each host fared", async () => {
    await api.nodes.add(api.store, "a");
    await api.nodes.add(api.store, "b");
    api.react = (call) => call.answer();
    await invoke({});
    await invoke({ tool: "host.info" });
    await invoke({ policy: { require_min: 9 } });
    const page = await ask<Page<RunRecord>>("GET", "/v1/edge/fleet/runs?limit=2");
    expect(page.body.items.map(({ tool, outcome }) => [tool, outcome])).toEqual([
      ["cmd.run", "refused"],
      ["host.info", "complete"],
    ]);
    const rest = await ask<Page<RunRecord>>("GET", `/v1/edge/fleet/runs?limit=2&cursor=${page.body.next_cursor}`);
    expect(rest.body.items.length).toBe(1);
    expect(rest.body.items[0]).toMatchObject({
      ...{ target: "All", principal: "ann", context: "default", summary: { ok: 2 } },
      policy: { mode: "parallel", deadline_secs: 60 },
    });
    const refused = await ask<Page<RunRecord>>("GET", "/v1/edge/fleet/runs?outcome=refused");
    expect(refused.body.items.length).toBe(1);
    expect((await ask("GET", "/v1/edge/fleet/runs?outcome=great")).status).toBe(400);
    const detail = await ask<RunDetail>("GET", `/v1/edge/fleet/runs/${refused.body.items[0]?.run_id}`);
    expect(detail.body.per_node.map(({ outcome }) => outcome)).toEqual(["not_started", "not_started"]);
  });

  test("a retried request whose run is long over gets its events from the store, numbered on", async () => {
    await api.nodes.add(api.store, "a");
    const runId = uuidOf("old run");
    const summary = { ok: 1, err: 0, timed_out: 0, cancelled: 0, edge_disconnected: 0, skipped: 1, not_started: 0 };
    await api.store.insertRun({
      ...{ runId, tenantId: "acme", tool: "cmd.run", context: "default", target: '"All"', policy: "{}" },
      ...{ principal: "ann", startedAt: startOfTime, endedAt: null, outcome: null, summary: null },
      resolved: [{ nodeId: uuidOf("acme a"), name: "a" }],
      skipped: [{ nodeId: uuidOf("acme b"), name: "b", reason: "disconnected" }],
    });
    await api.store.endRun(runId, startOfTime + 5, "complete", JSON.stringify(summary));
    const response = await api.request("GET", `/v1/edge/fleet/runs/${runId}/events`, {
      headers: { "last-event-id": "7" },
    });
    const text = await response.text();
    expect([...text.matchAll(/^id: (\d+)\nevent: (\w+)/gm)].map(([, id, event]) => `${id} ${event}`)).toEqual([
      "8 started",
      "9 command_result",
      "10 fleet_result",
    ]);
    expect(text).toContain('"outcome":"complete"');
    expect((await ask("POST", `/v1/edge/fleet/${runId}/cancel`, { body: {} })).body).toEqual({
      ...{ run_id: runId, cancelled: 0, already_terminal: 1 },
    });
  });
});

describe("limits", () => {
  test("a tenant gets 100 enrollment tokens a minute; the next one is told when to come again", async () => {
    const issue = (token?: string) =>
      ask("POST", "/v1/edge/enrollment-tokens", { body: {}, ...(token ? { token } : {}) });
    for (let at = 0; at < 100; at++) expect((await issue()).status).toBe(201);
    await api.clock.advance(20_000);
    const over = await issue();
    expect([over.status, over.error?.code]).toEqual([429, "rate_limited"]);
    expect(over.error?.message).toContain("100");
    expect(over.response.headers.get("retry-after")).toBe("40");
    expect((await issue((await api.token({ tenantId: "other" })).token)).status).toBe(201);
    await api.clock.advance(40_000);
    expect((await issue()).status).toBe(201);
  });
});

describe("documents", () => {
  test("the API describes itself, for machines and for people, without a token", async () => {
    const machine = await ask<{ openapi: string; paths: object }>("GET", "/openapi.json", { token: null });
    expect(machine.body.openapi).toBe("3.1.0");
    expect(Object.keys(machine.body.paths)).toContain("/v1/edge/fleet/invoke");
    const page = await api.request("GET", "/docs", { token: null });
    expect(page.headers.get("content-type")).toStartWith("text/html");
    expect(await page.text()).toContain("/v1/edge/fleet/invoke");
  });
});
