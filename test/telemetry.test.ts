/** What a collector is told, through the executable: one trace from caller to tool, lines with ids, and never at the work's cost. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lastFlushMs } from "../src/telemetry/telemetry.ts";
import { eventually, executable, type Running, socketsOf } from "./support/aegis.ts";
import { type Host, type Installation, installation, jsonOf } from "./support/installation.ts";
import { needs } from "./support/needs.ts";
import { type OtlpReceiver, otlpReceiver, type ReceivedSpan } from "./support/otlp-receiver.ts";
import { writeXorExecute } from "./support/write-xor-execute.ts";

// Every step is a process of its own, on a machine that may be busy.
setDefaultTimeout(60_000);

let site: Installation;
let host: Host;
let collector: OtlpReceiver;

const named = (name: string, traceId: string) => (span: ReceivedSpan) => span.name === name && span.traceId === traceId;
const logOf = (running: Running | null) =>
  (running?.stderr() ?? "")
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const newTrace = () => ({ traceId: randomBytes(16).toString("hex"), spanId: randomBytes(8).toString("hex") });

/** One call as an operator makes it, in a trace of their own. */
async function call(trace: { traceId: string; spanId: string }, ...command: string[]) {
  return await callIn("operator", trace, ...command);
}

async function callIn(context: string, trace: { traceId: string; spanId: string }, ...command: string[]) {
  const { desk } = site;
  const caller = site.place.machine("desk", {
    ...{ AEGIS_CONTROLLER: desk.env.AEGIS_CONTROLLER ?? "", AEGIS_USER_TOKEN: desk.env.AEGIS_USER_TOKEN ?? "" },
    TRACEPARENT: `00-${trace.traceId}-${trace.spanId}-01`,
  });
  return await caller.run("edge", "exec", "web", "--context", context, "--", ...command);
}

async function restartHost(): Promise<number> {
  const began = performance.now();
  expect(await host.daemon?.stop()).toBe(0);
  const tookMs = performance.now() - began;
  await host.connect();
  return tookMs;
}

const settings = (otlp: object): string =>
  JSON.stringify({ apiVersion: "100monkeys.ai/v1", kind: "NodeConfig", spec: { observability: { otlp } } });

beforeAll(async () => {
  collector = await otlpReceiver();
  site = await installation();
  await site.controller.stop();
  appendFileSync(
    join(site.server.home, ".aegis/controller/controller.yaml"),
    `otlp: {endpoint: "http://127.0.0.1:${collector.port}"}\n`,
  );
  await site.restartController();
  host = await site.addHost("web", { enroll: ["--full-access"], start: false });
  writeFileSync(
    join(host.home, ".aegis/config.yaml"),
    settings({
      endpoint: `http://127.0.0.1:${collector.port}`,
      secret_headers: { authorization: "collector" },
      resource: { "deployment.environment": "test" },
    }),
  );
  await host.feed("Bearer of-the-collector\n", "edge", "secret", "set", "collector");
  await host.connect();
});
afterAll(async () => {
  await site?.close();
  collector?.stop();
});

test("one trace leads from the caller over the controller to the tool", async () => {
  const trace = newTrace();
  expect((await call(trace, "uname", "-s")).stdout).toBe("Linux\n");
  const find = (name: string) => collector.spans.find(named(name, trace.traceId));
  await eventually("all spans have come", () => ["run", "call cmd.run", "run cmd.run", "tool cmd.run"].every(find));
  const [run, sent, tool] = [find("run cmd.run"), find("call cmd.run"), find("tool cmd.run")];
  expect(run).toMatchObject({ kind: "SPAN_KIND_SERVER", parentSpanId: trace.spanId, failed: false });
  expect(sent).toMatchObject({ kind: "SPAN_KIND_CLIENT", parentSpanId: run?.spanId ?? "?" });
  expect(tool).toMatchObject({ kind: "SPAN_KIND_SERVER", parentSpanId: sent?.spanId ?? "?", failed: false });
  for (const part of ["policy", "run"]) expect(find(part)).toMatchObject({ parentSpanId: tool?.spanId ?? "?" });

  const commandId = sent?.attributes["aegis.command_id"];
  expect(tool?.attributes).toMatchObject({
    ...{ "aegis.command_id": commandId, "aegis.tool": "cmd.run", "aegis.context": "operator" },
    ...{ "aegis.outcome": "ok", "aegis.started": true, "aegis.stdout_bytes": 6 },
  });
  expect(sent?.attributes).toMatchObject({ "aegis.host": "web", "aegis.outcome": "ok", "aegis.receipt": "verified" });
  expect(run?.resource).toMatchObject({ "service.name": "aegis-controller" });
  expect(tool?.resource).toMatchObject({
    ...{ "service.name": "aegis-edge", "aegis.host": "web", "deployment.environment": "test" },
    ...{ "service.version": expect.any(String), "host.name": expect.any(String), "aegis.tenant_id": "default" },
  });
});

