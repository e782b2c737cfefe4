/** Local MCP servers as tools: real processes, and a clock that stands still. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { callTool } from "../../test/support/call-tool.ts";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { systemClock } from "../platform/clock.ts";
import { createLog, Secret } from "../platform/log.ts";
import { type ProcessHandle, systemProcesses } from "../platform/process.ts";
import { commandHost, systemPath } from "./cmd-run.ts";
import { readListing } from "./mcp-listing.ts";
import { createMcpServer, idleMs, type McpServer } from "./mcp-server.ts";
import { mcpTools } from "./mcp-tool.ts";
import { createRegistry } from "./registry.ts";
import type { StopReason, ToolContext, ToolResult } from "./tool.ts";

const script = join(import.meta.dir, "../../test/support/mcp-server.js");
let home: string;
beforeEach(() => {
  home = realpathSync(mkdtempSync(join(tmpdir(), "aegis-mcp-")));
});
const opened: McpServer[] = [];
afterEach(async () => {
  for (const server of opened.splice(0)) await server.close();
  rmSync(home, { recursive: true });
});

/** Processes live in real time; patience, backoff and idleness by the fake clock. */
function setup(mode = "well", { command = process.execPath, secretEnv = {} as Record<string, string> } = {}) {
  const clock = fakeClock();
  const real = systemProcesses({ clock: systemClock, launcher: null });
  const started: ProcessHandle[] = [];
  const runner = {
    start(spec: Parameters<typeof real.start>[0]) {
      const handle = real.start(spec);
      started.push(handle);
      return handle;
    },
  };
  const logged: string[] = [];
  const log = createLog({ level: "debug", now: () => 0, write: (line) => void logged.push(line) });
  let changes = 0;
  const server = createMcpServer({
    spec: { name: "srv", command, args: [script, mode], env: { PLAIN: "value" }, secretEnv, cwd: null },
    host: commandHost({ runner, clock, path: systemPath, home }),
    log,
    secret: async (name) => (name === "known" ? new Secret("s3cr3t-value") : null),
    directory: join(home, "run/mcp"),
    onChanged: () => changes++,
  });
  opened.push(server);
  const tools = mcpTools([server]);
  const registry = createRegistry([], [tools]);
  const call = async (name: string, args: object = {}, more: Partial<ToolContext> = {}): Promise<ToolResult> => {
    const tool = registry.get(`mcp.srv.${name}`);
    if (!tool) throw new Error(`no ${name}`);
    const called = await callTool(tool, args, more);
    if (called.kind !== "ran") throw new Error(JSON.stringify(called));
    return called.result;
  };
  return { clock, server, tools, registry, call, started, logged, changes: () => changes };
}

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    if (turn > 500) throw new Error("it never came");
    await systemClock.sleep(5, new AbortController().signal);
  }
}

const text = ({ head, tail }: ToolResult["stdout"]) => Buffer.concat([head, tail]).toString();

test("its tools are listed with their schemas, and what nothing is known of counts as changing things", async () => {
  const { tools, registry, changes, logged } = setup();
  expect(registry.list()).toEqual([]);
  await tools.learn();
  const listed = registry.list();
  expect(listed.map(({ name }) => name)).toEqual(
    ["crash", "echo", "env", "fail", "long", "slow", "touch"].map((name) => `mcp.srv.${name}`),
  );
  expect(listed[1]).toEqual({
    ...{ name: "mcp.srv.echo", description: "Says it back", readOnly: true, destructive: false, fleetCapable: true },
    inputSchema: { type: "object", properties: { text: { type: "string" } } },
  });
  expect(listed[5]).toMatchObject({ readOnly: false, destructive: false });
  expect(listed[3]).toMatchObject({ readOnly: false, destructive: true });
  expect(changes()).toBe(1);
  expect(logged.join()).toContain('"tools":["not/nameable"]');
});

test("what it offers is remembered, so that it is not started only to be asked", async () => {
  const first = setup();
  await first.tools.learn();
  const second = setup();
  await second.tools.learn();
  expect(second.registry.list()).toEqual(first.registry.list());
  expect(second.started).toHaveLength(0);
  expect((await second.call("echo", { text: "hi" })).ok).toBe(true);
  expect(second.started).toHaveLength(1);
  const other = setup("chatty");
  await other.tools.learn();
  expect(other.started).toHaveLength(1);
});

