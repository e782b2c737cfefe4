/** MCP at /mcp with two clients that share no line with us: the official SDK's, and the AI SDK's. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createMCPClient } from "@ai-sdk/mcp";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { createMcpHub } from "../src/controller/http/mcp.ts";
import { silentLog } from "../src/platform/log.ts";
import { cmdRunDescriptor, hostInfoDescriptor, uuidOf } from "./support/controller-rows.ts";
import { type TestApi, testApi } from "./support/test-api.ts";

let api: TestApi;
let url: URL;
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(async () => {
  api = await testApi();
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 30,
    fetch: (request) => api.app.fetch(request),
  });
  url = new URL(`http://127.0.0.1:${server.port}/mcp`);
  cleanUp.push(
    () => api.close(),
    () => server.stop(true),
  );
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
});

async function connect(change: Parameters<TestApi["token"]>[0] = {}): Promise<Client> {
  const { token } = await api.token(change);
  const client = new Client({ name: "test", version: "1" });
  const headers = { authorization: `Bearer ${token}` };
  const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
  await client.connect(transport as Parameters<Client["connect"]>[0]);
  cleanUp.push(() => client.close());
  return client;
}
const words = (result: Awaited<ReturnType<Client["callTool"]>>): string =>
  (result.content as Array<{ type: string; text?: string }>).map(({ text }) => text ?? "").join("\n");
const printed = (text: string) => ({
  stdout: { head: Buffer.from(text), tail: new Uint8Array(), bytes: Buffer.byteLength(text) },
});

const schema = (properties: object) =>
  Buffer.from(JSON.stringify({ type: "object", properties, required: ["command"] }));
const cmdRun = {
  ...cmdRunDescriptor,
  inputSchemaJson: schema({ command: { type: "string" }, wait_secs: { type: "number" } }),
};

describe("the official client", () => {
  test("sees hosts' tools with their place and context as arguments, and what they do to a host", async () => {
    const odd = {
      ...cmdRunDescriptor,
      name: "mcp.files.move",
      inputSchemaJson: schema({ target: { type: "string" } }),
    };
    await api.nodes.add(api.store, "web-1", { tools: [cmdRun, hostInfoDescriptor, odd] });
    await api.nodes.add(api.store, "off", {
      status: "disconnected",
      tools: [{ ...cmdRunDescriptor, name: "rare.tool" }],
    });
    await api.nodes.add(api.store, "theirs", {
      tenantId: "other",
      tools: [{ ...cmdRunDescriptor, name: "their.tool" }],
    });
    const client = await connect();
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name)).toEqual([
      "aegis_edge_hosts",
      "aegis_edge_fleet_list",
      "aegis_edge_fleet_invoke",
      "aegis_edge_fleet_cancel",
      "cmd_run",
      "host_info",
      "mcp_files_move",
    ]);
    const find = (name: string) => tools.find((tool) => tool.name === name);
    expect(find("cmd_run")?.annotations).toMatchObject({
      title: "cmd.run",
      readOnlyHint: false,
      destructiveHint: true,
    });
    expect(find("host_info")?.annotations).toMatchObject({ readOnlyHint: true, destructiveHint: false });
    const parameters = (name: string) => Object.keys(find(name)?.inputSchema.properties ?? {});
    expect(parameters("cmd_run")).toEqual(["command", "wait_secs", "target", "context"]);
    expect(parameters("mcp_files_move")).toEqual(["target", "edge_target", "context"]);
    expect(find("cmd_run")?.inputSchema.required).toEqual(["command"]);
  });

  test("calls the only host without naming it; output is text and structure", async () => {
    await api.nodes.add(api.store, "web-1", { tools: [cmdRun] });
    api.react = (call) => call.answer(printed("up 3 days\n"));
    const client = await connect();
    const result = await client.callTool({ name: "cmd_run", arguments: { command: "uptime" } });
    expect(result.isError).toBeFalsy();
    expect(words(result)).toBe("up 3 days\n");
    expect(result.structuredContent).toMatchObject({ host: "web-1", ok: true, exit_code: 0, outcome: "ok" });
    const { request } = api.dispatcher.calls[0] ?? {};
    expect(request).toMatchObject({ tool: "cmd.run", context: "default", via: "mcp", principal: { name: "ann" } });
    // The client gives up after a minute: what takes longer becomes a job before that.
    expect(JSON.parse(request?.argsJson ?? "")).toEqual({ command: "uptime", wait_secs: 45 });
  });

  test("names the host where there are several, and the context", async () => {
    for (const name of ["web-1", "web-2"]) await api.nodes.add(api.store, name, { tools: [cmdRun] });
    api.react = (call) => call.answer(printed(call.request.nodeId === uuidOf("acme web-2") ? "two" : "one"));
    const client = await connect({ contexts: ["default", "operator"] });
    const unclear = await client.callTool({ name: "cmd_run", arguments: { command: "id" } });
    expect([unclear.isError, words(unclear)]).toEqual([true, expect.stringContaining("2 hosts are connected")]);
    const one = await client.callTool({
      name: "cmd_run",
      arguments: { command: "id", target: "web-2", context: "operator", wait_secs: 5 },
    });
    expect(words(one)).toBe("two");
    expect(JSON.parse(api.dispatcher.calls[0]?.request.argsJson ?? "")).toEqual({ command: "id", wait_secs: 5 });
    expect(api.dispatcher.calls[0]?.request.context).toBe("operator");
    const both = await client.callTool({ name: "cmd_run", arguments: { command: "id", target: "all" } });
    expect(words(both)).toContain("## web-1\none");
    expect(words(both)).toContain("## web-2\ntwo");
    const nobody = await client.callTool({ name: "cmd_run", arguments: { command: "id", target: "web-9" } });
    expect([nobody.isError, words(nobody)]).toEqual([true, expect.stringContaining('no host "web-9"')]);
    const nonsense = await client.callTool({ name: "cmd_run", arguments: { command: "id", target: "color=red" } });
    expect([nonsense.isError, words(nonsense)]).toEqual([true, expect.stringContaining('no "color"')]);
  });

  test("gets a host's refusal as a result that names the rule, not as a broken call", async () => {
    await api.nodes.add(api.store, "web-1", { tools: [cmdRun] });
    const refused = { ok: false, outcome: "err", exitCode: null, errorKind: "policy_violation" } as const;
    api.react = (call) => call.answer({ ...refused, errorMessage: "default: cmd.run of /bin/sh is not allowed" });
    const client = await connect();
    const result = await client.callTool({ name: "cmd_run", arguments: { command: "sh" } });
    expect(result.isError).toBe(true);
    expect(words(result)).toContain("policy_violation: default: cmd.run of /bin/sh is not allowed");
    expect(result.structuredContent).toMatchObject({ ok: false, error_kind: "policy_violation" });
    const context = await client.callTool({ name: "cmd_run", arguments: { command: "sh", context: "operator" } });
    expect([context.isError, words(context)]).toEqual([true, expect.stringContaining('"operator", only: default')]);
  });

  test("follows progress, and what it cancels is cancelled on the host", async () => {
    await api.nodes.add(api.store, "web-1", { tools: [cmdRun] });
    const client = await connect();
    const stop = new AbortController();
    const progress: string[] = [];
    const seen = Promise.withResolvers<void>();
    const calling = client.callTool({ name: "cmd_run", arguments: { command: "sleep" } }, undefined, {
      signal: stop.signal,
      onprogress({ message }) {
        progress.push(message ?? "");
        seen.resolve();
      },
    });
    calling.catch(() => {});
    while (api.dispatcher.open.length === 0) await new Promise(setImmediate);
    api.dispatcher.open[0]?.print("working\n");
    await seen.promise;
    expect(progress).toEqual(["working\n"]);
    stop.abort();
    await expect(calling).rejects.toThrow();
    while (api.dispatcher.open.length > 0) await new Promise(setImmediate);
    expect(api.dispatcher.calls[0]?.signal.reason).toBe("caller");
  });

  test("hands on a job, and what a tool of an MCP server on the host answered", async () => {
    await api.nodes.add(api.store, "web-1", { tools: [cmdRun, { ...cmdRunDescriptor, name: "mcp.files.read" }] });
    const client = await connect();
    api.react = (call) => call.answer({ jobId: "j-1", structured: { running: true } });
    const job = await client.callTool({ name: "cmd_run", arguments: { command: "make" } });
    expect(job.structuredContent).toMatchObject({ job_id: "j-1", running: true });
    expect(words(job)).toContain("job_wait");
    const content = [{ type: "image", data: "aGk=", mimeType: "image/png" }];
    api.react = (call) => call.answer({ structured: { content } });
    const image = await client.callTool({ name: "mcp_files_read", arguments: {} });
    expect(image.content as unknown).toEqual(content);
  });

  test("lists hosts, previews, runs on fleets and cancels through the tools of its own", async () => {
    for (const name of ["web-1", "web-2"]) await api.nodes.add(api.store, name, { tags: [name] });
    await api.nodes.add(api.store, "off", { status: "disconnected" });
    const client = await connect();
    const hosts = await client.callTool({ name: "aegis_edge_hosts", arguments: { connected: true } });
    expect(hosts.structuredContent).toMatchObject({ hosts: [{ name: "web-1" }, { name: "web-2" }] });
    const preview = await client.callTool({ name: "aegis_edge_fleet_list", arguments: { target: "all" } });
    expect(preview.structuredContent).toMatchObject({ skipped: [{ name: "off", reason: "disconnected" }] });
    const invoking = client.callTool({
      name: "aegis_edge_fleet_invoke",
      arguments: { target: "all", tool: "cmd.run", args: { command: "make" }, on_error: "continue" },
    });
    while (api.dispatcher.open.length < 2) await new Promise(setImmediate);
    api.dispatcher.open[0]?.answer();
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    await api.clock.advance(45_000);
    const going = await invoking;
    const { run_id: runId } = going.structuredContent as { run_id: string };
    expect(going.structuredContent).toMatchObject({ running: true, answered: 1 });
    const still = await client.callTool({ name: "aegis_edge_fleet_list", arguments: { run_id: runId } });
    expect(still.structuredContent).toMatchObject({ running: true });
    const cancelled = await client.callTool({ name: "aegis_edge_fleet_cancel", arguments: { run_id: runId } });
    expect(cancelled.structuredContent).toMatchObject({ cancelled: 1, already_terminal: 1 });
    const over = await client.callTool({ name: "aegis_edge_fleet_list", arguments: { run_id: runId } });
    expect(over.structuredContent).toMatchObject({ outcome: "cancelled", hosts: [{ ok: true }, { ok: false }] });
    const wrong = await client.callTool({ name: "aegis_edge_fleet_invoke", arguments: { target: "all", tol: "x" } });
    expect([wrong.isError, words(wrong)]).toEqual([
      true,
      expect.stringContaining("tol: unknown field; did you mean tool?"),
    ]);
  });

  test("is shown and allowed what its scopes are for, and nothing of another tenant", async () => {
    await api.nodes.add(api.store, "web-1");
    await api.nodes.add(api.store, "theirs", { tenantId: "other" });
    const reader = await connect({ scopes: ["aegis.edge.hosts.read"] });
    expect((await reader.listTools()).tools.map(({ name }) => name)).toEqual(["aegis_edge_hosts"]);
    const denied = await reader.callTool({
      name: "aegis_edge_fleet_invoke",
      arguments: { target: "all", tool: "cmd.run" },
    });
    expect([denied.isError, words(denied)]).toEqual([true, expect.stringContaining("aegis.edge.fleet.manage")]);
    await expect(reader.callTool({ name: "cmd_run", arguments: {} })).rejects.toThrow("no connected host has a tool");
    const client = await connect();
    const foreign = await client.callTool({ name: "cmd_run", arguments: { target: uuidOf("other theirs") } });
    expect(foreign.isError).toBe(true);
    expect(words(await client.callTool({ name: "aegis_edge_hosts", arguments: {} }))).not.toContain("theirs");
  });

  test("is told when what hosts can do has changed", async () => {
    const hub = createMcpHub({ ...api, log: silentLog });
    const other = await testApi({ mcp: hub });
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => other.app.fetch(request) });
    url = new URL(`http://127.0.0.1:${server.port}/mcp`);
    const stop = new AbortController();
    cleanUp.push(
      () => other.close(),
      () => server.stop(true),
      () => stop.abort(),
    );
    const { token } = await other.token();
    const client = new Client({ name: "test", version: "1" });
    const headers = { authorization: `Bearer ${token}` };
    const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
    await client.connect(transport as Parameters<Client["connect"]>[0]);
    cleanUp.push(() => client.close());
    const changed = Promise.withResolvers<void>();
    client.setNotificationHandler(ToolListChangedNotificationSchema, () => changed.resolve());
    await client.listTools();
    void hub.watch(stop.signal);
    await api.nodes.add(api.store, "web-1");
    // The client's stream for notifications opens by itself, some time after it connected.
    let heard = false;
    void changed.promise.then(() => {
      heard = true;
    });
    for (let turn = 0; !heard && turn < 500; turn++) {
      await api.clock.advance(2_000);
      await new Promise(setImmediate);
      if (turn % 50 === 49)
        await api.nodes.add(api.store, `web-${turn}`, { tools: [{ ...cmdRunDescriptor, name: `t${turn}` }] });
    }
    await changed.promise;
  });
});

describe("the door", () => {
  const initialize = (headers: Record<string, string> = {}) =>
    fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...headers },
      body: JSON.stringify({
        ...{ jsonrpc: "2.0", id: 1, method: "initialize" },
        params: { protocolVersion: "2025-03-26", capabilities: {}, clientInfo: { name: "x", version: "1" } },
      }),
    });

  test("opens for a token only, and not for web pages", async () => {
    expect((await initialize()).status).toBe(401);
    const { token } = await api.token();
    const headers = { authorization: `Bearer ${token}` };
    expect((await initialize({ ...headers, origin: "https://evil.example" })).status).toBe(403);
    expect((await initialize({ ...headers, host: "evil.example" })).status).toBe(403);
    expect((await initialize(headers)).status).toBe(200);
  });

  test("a session belongs to the token that opened it, and ends with it", async () => {
    const { token, tokenId } = await api.token();
    const opened = await initialize({ authorization: `Bearer ${token}` });
    const session = { "mcp-session-id": opened.headers.get("mcp-session-id") ?? "" };
    await opened.text();
    const list = (bearer: string) =>
      fetch(url, {
        method: "POST",
        headers: {
          ...{ "content-type": "application/json", accept: "application/json, text/event-stream" },
          ...{ ...session, authorization: `Bearer ${bearer}` },
        },
        body: JSON.stringify({ jsonrpc: "2.0", id: 2, method: "tools/list" }),
      });
    expect((await list(token)).status).toBe(200);
    expect((await list((await api.token()).token)).status).toBe(404);
    await api.store.revokeApiToken("acme", tokenId, 1);
    expect((await list(token)).status).toBe(401);
  });

  test("refuses what is no JSON and what is too long", async () => {
    const { token } = await api.token();
    const post = (body: string) => fetch(url, { method: "POST", body, headers: { authorization: `Bearer ${token}` } });
    expect((await post("{")).status).toBe(400);
    expect((await post(JSON.stringify("x".repeat(3 * 1024 * 1024)))).status).toBe(413);
  });
});

test("another client altogether finds and calls the same tools", async () => {
  await api.nodes.add(api.store, "web-1", { tools: [cmdRun] });
  api.react = (call) => call.answer(printed("hello"));
  const { token } = await api.token();
  const headers = { authorization: `Bearer ${token}` };
  const client = await createMCPClient({ transport: { type: "http", url: url.href, headers } });
  cleanUp.push(() => client.close());
  const tools = await client.tools();
  expect(Object.keys(tools)).toContain("cmd_run");
  const options = { toolCallId: "1", messages: [] } as unknown as Parameters<
    NonNullable<typeof tools.cmd_run>["execute"]
  >[1];
  const result = await tools.cmd_run?.execute({ command: "hello" }, options);
  expect(JSON.stringify(result)).toContain("hello");
});
