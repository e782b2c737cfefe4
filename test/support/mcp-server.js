// A server as MCP has it, without any library: what it does is told by its first argument.
import { closeSync, openSync } from "node:fs";

const mode = process.argv[2] ?? "well";
const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
const tools = () => [
  {
    name: "echo",
    description: "Says it back",
    inputSchema: { type: "object", properties: { text: { type: "string" } } },
    annotations: { readOnlyHint: true },
  },
  { name: "slow", description: "", inputSchema: { type: "object" }, annotations: { destructiveHint: false } },
  { name: "fail", inputSchema: { type: "object" } },
  { name: "crash", inputSchema: { type: "object" } },
  { name: "env", inputSchema: { type: "object" } },
  { name: "long", inputSchema: { type: "object" } },
  { name: "touch", inputSchema: { type: "object" } },
  { name: "not/nameable", inputSchema: { type: "object" } },
  ...(changed ? [{ name: "added", inputSchema: { type: "object" } }] : []),
];
let changed = false;
const waiting = new Map();
const text = (value) => ({ content: [{ type: "text", text: value }] });

function call(id, { name, arguments: args = {}, _meta = {} }) {
  switch (name) {
    case "echo":
      return say({ id, result: text(`you said ${args.text}`) });
    case "env":
      return say({ id, result: text(JSON.stringify(process.env)) });
    case "touch":
      closeSync(openSync(args.path, "a"));
      return say({ id, result: text("touched") });
    case "long":
      return say({ id, result: text("x".repeat(args.bytes)) });
    case "fail":
      return args.how === "params"
        ? say({ id, error: { code: -32602, message: "text is missing" } })
        : say({ id, result: { ...text("it did not work"), isError: true } });
    case "crash":
      process.stderr.write("about to crash\n");
      return process.exit(3);
    case "slow":
      waiting.set(id, true);
      for (const progress of [1, 2])
        say({
          method: "notifications/progress",
          params: { progressToken: _meta.progressToken, progress, total: 2, message: `step ${progress}` },
        });
      if (args.change) {
        changed = true;
        say({ method: "notifications/tools/list_changed" });
      }
      return setTimeout(() => waiting.delete(id) && say({ id, result: text("done") }), args.ms ?? 0);
    default:
      return say({ id, error: { code: -32601, message: `no ${name}` } });
  }
}

function take({ id, method, params }) {
  if (method === "initialize")
    return say({
      id,
      result: {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: { listChanged: true } },
        serverInfo: { name: "t", version: "1" },
      },
    });
  if (method === "tools/list") {
    const all = tools();
    return params?.cursor
      ? say({ id, result: { tools: all.slice(2) } })
      : say({ id, result: { tools: all.slice(0, 2), nextCursor: "2" } });
  }
  if (method === "tools/call") return call(id, params);
  if (method === "notifications/cancelled") {
    process.stderr.write(`cancelled ${params.requestId}\n`);
    waiting.delete(params.requestId);
  }
}

if (mode === "mute") setInterval(() => {}, 1000);
else if (mode === "dies") {
  process.stderr.write("cannot find my settings\n");
  process.exit(1);
} else {
  if (mode === "chatty") process.stdout.write("Welcome to this server!\n\n");
  let rest = "";
  process.stdin.on("data", (chunk) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines) take(JSON.parse(line));
  });
  if (mode !== "stays") process.stdin.on("end", () => process.exit(0));
  else setInterval(() => {}, 1000);
}
