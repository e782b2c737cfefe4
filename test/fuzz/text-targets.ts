/** What people and peers write: settings, targets, paths, streams. Each is read, or refused in words, and never in between. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatSse, parseSse, type SseMessage } from "../../src/api/sse.ts";
import { formatTarget, parseTarget } from "../../src/api/target-text.ts";
import { loadEdgeConfig } from "../../src/config/load.ts";
import { readInvoke } from "../../src/daemon/received.ts";
import { AegisError, type ErrorCode } from "../../src/errors.ts";
import { readProxy } from "../../src/platform/proxy-env.ts";
import { type SecurityContext, securityContextsSchema } from "../../src/policy/context.ts";
import { evaluate } from "../../src/policy/evaluate.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import { type FuzzTarget, taken } from "./fuzz.ts";
import { mutated, mutatedText, type Random } from "./random.ts";

const wire = aegis.cluster.v1;

/** Runs `work`; an AegisError of one of `codes` counts as refused, anything else is a finding. */
async function orRefused<T>(codes: readonly ErrorCode[], work: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof AegisError && codes.includes(error.code) && error.message !== "") return undefined;
    throw error;
  }
}

/** Below the folder that whoever runs the cases takes away. */
const folder = mkdtempSync(join(tmpdir(), "aegis-fuzz-"));
const config = `apiVersion: 100monkeys.ai/v1
kind: NodeConfig
metadata:
  name: web-1
spec:
  node: {id: 6f1c2b1e-3c1a-4d7e-8f59-0a1b2c3d4e5f, type: edge}
  cluster:
    enabled: true
    role: edge
    controller: {endpoint: "https://c.example:50056", tls: {enabled: true}}
    edge: {tenant_id: acme, seal: strict, seal_root: ${"A".repeat(43)}, stream_reconnect_backoff_secs: [1, 2, 5]}
  security_contexts:
    - name: default
      principals: [{scope: aegis.edge.fleet.manage}]
      capabilities:
        - {tool_pattern: cmd.run, command_allowlist: [uname, uptime]}
        - {tool_pattern: fs.read, path_allowlist: [/srv/data]}
`;
const yamlSpice = [
  "&a ",
  "*a",
  "<<: *a",
  "!!js/function",
  "\t",
  "- ",
  ": ",
  "{",
  "}",
  "[",
  "]",
  "~",
  "null",
  "0x10",
  "1e999",
  '"',
  "'",
  "|\n",
  "__proto__: {x: 1}\n",
  "constructor: 1\n",
  "spec: ",
  "\u0000",
  "---\n",
];

const parsedContexts = securityContextsSchema.parse([
  {
    name: "default",
    principals: [{ sub: "*" }],
    capabilities: [
      { tool_pattern: "fs.read", path_allowlist: ["/srv/data"] },
      { tool_pattern: "cmd.run", command_allowlist: ["/usr/bin/uname"] },
    ],
  },
]);
const context = parsedContexts[0] as SecurityContext;
const world = { protectedPaths: ["/srv/data/secret"], home: "/home/ann", style: "posix" as const };
const targets = [
  "all",
  "@web-1",
  "group:web",
  "os=linux arch=x86_64",
  "tools=docker,kubectl labels=region=us",
  "labels=Exists(gpu) labels=In(env,prod,staging)",
  "tags=prod tags=AnyOf(a,b) tags=NoneOf(x)",
];
const invoke = wire.EdgeCommand.encode({
  invokeTool: {
    commandId: "6f1c2b1e-3c1a-4d7e-8f59-0a1b2c3d4e5f",
    toolName: "cmd.run",
    securityContextName: "default",
    argsJson: Buffer.from("{}"),
    sealEnvelope: {
      tenantId: "acme",
      securityContextName: "default",
      userSecurityToken: "x",
      signature: new Uint8Array(64),
    },
  },
}).finish();

async function readAll(chunks: readonly Uint8Array[]): Promise<SseMessage[]> {
  async function* stream() {
    yield* chunks;
  }
  const found: SseMessage[] = [];
  for await (const message of parseSse(stream())) found.push({ ...message });
  return found;
}

function pieces(bytes: Uint8Array, by: Random): Uint8Array[] {
  const out: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + by.below(by.pick([1, 3, 40]));
    out.push(bytes.subarray(at, at + length));
    at += length;
  }
  return out;
}

/** Null for bytes that are no message. */
function decoded<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch {
    return null;
  }
}