test("a trace can also come over MCP and over REST, and what is none is ignored", async () => {
  const { url, token } = { url: site.httpUrl, token: site.desk.env.AEGIS_USER_TOKEN };
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const invoke = async (more: Record<string, string>) => {
    const body = { target: { Node: "web" }, tool: "cmd.run", args: { command: "uname" }, context: "operator" };
    const request = { method: "POST", headers: { ...headers, ...more }, body: JSON.stringify(body) };
    return await (await fetch(`${url}/v1/edge/fleet/invoke`, request)).text();
  };
  const ours = newTrace();
  await invoke({ traceparent: `00-${ours.traceId}-${ours.spanId}-01` });
  const unsampled = newTrace();
  await invoke({ traceparent: `00-${unsampled.traceId}-${unsampled.spanId}-00` });
  const none = newTrace();
  await invoke({ traceparent: `00-${none.traceId.toUpperCase()}-${none.spanId}-01x` });

  const mcp = newTrace();
  const rpc = async (session: string | null, id: number, method: string, params: object) =>
    await fetch(`${url}/mcp`, {
      method: "POST",
      headers: {
        ...headers,
        accept: "application/json, text/event-stream",
        ...(session ? { "mcp-session-id": session } : {}),
      },
      body: JSON.stringify({ jsonrpc: "2.0", id, method, params }),
    });
  const client = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } };
  const hello = await rpc(null, 1, "initialize", client);
  await rpc(hello.headers.get("mcp-session-id"), 2, "tools/call", {
    ...{ name: "cmd_run", arguments: { command: "uname", context: "operator" } },
    _meta: { traceparent: `00-${mcp.traceId}-${mcp.spanId}-01` },
  }).then((answer) => answer.text());

  for (const { traceId, spanId } of [ours, mcp]) {
    for (const name of ["run cmd.run", "tool cmd.run"])
      await eventually(`${name} has come`, () => collector.spans.some(named(name, traceId)));
    expect(collector.spans.find(named("run cmd.run", traceId))).toMatchObject({ parentSpanId: spanId });
  }
  expect(collector.spans.filter(({ traceId }) => [unsampled.traceId, none.traceId].includes(traceId))).toEqual([]);
});

test("lines on both ends name the command, whatever becomes of it, and come with its trace", async () => {
  const trace = newTrace();
  const lines = (running: Running | null, event: string) =>
    logOf(running).filter((line) => line.event === event && line.trace_id === trace.traceId);
  const commands = () => [...new Set(lines(site.controller, "call_sent").map(({ command_id }) => command_id))];

  await call(trace, "false");
  await callIn("default", trace, "cat", "/etc/hostname");
  const long = call(trace, "sleep", "60");
  await eventually("three calls were sent", () => commands().length === 3);
  const third = commands()[2];
  await eventually("the third runs", () =>
    lines(host.daemon, "call_started").some(({ command_id }) => command_id === third),
  );
  const runId = lines(site.controller, "call_sent")[2]?.run_id as string;
  await site.desk.run("edge", "fleet", "cancel", runId);
  await long;

  const story = (running: Running | null, event: string) => lines(running, event).map(({ command_id }) => command_id);
  expect(story(site.controller, "call_ended")).toEqual(commands());
  expect(story(host.daemon, "call")).toEqual(commands());
  expect(lines(host.daemon, "call").map(({ outcome, started }) => [outcome, started])).toEqual([
    ["nonzero_exit", true],
    ["policy_violation", false],
    ["cancelled", true],
  ]);
  expect(lines(site.controller, "call_ended").map(({ outcome }) => outcome)).toEqual(["err", "err", "cancelled"]);
  expect(story(host.daemon, "call_started")).toEqual([commands()[0], third]);
  expect(
    logOf(host.daemon).filter((line) => line.event === "call_cancelled" && line.command_id === third),
  ).toHaveLength(1);

  for (const service of ["aegis-controller", "aegis-edge"]) {
    const event = service === "aegis-edge" ? "call" : "call_ended";
    const told = () =>
      collector.lines.filter((line) => line.body === event && line.resource["service.name"] === service);
    const ours = () => told().filter(({ traceId }) => traceId === trace.traceId);
    await eventually(`the lines of ${service} have come`, () => ours().length === 3);
    expect(ours().map(({ attributes }) => attributes.command_id)).toEqual(commands());
    for (const { spanId, severity } of ours()) {
      const span = () => collector.spans.find((one) => one.spanId === spanId);
      await eventually("the span of a line has come", () => span() !== undefined);
      expect([span()?.traceId, severity]).toEqual([trace.traceId, "INFO"]);
    }
  }
});

