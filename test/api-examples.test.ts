/** The API's reference, example by example: each request is sent as it is written there, and each answer has the fields it shows. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { operations } from "../src/api/operations.ts";
import { parseSse } from "../src/api/sse.ts";
import { uuidOf } from "./support/controller-rows.ts";
import { type TestApi, testApi } from "./support/test-api.ts";

let api: TestApi;
beforeEach(async () => {
  api = await testApi();
  await api.nodes.add(api.store, "web-1", {
    tags: ["prod"],
    labels: { region: "eu" },
    localTools: ["shell", "docker"],
  });
  await api.nodes.add(api.store, "db-1", { status: "disconnected" });
  api.react = (call) => {
    call.print("up 3 days\n");
    call.answer();
  };
});
afterEach(() => api.close());

type Name = keyof typeof operations;
const tried = new Set<Name>();
const web1 = uuidOf("acme web-1");

/** Sends it, and answers with what came, which the operation's own schema accepts and which has exactly these fields. */
async function sent(
  name: Name,
  at: Record<string, string>,
  body: unknown,
  fields: readonly string[],
): Promise<Record<string, unknown>> {
  tried.add(name);
  const { method, path, status, answer } = operations[name];
  const [where = "", query = ""] = [at[":path"] ?? path, at["?"] ? `?${at["?"]}` : ""];
  const filled = where.replace(/:(\w+)/g, (_, key: string) => at[key] ?? "");
  const response = await api.request(method, `${filled}${query}`, body === undefined ? {} : { body });
  const text = await response.text();
  expect(`${name} ${response.status} ${response.status === status ? "" : text}`).toBe(`${name} ${status} `);
  if (answer === null) return {};
  const value = JSON.parse(text) as Record<string, unknown>;
  expect(answer === "events" ? null : answer.safeParse(value).error).toBeUndefined();
  const one = (Array.isArray(value.items) ? value.items[0] : value) as Record<string, unknown>;
  expect({ name, fields: Object.keys(one).sort() }).toEqual({ name, fields: [...fields].sort() });
  return one;
}

const host = [
  ...["node_id", "name", "tenant_id", "status", "seal", "connected_since", "last_heartbeat_at", "enrolled_at", "tags"],
  ...["capabilities", "software_version", "key_fingerprint", "token_expires_at", "active_calls", "queued_calls"],
];
const group = ["id", "name", "selector", "pinned_members", "created_by", "created_at", "resolved_members"];
const token = [
  "id",
  "name",
  "scopes",
  "contexts",
  "tenant_id",
  "created_at",
  "expires_at",
  "last_used_at",
  "revoked_at",
];
const selector = {
  ...{ os: "linux", arch: null, tools: ["docker"], labels: [{ Equals: ["region", "eu"] }] },
  tags: [{ AllOf: ["prod"] }],
};
const run = [
  ...["run_id", "tool", "context", "target", "policy", "principal"],
  ...["started_at", "ended_at", "outcome", "summary"],
];

test("enrollment tokens and hosts", async () => {
  await sent(
    "issueEnrollmentToken",
    {},
    { name: "workstation-east", ttl_seconds: 900, tags: ["prod"], for_node: null, compat: false },
    ["token", "expires_at", "controller_endpoint", "qr_payload", "command_hint", "issued_to"],
  );
  await sent("listHosts", { "?": "tag=prod&label=region=eu&connected=true&all=false" }, undefined, host);
  await sent("getHost", { id: web1 }, undefined, [...host, "tools", "recent_commands", "key_changes"]);
  await sent("patchHost", { id: web1 }, { name: "web-one", tags: ["prod"] }, host);
  const changed = await sent("changeHostTags", { id: web1 }, { add: ["db"], remove: ["staging"] }, host);
  expect(changed).toMatchObject({ name: "web-one", tags: ["prod", "db"] });
  const settings = {
    ...{ heartbeat_interval_secs: 30, max_concurrent_invocations: 8 },
    ...{ log_level: "info", custom_labels: { rack: "7" } },
  };
  for (const [name, body] of [
    ["pushHostConfig", settings],
    ["drainHost", { finish_within_ms: 1_000 }],
    ["shutdownHost", {}],
  ] as const) {
    tried.add(name);
    const { method, path } = operations[name];
    expect((await api.request(method, path.replace(":id", web1), { body })).status).toBe(202);
  }
  await sent("revokeHost", { id: web1 }, undefined, []);
});

