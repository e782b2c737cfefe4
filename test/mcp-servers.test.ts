/** Published MCP servers from npm behind the tools of a host, also where memory may not be made executable. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../src/platform/clock.ts";
import { silentLog } from "../src/platform/log.ts";
import { systemProcesses } from "../src/platform/process.ts";
import { commandHost, systemPath } from "../src/tools/cmd-run.ts";
import type { McpServerSpec } from "../src/tools/mcp-connection.ts";
import { createMcpServer, type McpServer } from "../src/tools/mcp-server.ts";
import { mcpTools } from "../src/tools/mcp-tool.ts";
import { createRegistry } from "../src/tools/registry.ts";
import type { StopReason, ToolContext, ToolResult } from "../src/tools/tool.ts";
import { callTool } from "./support/call-tool.ts";
import { needs } from "./support/needs.ts";

const published = join(import.meta.dir, "../node_modules/@modelcontextprotocol");
const everything = join(published, "server-everything/dist/index.js");
const memory = join(published, "server-memory/dist/index.js");
const node = Bun.which("node") ?? "node";
const withNode = needs("command:node");

let home: string;
const opened: McpServer[] = [];
beforeAll(() => {
  home = realpathSync(mkdtempSync(join(tmpdir(), "aegis-mcp-servers-")));
});
afterAll(async () => {
  for (const server of opened) await server.close();
  rmSync(home, { recursive: true });
});

function setup(spec: Partial<McpServerSpec> & Pick<McpServerSpec, "name" | "args">) {
  const runner = systemProcesses({ clock: systemClock, launcher: null });
  const server = createMcpServer({
    spec: { command: node, env: {}, secretEnv: {}, cwd: home, ...spec },
    host: commandHost({ runner, clock: systemClock, path: systemPath, home }),
    log: silentLog,
    secret: async () => null,
    directory: join(home, "run"),
    onChanged() {},
  });
  opened.push(server);
  const registry = createRegistry([], [mcpTools([server])]);
  const call = async (name: string, args: object = {}, more: Partial<ToolContext> = {}): Promise<ToolResult> => {
    const tool = registry.get(`mcp.${spec.name}.${name}`);
    const called = tool && (await callTool(tool, args, more));
    if (called?.kind !== "ran") throw new Error(`${name}: ${JSON.stringify(called)}`);
    return called.result;
  };
  return { server, registry, call };
}

const text = ({ head, tail }: ToolResult["stdout"]) => Buffer.concat([head, tail]).toString();

describe("server-everything", () => {
  const started = () => setup({ name: "everything", args: [everything, "stdio"] });

  withNode(
    "is listed with its schemas and answers",
    async () => {
      const { server, registry, call } = started();
      await server.learn();
      const echo = registry.list().find(({ name }) => name === "mcp.everything.echo");
      expect(echo?.inputSchema).toMatchObject({ type: "object", properties: { message: { type: "string" } } });
      expect(text((await call("echo", { message: "héllo" })).stdout)).toContain("héllo");
      expect(await call("echo", {})).toMatchObject({ ok: false });
    },
    30_000,
  );

  withNode(
    "shows its steps, and can be cancelled while it works",
    async () => {
      const { server, registry, call } = started();
      await server.learn();
      const long =
        registry
          .list()
          .find(({ name }) => /long-?running/i.test(name))
          ?.name.replace("mcp.everything.", "") ?? "";
      const steps: string[] = [];
      const output = async (_: string, piece: Uint8Array) => void steps.push(Buffer.from(piece).toString());
      const done = await call(long, { duration: 0.4, steps: 2 }, { output });
      expect(done.ok).toBe(true);
      expect(steps[0]).toStartWith("progress 1 of 2");
      const stop = new AbortController();
      const cancelled = call(
        long,
        { duration: 60, steps: 600 },
        {
          signal: stop.signal,
          output: async () => stop.abort({ kind: "cancelled", detail: "by ann" } satisfies StopReason),
        },
      );
      expect(await cancelled).toMatchObject({ ok: false, errorKind: "cancelled" });
    },
    30_000,
  );
});

describe("server-memory", () => {
  withNode(
    "keeps what it is told, in the file that its settings name",
    async () => {
      const file = join(home, "memory.jsonl");
      const { call } = setup({ name: "memory", args: [memory], env: { MEMORY_FILE_PATH: file } });
      const entities = [{ name: "web-1", entityType: "host", observations: ["runs nginx"] }];
      expect((await call("create_entities", { entities })).ok).toBe(true);
      expect(readFileSync(file, "utf8")).toContain("runs nginx");
      const { structured } = await call("search_nodes", { query: "nginx" });
      expect(JSON.stringify(structured)).toContain("web-1");
    },
    30_000,
  );
});

/** Starts a daemon's part that speaks with MCP servers, and they with it, under PR_SET_MDWE as the service has it. */
function underService(args: readonly string[]): ToolResult {
  const source = (path: string) => JSON.stringify(join(import.meta.dir, "..", path));
  const code = `
    const { systemClock: clock } = await import(${source("src/platform/clock.ts")});
    const { systemProcesses } = await import(${source("src/platform/process.ts")});
    const { silentLog } = await import(${source("src/platform/log.ts")});
    const { commandHost, systemPath } = await import(${source("src/tools/cmd-run.ts")});
    const { createMcpServer } = await import(${source("src/tools/mcp-server.ts")});
    const { mcpTools } = await import(${source("src/tools/mcp-tool.ts")});
    const { toolContext } = await import(${source("test/support/call-tool.ts")});
    const home = ${JSON.stringify(home)};
    const spec = { name: "memory", command: ${JSON.stringify(node)}, args: ${JSON.stringify(args)}, secretEnv: {}, cwd: home,
      env: { MEMORY_FILE_PATH: home + "/wx.jsonl" } };
    const host = commandHost({ runner: systemProcesses({ clock, launcher: null }), clock, path: systemPath, home });
    const server = createMcpServer({ spec, host, log: silentLog, secret: async () => null, directory: home + "/wx", onChanged() {} });
    const tool = mcpTools([server]).get("mcp.memory.read_graph");
    const { call } = await tool.prepare({});
    console.log(JSON.stringify(await call.run(toolContext())));
    await server.close();
    process.exit(0);`;
  const refuse =
    "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; os.execv(sys.argv[1], sys.argv[1:])";
  const { stdout, stderr } = Bun.spawnSync(["python3", "-c", refuse, process.execPath, "-e", code], { cwd: home });
  if (stdout.length === 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString()) as ToolResult;
}

describe("where memory may not be made executable", () => {
  const withBoth = needs("linux", "command:node", "command:python3");

  withBoth(
    "a server on node without its compiler answers",
    () => {
      expect(underService(["--jitless", memory])).toMatchObject({
        ok: true,
        structured: { content: [{ type: "text" }] },
      });
    },
    60_000,
  );

  withBoth(
    "one on node as it is dies, and is told with the remedy",
    () => {
      const { ok, errorMessage } = underService([memory]);
      expect(ok).toBe(false);
      expect(errorMessage).toBe(
        "the MCP server memory is not available: it was ended by SIGTRAP; node needs executable memory, which the service forbids: aegis edge service reinstall --allow-jit",
      );
    },
    60_000,
  );
});