test("arguments, output and secrets are told nobody; the collector's own secret goes with the export", async () => {
  const trace = newTrace();
  const { stdout } = await call(trace, "echo", "an-argument-of-mine");
  expect(stdout).toContain("an-argument-of-mine");
  await eventually("the call has come", () => collector.spans.some(named("tool cmd.run", trace.traceId)));
  await eventually("its line has come", () =>
    collector.lines.some(({ body, traceId }) => body === "call" && traceId === trace.traceId),
  );
  const { spans, lines, exports } = collector;
  const told = JSON.stringify([spans, lines]);
  expect(told).not.toContain("an-argument-of-mine");
  expect(told).not.toContain(site.desk.env.AEGIS_USER_TOKEN ?? "?");
  expect(told).not.toContain("of-the-collector");
  expect(exports.some(({ authorization }) => authorization === "Bearer of-the-collector")).toBe(true);
  expect(site.controller.stderr() + host.daemon?.stderr()).not.toContain("of-the-collector");
});

needs("linux")("a host has one connection more, and none of either kind when no collector is named", async () => {
  expect(socketsOf(host.daemon?.pid ?? 0).connected).toHaveLength(2);
  const quiet = await site.addHost("quiet", {
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.port}` },
  });
  const before = collector.exports.length;
  const { exit } = await site.desk.run("edge", "exec", "quiet", "--", "uname");
  expect(exit).toBe(0);
  expect(socketsOf(quiet.daemon?.pid ?? 0)).toMatchObject({ listening: [], connected: [expect.any(String)] });
  expect(await quiet.daemon?.stop()).toBe(0);
  const resources = [...collector.spans, ...collector.lines].map(({ resource }) => resource["aegis.host"]);
  expect(resources).not.toContain("quiet");
  expect(collector.exports.length).toBeGreaterThanOrEqual(before);
});

needs("linux", "command:python3")("a daemon that may not make memory executable tells its collector too", async () => {
  expect(await host.daemon?.stop()).toBe(0);
  const confined = host.startProgram([...writeXorExecute, executable, "edge", "run"]);
  await confined.until(/"event":"connected"/);
  const trace = newTrace();
  expect((await call(trace, "uname")).exit).toBe(0);
  await eventually("its span has come", () => collector.spans.some(named("tool cmd.run", trace.traceId)));
  expect(await confined.stop()).toBe(0);
  await host.connect();
});

test("a collector that hangs, refuses or is gone costs no call anything, and the end no more than its bound", async () => {
  const fast = async () => {
    const began = performance.now();
    for (let n = 0; n < 5; n++) expect((await call(newTrace(), "true")).exit).toBe(0);
    return performance.now() - began;
  };
  const usualMs = await fast();
  const usualEndMs = await restartHost();
  const trouble = () => logOf(host.daemon).filter(({ event }) => event === "otlp_trouble");
  collector.behave("hang");
  expect(await fast()).toBeLessThan(usualMs * 3 + 2_000);
  await eventually("it is said", () => trouble().length > 0, 20_000);
  const hangingMs = await restartHost();
  expect(hangingMs).toBeLessThan(3 * usualEndMs + lastFlushMs + 1_000);

  collector.behave("refuse");
  expect(await fast()).toBeLessThan(usualMs * 3 + 2_000);
  await eventually("it is said", () => trouble().length > 0, 20_000);
  expect(trouble()).toHaveLength(1);
  expect(trouble()[0]?.error).toContain("UNAUTHENTICATED: who are you?");
  const refused = host.daemon;
  await restartHost();
  const [lost] = logOf(refused).filter(({ event }) => event === "otlp_lost");
  expect(lost?.lost).toBeGreaterThan(10);

  const { port } = collector;
  collector.stop();
  expect(await fast()).toBeLessThan(usualMs * 3 + 2_000);
  await eventually("it is said", () => trouble().length > 0, 20_000);
  const saidOnce = trouble().length;
  collector = await otlpReceiver({ port });
  await eventually(
    "it is told again, and that some is lost or not",
    () => logOf(host.daemon).some(({ event }) => event === "otlp_delivers_again"),
    30_000,
  );
  expect(saidOnce).toBe(1);
});

test("settings that are no good are named with their place", async () => {
  const bad = await site.addHost("bad", { start: false });
  const file = join(bad.home, ".aegis/config.yaml");
  const said = async (otlp: object) => {
    writeFileSync(file, settings(otlp));
    return await bad.run("edge", "run", "--once");
  };
  const at = `${file}: spec.observability.otlp`;
  const wrong: [object, string][] = [
    [
      { endpoint: "collector:4317" },
      `${at}.endpoint: expected a URL such as https://collector.example:4317, found "collector:4317"`,
    ],
    [{ endpoint: "https://c.example/v1/traces" }, `${at}.endpoint: expected a URL`],
    [{}, "spec.observability.otlp.endpoint: expected text, found nothing"],
    [
      { endpoint: "https://c.example", protocol: "http/protobuf" },
      `${at}.protocol: expected grpc, found "http/protobuf"`,
    ],
    [{ endpoint: "https://c.example", sample_ratio: 2 }, `${at}.sample_ratio: expected at most 1, found 2`],
    [{ endpoint: "https://c.example", ca_path: "none.pem" }, `${at}.ca_path: `],
    [{ endpoint: "http://c.example", secret_headers: { a: "b" } }, `${at}.secret_headers: expected an https endpoint`],
    [
      { endpoint: "https://c.example", headers: { "X-A": "b" } },
      `${at}.headers: "X-A": expected a gRPC header in lower case`,
    ],
  ];
  for (const [otlp, words] of wrong) {
    const { exit, stderr } = await said(otlp);
    expect(`${exit} ${stderr}`).toContain(words);
    expect(exit).toBe(78);
  }
  writeFileSync(file, settings({ endpoint: "http://127.0.0.1:1", endpont: 1, secret_headers: { a: "none" } }));
  const running = bad.start("edge", "run");
  await running.until(/otlp\.endpont is unknown.*did you mean endpoint\?/);
  // A secret that is not there stops the telling and not the work.
  await running.until(
    /"otlp_not_started".*secret_headers\.a: this host keeps no secret named none.*edge secret set none/,
  );
  await running.until(/"event":"connected"/);
  expect(await running.stop()).toBe(0);
});

