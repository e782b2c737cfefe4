/** The tools of local MCP servers as tools of this host: mcp.<server>.<tool>. */
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import type { McpServer, Progress } from "./mcp-server.ts";
import { capOutput } from "./output-cap.ts";
import type { ToolSource } from "./registry.ts";
import { failed } from "./results.ts";
import {
  nothingCaptured,
  type StopReason,
  type Tool,
  type ToolContext,
  type ToolDescriptor,
  type ToolResult,
} from "./tool.ts";

const prefix = "mcp.";

/** Longest structured answer that is handed on as it is, in bytes of JSON. */
const maxStructuredBytes = 1024 * 1024;

export interface McpTools extends ToolSource {
  /** Finds out what the servers offer. Never rejects. */
  learn(): Promise<void>;
  close(): Promise<void>;
}

export function mcpTools(servers: readonly McpServer[]): McpTools {
  return {
    get(name) {
      const [, serverName, tool] = /^mcp\.([^.]+)\.(.+)$/s.exec(name) ?? [];
      const server = servers.find((one) => one.name === serverName);
      if (!server || tool === undefined) return undefined;
      // While nobody knows what it offers, it is asked when the call may run.
      const known = server.tools?.find((one) => one.name === tool);
      return server.tools === null || known ? mcpTool(server, tool) : undefined;
    },
    list: () => servers.flatMap((server) => (server.tools ?? []).map((tool) => descriptorOf(server, tool))),
    async learn() {
      for (const server of servers) await server.learn();
    },
    async close() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

function descriptorOf(
  server: McpServer,
  tool: Pick<ToolDescriptor, "name" | "description" | "inputSchema" | "readOnly" | "destructive">,
): ToolDescriptor {
  return { ...tool, name: `${prefix}${server.name}.${tool.name}`, fleetCapable: true };
}

function mcpTool(server: McpServer, name: string): Tool {
  const unknown = { name, description: "", inputSchema: { type: "object" }, readOnly: false, destructive: true };
  return {
    descriptor: descriptorOf(server, server.tools?.find((one) => one.name === name) ?? unknown),
    async prepare(args) {
      if (typeof args !== "object" || args === null || Array.isArray(args))
        return { kind: "invalid_args", message: "the arguments: expected an object" };
      return {
        kind: "ready",
        call: { accesses: [], run: (context) => run(server, name, args as Record<string, unknown>, context) },
      };
    },
  };
}

async function run(
  server: McpServer,
  name: string,
  args: Record<string, unknown>,
  context: ToolContext,
): Promise<ToolResult> {
  if (Object.keys(context.secretEnv ?? {}).length > 0)
    return failed(
      "policy_violation",
      `secret_env of a capability cannot reach an MCP server that already runs: give it to ${server.name} in spec.mcp_servers`,
    );
  const called = await server.call(name, args, context.signal, progressTo(context));
  switch (called.kind) {
    case "answer":
      return told(called.result, context.maxOutputBytes);
    case "failed":
      return failed(called.errorKind, called.message);
    case "stopped":
      return stopped(context.signal.reason as StopReason);
  }
}

/** One line on stderr for each step, as fast as somebody reads; steps that come meanwhile are left out. */
function progressTo({ output }: ToolContext): (progress: Progress) => void {
  let isBusy = false;
  return ({ progress, total, message }) => {
    if (isBusy) return;
    isBusy = true;
    const line = `progress ${progress}${total === undefined ? "" : ` of ${total}`}${message ? `: ${message}` : ""}\n`;
    void output("stderr", Buffer.from(line)).finally(() => {
      isBusy = false;
    });
  };
}

function told(answer: CallToolResult, maxOutputBytes: number): ToolResult {
  const text = (answer.content ?? []).map(inText).join("\n");
  const cap = capOutput(maxOutputBytes);
  cap.add(Buffer.from(text === "" ? "" : `${text}\n`));
  const isShort = Buffer.byteLength(JSON.stringify(answer)) <= Math.min(maxOutputBytes, maxStructuredBytes);
  return {
    ok: !answer.isError,
    exitCode: answer.isError ? 1 : 0,
    stdout: cap.captured(),
    stderr: nothingCaptured,
    ...(isShort && { structured: answer as Record<string, unknown> }),
    ...(answer.isError && {
      errorKind: "nonzero_exit",
      errorMessage: text.slice(0, 500) || "the tool reports an error",
    }),
  };
}

function inText(content: CallToolResult["content"][number]): string {
  switch (content.type) {
    case "text":
      return content.text;
    case "image":
    case "audio":
      return `[${content.type} ${content.mimeType}, ${Math.floor((content.data.length * 3) / 4)} bytes]`;
    case "resource":
      return "text" in content.resource ? content.resource.text : `[resource ${content.resource.uri}]`;
    case "resource_link":
      return `[link ${content.uri}]`;
  }
}

function stopped(reason: StopReason): ToolResult {
  switch (reason.kind) {
    case "timeout":
      return failed("timeout", `the MCP server did not answer within ${reason.afterMs / 1000} s and was told to stop`);
    case "cancelled":
      return failed("cancelled", `cancelled (${reason.detail}); the MCP server was told to stop`);
    case "shutdown":
      return failed("edge_disconnected", "this host's daemon is restarting");
  }
}