test("a call is answered as the server answers, as text and as it is", async () => {
  const { call, registry, tools } = setup();
  // Nobody knows yet what it offers, and a call finds out.
  const result = await call("echo", { text: "hi" });
  expect(result).toMatchObject({
    ok: true,
    exitCode: 0,
    structured: { content: [{ type: "text", text: "you said hi" }] },
  });
  expect(text(result.stdout)).toBe("you said hi\n");
  expect(registry.get("mcp.srv.nothing")).toBeUndefined();
  expect(registry.get("mcp.other.echo")).toBeUndefined();
  expect(registry.get("mcp.srv")).toBeUndefined();
  await tools.close();
});

test("many calls at once share one server, also while it starts", async () => {
  const { call, started } = setup();
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => call("echo", { text: i })));
  expect(answers.map(({ stdout }) => text(stdout))).toEqual(Array.from({ length: 20 }, (_, i) => `you said ${i}\n`));
  expect(started).toHaveLength(1);
});

test("a tool that reports an error, or is asked wrongly, has failed", async () => {
  const { call } = setup();
  expect(await call("fail")).toMatchObject({
    ok: false,
    exitCode: 1,
    errorKind: "nonzero_exit",
    errorMessage: "it did not work",
  });
  expect(await call("fail", { how: "params" })).toMatchObject({
    ok: false,
    errorKind: "invalid_args",
    errorMessage: expect.stringContaining("text is missing"),
  });
  const tool = setup().registry.get("mcp.srv.echo");
  expect(await tool?.prepare([])).toMatchObject({ kind: "invalid_args" });
});

test("a tool that is not there is told so", async () => {
  const { call } = setup();
  expect(await call("nothing")).toMatchObject({
    ok: false,
    errorKind: "tool_not_found",
    errorMessage: "the MCP server srv has no tool named nothing",
  });
});

test("a long answer is cut like any output", async () => {
  const { call } = setup();
  const { stdout, structured } = await call("long", { bytes: 3_000_000 }, { maxOutputBytes: 1_000 });
  expect(stdout.bytes).toBe(3_000_001);
  expect(stdout.head.length + stdout.tail.length).toBe(1_000);
  expect(structured).toBeUndefined();
});

test("its steps are shown while it works", async () => {
  const { call } = setup();
  const shown: string[] = [];
  const output = async (pipe: string, piece: Uint8Array) => void shown.push(`${pipe}: ${Buffer.from(piece)}`);
  expect((await call("slow", { ms: 50 }, { output })).ok).toBe(true);
  expect(shown[0]).toBe("stderr: progress 1 of 2: step 1\n");
});

test("a call that is cancelled answers at once, and the server is told", async () => {
  const { call, server, started } = setup();
  await server.learn();
  const stop = new AbortController();
  const running = call(
    "slow",
    { ms: 60_000 },
    {
      signal: stop.signal,
      output: async () => stop.abort({ kind: "cancelled", detail: "by ann" } satisfies StopReason),
    },
  );
  expect(await running).toMatchObject({
    ok: false,
    errorKind: "cancelled",
    errorMessage: "cancelled (by ann); the MCP server was told to stop",
  });
  expect((await call("echo", { text: "still here" })).ok).toBe(true);
  expect(started).toHaveLength(1);
});

test("what it is given as a secret it cannot show", async () => {
  const { call } = setup("well", { secretEnv: { TOKEN: "known" } });
  const { stdout, structured } = await call("env");
  const env = JSON.parse(text(stdout)) as Record<string, string>;
  expect(env).toMatchObject({ TOKEN: "[secret]", PLAIN: "value", HOME: home });
  expect(JSON.stringify(structured)).not.toContain("s3cr3t");
  const lacking = setup("well", { secretEnv: { TOKEN: "unknown" } });
  expect((await lacking.call("env")).errorMessage).toBe(
    "the MCP server srv is not available: this host keeps no secret named unknown",
  );
  const granted = await call("env", {}, { secretEnv: { OTHER: new Secret("x") } });
  expect(granted).toMatchObject({ errorKind: "policy_violation" });
});

test("words that are no messages disturb nothing", async () => {
  const { call } = setup("chatty");
  expect((await call("echo", { text: "hi" })).ok).toBe(true);
});

test("a list that changes is read anew, and told", async () => {
  const { call, registry, changes } = setup();
  await call("slow", { change: true });
  await until(() => changes() === 2);
  expect(registry.get("mcp.srv.added")).toBeDefined();
});