test("groups and every form of a target", async () => {
  const made = await sent("createGroup", {}, { name: "web", selector, pinned_members: [web1] }, group);
  expect(made).toMatchObject({ resolved_members: [{ node_id: web1, name: "web-1", status: "connected" }] });
  await sent("listGroups", {}, undefined, group);
  await sent("getGroup", { id: "web" }, undefined, group);
  await sent("patchGroup", { id: "web" }, { pinned_members: [] }, group);
  const targets = ["All", { All: null }, { Node: web1 }, { Nodes: [web1] }, { Group: "web" }, { Selector: selector }];
  const more = [
    ...[{ Exists: "region" }, { In: ["region", ["eu", "us"]] }].map((label) => ({ Selector: { labels: [label] } })),
    ...[{ Has: "prod" }, { AnyOf: ["prod", "x"] }, { NoneOf: ["x"] }].map((tag) => ({ Selector: { tags: [tag] } })),
  ];
  for (const target of [...targets, ...more]) {
    const { resolved } = await sent("previewTarget", {}, { target }, ["resolved", "skipped"]);
    expect({ target, resolved }).toEqual({
      target,
      resolved: [{ node_id: web1, name: "web-1", status: "connected", operator_challenge: null }],
    });
  }
  await sent("deleteGroup", { id: "web" }, undefined, []);
});

describe("runs", () => {
  test("are started, told event by event, listed and shown", async () => {
    const body = {
      ...{ target: "All", tool: "cmd.run", args: { command: "uptime" }, context: "default" },
      policy: {
        ...{ mode: "parallel", batch: null, max_concurrency: 64, on_error: "continue", stop_after: null },
        ...{ require_min: null, deadline_secs: 60 },
      },
      ...{ abort_on_disconnect: false, progress: true, args_json: null, operator_proofs: {} },
    };
    tried.add("invoke");
    const response = await api.request("POST", operations.invoke.path, { body });
    const fields: Record<string, string[]> = {};
    let runId = "";
    for await (const { event, data } of parseSse(response.body as ReadableStream<Uint8Array>)) {
      const value = JSON.parse(data) as Record<string, unknown>;
      fields[event] = Object.keys(value).sort();
      runId ||= String(value.run_id);
    }
    const pipes = ["stdout", "stderr", "structured", "job_id", "late", "output", "receipt", "receipt_proof"];
    expect(fields).toEqual({
      started: ["run_id", "resolved", "skipped", "waves"].sort(),
      node_started: ["run_id", "node_id", "name", "command_id"].sort(),
      command_progress: ["node_id", "command_id", "stream", "seq", "offset", "data", "skipped_bytes"].sort(),
      command_result: [
        ...["node_id", "name", "command_id", "ok", "outcome", "exit_code", "signal", "error_kind", "error_message"],
        ...["duration_ms", ...pipes],
      ].sort(),
      fleet_result: ["run_id", "outcome", "summary", "started_at", "ended_at"].sort(),
    });
    await sent("listRuns", { "?": "tool=cmd.run&outcome=complete" }, undefined, run);
    const id = { id: runId, run_id: runId, runId };
    tried.add("runEvents");
    const again = await api.request("GET", operations.runEvents.path.replace(/:\w+/, runId), {
      headers: { "last-event-id": "3" },
    });
    expect([...(await again.text()).matchAll(/^event: (.+)$/gm)].map(([, event]) => event)).toEqual([
      "command_result",
      "fleet_result",
    ]);
    tried.add("signRun");
    const late = await api.request("POST", operations.signRun.path.replace(/:\w+/, runId), {
      body: { operator_proofs: { [web1]: "" } },
    });
    expect(late.status).toBe(202);
    await sent("getRun", id, undefined, [...run, "per_node"]);
    const cancelled = await sent("cancelRun", id, { reason: "enough" }, ["run_id", "cancelled", "already_terminal"]);
    expect(cancelled).toEqual({ run_id: runId, cancelled: 0, already_terminal: 1 });
  });
});

test("tokens, whoami, tenants and the audit", async () => {
  const request = {
    ...{ name: "ci", scopes: ["aegis.edge.fleet.read"], contexts: ["default"], tenant_id: "acme" },
    expires_at: "2027-01-01T00:00:00.000Z",
  };
  const { id } = await sent("createToken", {}, request, [...token, "token"]);
  await sent("listTokens", {}, undefined, token);
  await sent("whoami", {}, undefined, ["principal", "tenant_id", "scopes", "contexts", "expires_at"]);
  await sent("revokeToken", { id: String(id) }, undefined, []);
  await sent("listTenants", {}, undefined, ["tenant_id", "created_at"]);
  await sent("listAudit", { "?": "since=2025-01-01T00:00:00.000Z" }, undefined, [
    ...["row", "at", "kind", "tenant_id", "principal", "node_id", "detail", "receipt", "hash", "prev"],
  ]);
  await sent("removeTenant", { id: "acme" }, undefined, []);
});

test("no operation is left out", () => {
  const left = Object.keys(operations).filter((name) => !tried.has(name as Name));
  expect(left).toEqual([]);
});