export const textTargets: readonly FuzzTarget[] = [
  {
    name: "settings are read whole or refused by name, and no text turns strict off unseen",
    cost: 10,
    async run(by) {
      const text = mutatedText(config, by, yamlSpice);
      const file = join(folder, "aegis-config.yaml");
      writeFileSync(file, text);
      const loaded = await orRefused(["config_invalid"], () =>
        loadEdgeConfig({ stateDir: folder, env: {}, home: folder }),
      );
      if (loaded && loaded.config.seal !== "strict" && /seal: strict/.test(text) && !/seal: compat/.test(text))
        throw new Error(`strict was lost in:\n${text}`);
      if ({}.constructor !== Object || "x" in {}) throw new Error("a prototype was changed");
      return loaded ? "taken" : "refused";
    },
  },
  {
    name: "a target is read and written back the same, or refused in words",
    async run(by) {
      const text = mutatedText(by.pick(targets), by, [
        "(",
        ")",
        ",",
        "=",
        "@",
        "group:",
        "AnyOf(",
        "Exists(",
        " ",
        "all",
        "tags=",
        "os=",
      ]);
      const target = await orRefused(["usage"], () => parseTarget(text, { bareNode: by.below(2) === 0 }));
      if (target === undefined) return "refused";
      const again = parseTarget(formatTarget(target), { bareNode: true });
      if (JSON.stringify(again) !== JSON.stringify(target))
        throw new Error(`${text} became ${JSON.stringify(target)}, then ${JSON.stringify(again)}`);
      return "taken";
    },
  },
  {
    name: "a stream cut anywhere gives the same events, and noise gives no crash",
    async run(by) {
      const events = Array.from({ length: 1 + by.below(4) }, (_, id) => ({
        id,
        event: by.pick(["started", "command_progress"]),
        data: { text: `${Buffer.from(by.bytes(by.below(30))).toString("utf8")}\u2028é😀\r\n` },
      }));
      const bytes = Buffer.from(events.map(formatSse).join(": still here\n\n"));
      const read = await readAll(pieces(bytes, by));
      const expected = events.map(({ id, event, data }) => ({ id: String(id), event, data: JSON.stringify(data) }));
      if (JSON.stringify(read) !== JSON.stringify(expected))
        throw new Error(`read ${JSON.stringify(read)} of ${JSON.stringify(expected)}`);
      const noise = await readAll(pieces(mutated(bytes, by), by));
      return JSON.stringify(noise) === JSON.stringify(read) ? "taken" : "refused";
    },
  },
  {
    name: "a path outside its folder is never allowed",
    run(by) {
      const path = mutatedText(by.pick(["/srv/data/file", "/srv/data", "/srv/data/secret/key", "/srv/database"]), by, [
        "/",
        "..",
        "/../",
        "/./",
        "//",
        "\u0000",
        "~",
        "*",
        "**",
        "\\",
        "%2e%2e",
        "data",
      ]);
      const verdict = evaluate(
        context,
        { tool: "fs.read", accesses: [{ kind: "path", mode: "read", path }], caller: { sub: "ann", scopes: [] } },
        world,
      );
      if (verdict.kind !== "allowed") return "refused";
      const inside = path === "/srv/data" || path.startsWith("/srv/data/");
      if (!inside || /(?:^|\/)\.{1,2}(?:\/|$)|\/\/|\0/.test(path) || /^\/srv\/data\/secret(?:\/|$)/i.test(path))
        throw new Error(`allowed ${JSON.stringify(path)}`);
      return "taken";
    },
  },
  {
    name: "another executable is never allowed",
    run(by) {
      const spice = ["/", "..", " ", "\u0000", "uname", "*", "e"];
      const executable = by.below(8) === 0 ? "/usr/bin/uname" : mutatedText("/usr/bin/uname", by, spice);
      const verdict = evaluate(
        context,
        {
          tool: "cmd.run",
          accesses: [{ kind: "command", executable, name: "uname", args: [] }],
          caller: { sub: "ann", scopes: [] },
        },
        world,
      );
      if (verdict.kind === "allowed" && executable !== "/usr/bin/uname")
        throw new Error(`allowed ${JSON.stringify(executable)}`);
      return verdict.kind === "allowed" ? "taken" : "refused";
    },
  },
  {
    name: "messages of the wire decode or throw at once, and a call is read as a value",
    run(by) {
      const bytes = by.pick([by.bytes(by.below(200)), mutated(invoke, by), mutated(invoke, by), invoke]);
      decoded(() => wire.EdgeEvent.decode(bytes));
      const command = decoded(() => wire.EdgeCommand.decode(bytes));
      if (!command) return "refused";
      const reading = command.invokeTool && readInvoke(command.invokeTool, { body: bytes, timeMs: 1, receivedAt: 1 });
      const isCall = reading?.kind === "call";
      return bytes === invoke ? taken(isCall, "an honest call") : isCall ? "taken" : "refused";
    },
  },
  {
    name: "a proxy's address is read or refused without its password",
    async run(by) {
      const text = mutatedText("http://ann:hunter2@proxy.example:3128", by, [
        "@",
        ":",
        "/",
        "[",
        "]",
        "://",
        "%",
        "99999",
      ]);
      try {
        readProxy(text, "HTTPS_PROXY");
        return "taken";
      } catch (error) {
        if (!(error instanceof AegisError) || error.code !== "config_invalid") throw error;
        if (error.message.includes("hunter2")) throw new Error(`the password is in ${error.message}`);
        return "refused";
      }
    },
  },
];