test("one that ends during a call says why, and is started again for the next, later each time", async () => {
  const { call, clock, started } = setup();
  const crashed = await call("crash");
  expect(crashed).toMatchObject({ ok: false, errorKind: "internal" });
  expect(crashed.errorMessage).toBe(
    "the MCP server srv ended during the call: it exited with status 3; it said: about to crash",
  );
  expect((await call("echo", { text: "hi" })).errorMessage).toBe(
    "the MCP server srv is not available: it has failed 1 times in a row and it is started again in 1 s; last: it exited with status 3; it said: about to crash",
  );
  await clock.advance(1_000);
  expect((await call("echo", { text: "hi" })).ok).toBe(true);
  await call("crash");
  expect((await call("echo")).errorMessage).toContain("has failed 2 times in a row and it is started again in 2 s");
  await clock.advance(2_000);
  await call("echo");
  await clock.advance(60_000);
  await call("crash");
  expect((await call("echo")).errorMessage).toContain("has failed 1 times in a row");
  expect(started).toHaveLength(3);
});

test("one that dies at once, cannot be started or never greets is told as what it is", async () => {
  expect((await setup("dies").call("echo")).errorMessage).toBe(
    "the MCP server srv is not available: it exited with status 1; it said: cannot find my settings",
  );
  expect((await setup("well", { command: "no-such-program" }).call("echo")).errorMessage).toContain(
    "its command no-such-program cannot be used: it is not found in",
  );
  expect((await setup("well", { command: "/no/such" }).call("echo")).errorMessage).toContain("/no/such does not exist");
  const broken = join(home, "broken");
  writeFileSync(broken, "#!/no/such/interpreter\n");
  chmodSync(broken, 0o755);
  expect((await setup("well", { command: broken }).call("echo")).errorMessage).toContain("its interpreter is missing");
  const { call, clock, started } = setup("mute");
  const mute = call("echo");
  await until(() => started.length > 0 && clock.sleeping > 0);
  await clock.advance(30_000);
  await until(() => clock.sleeping > 0);
  await clock.advance(2_000);
  expect((await mute).errorMessage).toBe("the MCP server srv is not available: it did not greet within 30 s");
  expect((await call("echo")).errorMessage).toContain("has failed 1 times");
});

test("without calls it is stopped, and started again for the next", async () => {
  const { call, clock, started, logged } = setup();
  await call("echo");
  await until(() => clock.sleeping > 0);
  await clock.advance(idleMs);
  await started[0]?.ended;
  expect(logged.join()).toContain("mcp_idle");
  expect((await call("echo", { text: "again" })).ok).toBe(true);
  expect(logged.join()).not.toContain("mcp_ended");
  expect(started).toHaveLength(2);
});

test("the end of the daemon ends it, even one that does not go by itself", async () => {
  const { call, server, started, clock } = setup("stays");
  await call("echo");
  const closing = server.close();
  await until(() => clock.sleeping > 1);
  await clock.advance(2_000);
  await closing;
  expect(await started[0]?.ended).toMatchObject({ kind: "signal", stopped: true });
  expect((await call("echo")).errorMessage).toContain("this host's daemon is ending");
  expect(clock.sleeping).toBe(0);
});

test("the library is loaded only once a server is started", async () => {
  for await (const file of new Bun.Glob("mcp-*.ts").scan(import.meta.dir)) {
    const source = await Bun.file(join(import.meta.dir, file)).text();
    const imports = new Bun.Transpiler({ loader: "ts" }).scanImports(source);
    const early = imports.filter(
      ({ path, kind }) => path.startsWith("@modelcontextprotocol") && kind !== "dynamic-import",
    );
    expect(early).toEqual([]);
  }
});

test("a listing is bounded, and what could not be named by a policy is passed over", () => {
  const many = Array.from({ length: 250 }, (_, i) => ({ name: `tool_${i}`, description: "d".repeat(10_000) }));
  const { known, passedOver } = readListing([
    ...many,
    { name: "tool_0" },
    { name: "" },
    null,
    { name: "a b" },
    { name: "x", inputSchema: { huge: "y".repeat(40_000) } },
  ]);
  expect(known).toHaveLength(200);
  expect(known[0]?.description).toHaveLength(4_000);
  expect(passedOver).toHaveLength(55);
});