test("a controller is also told by OpenTelemetry's own variables", async () => {
  const other = site.place.machine("other-server", {
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.port}`,
    OTEL_EXPORTER_OTLP_HEADERS: "x-key=a%20key",
    OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
  });
  expect((await other.run("controller", "init", "--public-endpoint", "localhost:1")).exit).toBe(0);
  const running = other.start("controller", "start", "--grpc-port", "0", "--port", "0");
  await running.until(/"event":"controller_started"/);
  await eventually("its lines have come", () => collector.exports.some((sent) => sent["x-key"] === "a key"));
  expect(await running.stop()).toBe(0);
  const wrong = site.place.machine("wrong-server", { ...other.env, OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" });
  wrong.env.HOME = other.home;
  const { exit, stderr } = await wrong.run("controller", "start", "--grpc-port", "0", "--port", "0");
  expect([exit, stderr]).toEqual([
    78,
    expect.stringContaining('OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc, found "http/json"'),
  ]);
});

test("doctor says whether the collector can be reached, and status where it is", async () => {
  const found = async () =>
    (jsonOf(await host.run("doctor", "-o", "json")) as { check: string; state: string; detail: string }[]).find(
      ({ check }) => check === "otlp",
    );
  expect(await found()).toMatchObject({ state: "ok", detail: expect.stringContaining(`127.0.0.1:${collector.port}`) });
  const shown = async () => jsonOf(await host.run("edge", "status", "-o", "json")).otlp;
  expect(await shown()).toBe(`http://127.0.0.1:${collector.port}`);
  collector.stop();
  expect(await found()).toMatchObject({ state: "warning", detail: expect.stringContaining("ECONNREFUSED") });
});
