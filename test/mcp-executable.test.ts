/** MCP as clients have it: the executable's /mcp over HTTP and `aegis mcp` on stdio, with the official client and the AI SDK's. */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createMCPClient } from "@ai-sdk/mcp";
import { Experimental_StdioMCPTransport as AiStdioTransport } from "@ai-sdk/mcp/mcp-stdio";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { eventually, executable, processesWith } from "./support/aegis.ts";
import { type Host, installation } from "./support/installation.ts";

setDefaultTimeout(60_000);

const site = await installation();
const { desk } = site;
const cleanUp: Array<() => Promise<unknown>> = [];
let host: Host;
beforeAll(async () => {
  host = await site.addHost("web-1", { enroll: ["--full-access"] });
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
});
afterAll(() => site.close());

const url = new URL(`${site.httpUrl}/mcp`);
const headers = { authorization: `Bearer ${desk.env.AEGIS_USER_TOKEN}` };
const asked = { command: executable, args: ["mcp"], env: desk.env };

async function official(kind: "http" | "stdio"): Promise<Client> {
  const client = new Client({ name: "test", version: "1" });
  const transport =
    kind === "http"
      ? new StreamableHTTPClientTransport(url, { requestInit: { headers } })
      : new StdioClientTransport(asked);
  await client.connect(transport as Parameters<Client["connect"]>[0]);
  cleanUp.push(() => client.close());
  return client;
}

async function independent(kind: "http" | "stdio") {
  const client = await createMCPClient({
    transport: kind === "http" ? { type: "http", url: url.href, headers } : new AiStdioTransport(asked),
  });
  cleanUp.push(() => client.close());
  return client;
}

const words = (result: object | undefined): string =>
  (result as { content: Array<{ text?: string }> }).content.map(({ text }) => text ?? "").join("\n");
const operator = { context: "operator" };

for (const kind of ["http", "stdio"] as const) {
  describe(`over ${kind}`, () => {
    test("the official client lists a host's tools and runs a command there", async () => {
      const client = await official(kind);
      const { tools } = await client.listTools();
      const names = tools.map(({ name }) => name);
      expect(names).toEqual(
        expect.arrayContaining([
          "cmd_run",
          "fs_read",
          "host_info",
          "job_wait",
          "aegis_edge_hosts",
          "aegis_edge_fleet_invoke",
        ]),
      );
      expect(tools.find(({ name }) => name === "cmd_run")?.annotations).toMatchObject({ destructiveHint: true });
      const result = await client.callTool({ name: "cmd_run", arguments: { command: "uname", args: ["-s"] } });
      expect(words(result)).toBe("Linux\n");
      expect(result.structuredContent).toMatchObject({ host: "web-1", ok: true, exit_code: 0 });
      const denied = await client.callTool({ name: "cmd_run", arguments: { command: "cat", args: ["/etc/passwd"] } });
      expect([denied.isError, words(denied)]).toEqual([true, expect.stringContaining("policy_violation")]);
    });

    test("long work tells its progress, becomes a job, and is waited for", async () => {
      const client = await official(kind);
      const said: string[] = [];
      const script = "for i in 1 2 3; do echo line $i; sleep 0.4; done; echo done";
      const started = await client.callTool(
        { name: "cmd_run", arguments: { command: "sh", args: ["-c", script], wait_secs: 0.3, ...operator } },
        undefined,
        { onprogress: ({ message }) => void said.push(message ?? "") },
      );
      const { job_id: jobId } = started.structuredContent as { job_id: string };
      expect(jobId).toMatch(/^[0-9a-f-]{36}$/);
      expect(said.join("")).toContain("line 1");
      const ended = await client.callTool({
        name: "job_wait",
        arguments: { job_id: jobId, wait_secs: 20, ...operator },
      });
      expect(words(ended)).toContain("done");
    });

    test("a call that is cancelled ends the command on the host", async () => {
      const client = await official(kind);
      const mark = `8641${kind.length}.${process.pid}`;
      const stop = new AbortController();
      const call = client.callTool(
        { name: "cmd_run", arguments: { command: "sleep", args: [mark], ...operator } },
        undefined,
        { signal: stop.signal },
      );
      await eventually("it runs", () => processesWith(mark).length > 0);
      stop.abort();
      await expect(call).rejects.toThrow();
      await eventually("nothing of it is left", () => processesWith(mark).length === 0);
    });

    test("the independent client sees the same tools and gets the same answers", async () => {
      const client = await independent(kind);
      const tools = await client.tools();
      expect(Object.keys(tools)).toEqual(expect.arrayContaining(["cmd_run", "aegis_edge_fleet_list"]));
      const call = { toolCallId: "1", messages: [], context: {} };
      const result = await tools.cmd_run?.execute({ command: "uname", args: ["-s"] }, call as never);
      expect(words(result as object)).toBe("Linux\n");
    });
  });
}

describe("what README shows for clients", () => {
  interface Shown {
    command?: string;
    args?: string[];
    env?: Record<string, string>;
    url?: string;
    headers?: Record<string, string>;
  }
  const readme = readFileSync(join(import.meta.dir, "../README.md"), "utf8");
  const settings = [...readme.matchAll(/^```json\n([\s\S]*?)^```/gm)].map(([, text = ""]) => JSON.parse(text));

  test("is taken word for word, but for the address and the token", async () => {
    expect(settings.map((one) => Object.keys(one).at(-1))).toEqual(["mcpServers", "servers", "mcpServers"]);
    for (const one of settings) {
      const { aegis } = (one.mcpServers ?? one.servers) as { aegis: Shown };
      const own = JSON.parse(
        JSON.stringify(aegis)
          .replace("http://localhost:8088", site.httpUrl)
          .replace(/aegis_\.\.\.|\$\{[\w:-]+\}/, desk.env.AEGIS_USER_TOKEN ?? "")
          .replace("/usr/local/bin/aegis", executable),
      ) as Shown;
      const { command, args = [], env = {}, url: address = "", headers: sent = {} } = own;
      const transport = command
        ? new StdioClientTransport({ command, args, env })
        : new StreamableHTTPClientTransport(new URL(address), { requestInit: { headers: sent } });
      const client = new Client({ name: "as shown", version: "1" });
      await client.connect(transport as Parameters<Client["connect"]>[0]);
      cleanUp.push(() => client.close());
      expect(words(await client.callTool({ name: "cmd_run", arguments: { command: "uname" } }))).toBe("Linux\n");
    }
  });
});

describe("aegis mcp", () => {
  test("tells its client when what hosts can do has changed", async () => {
    const client = await official("stdio");
    const changed = Promise.withResolvers<void>();
    client.setNotificationHandler(ToolListChangedNotificationSchema, () => changed.resolve());
    // The controller compares every two seconds: this lasts until it has seen how things are.
    await client.callTool({ name: "cmd_run", arguments: { command: "sleep", args: ["2.1"], ...operator } });
    await host.daemon?.stop();
    await changed.promise;
    await host.connect();
  });

  test("goes on after the controller was restarted, in a session of its own making", async () => {
    const client = await official("stdio");
    const hosts = async () =>
      words(await client.callTool({ name: "aegis_edge_hosts", arguments: { connected: true } }));
    expect(await hosts()).toContain("web-1");
    await site.controller.stop();
    await expect(hosts()).rejects.toThrow(/cannot reach the controller[\s\S]*aegis doctor/);
    await site.restartController();
    await eventually("the host is back", async () => (await hosts()).includes("web-1"), 30_000);
  });

  test("says what is wrong where nobody is signed in, or the token is good no more", async () => {
    const nobody = await site.place.machine("nobody").feed("", "mcp");
    expect(nobody).toMatchObject({ exit: 3, stdout: "", stderr: expect.stringContaining("aegis login") });
    const env = { ...desk.env, AEGIS_USER_TOKEN: "aegis_nothing" };
    const connecting = new Client({ name: "test", version: "1" }).connect(new StdioClientTransport({ ...asked, env }));
    await expect(connecting).rejects.toThrow("is not one of this");
  });

  test("ends with its client's stdin, writes nothing but MCP, and leaves a message that is none behind it", async () => {
    const { exit, stdout, stderr } = await desk.feed("this is no JSON\n", "mcp");
    expect({ exit, stdout }).toEqual({ exit: 0, stdout: "" });
    expect(stderr).toContain("cannot be read");
  });
});
