/** Starts one process of a local MCP server and greets it. */
import type { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { AegisError } from "../errors.ts";
import type { Log, Secret } from "../platform/log.ts";
import { expandHome } from "../platform/paths.ts";
import type { ProcessEnd } from "../platform/process.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { version } from "../version.ts";
import { type CommandHost, plainEnvironment } from "./command-process.ts";
import { findExecutable } from "./find-executable.ts";
import { type ProcessTransport, processTransport } from "./mcp-transport.ts";

/** As the owner's config has it. */
export interface McpServerSpec {
  name: string;
  /** A bare name on the fixed path, or an absolute path. */
  command: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Variable -> name of a secret of this host. */
  secretEnv: Readonly<Record<string, string>>;
  /** Absolute; null: the home directory. */
  cwd: string | null;
}

export interface ConnectOptions {
  spec: McpServerSpec;
  host: CommandHost;
  log: Log;
  secret(name: string): Promise<Secret | null>;
}

export interface Connection {
  client: Client;
  /** Aborts when the server is gone. */
  gone: AbortSignal;
  /** How it ended, in words; settles when it is gone. */
  why: Promise<string>;
  /** What it was given and must not be shown. */
  secrets: readonly Secret[];
  /** Monotonic. */
  startedAt: number;
  close(): Promise<void>;
}

/** How long a server may take to greet. */
export const greetingMs = 30_000;

export const unavailable = (server: string, why: string, hint?: string): AegisError =>
  new AegisError(
    "unavailable",
    `the MCP server ${server} is not available: ${why}`,
    hint === undefined ? {} : { hint },
  );

/** `started` is told of the process before it greets, so that one that never does is known too. */
export async function connectServer(
  { spec, host, log, secret }: ConnectOptions,
  stop: AbortSignal,
  started: (connection: Connection) => void,
): Promise<Connection> {
  const { name } = spec;
  const { clock } = host;
  // Loaded only now: a host without a call for such a server does not pay for it.
  const [{ Client }, { deserializeMessage }] = await Promise.all([
    import("@modelcontextprotocol/sdk/client/index.js"),
    import("@modelcontextprotocol/sdk/shared/stdio.js"),
  ]);
  const found = await findExecutable(expandHome(spec.command, host.home), host.search);
  if (found.kind === "absent") throw unavailable(name, found.why);
  if (found.kind === "refused") throw unavailable(name, `its command ${spec.command} cannot be used: ${found.reason}`);
  const secretEnv = await secretsOf(spec, secret);
  const gone = new AbortController();
  const transport = processTransport({
    runner: host.runner,
    spec: {
      ...{ executable: found.path, name: spec.command, args: spec.args, cwd: spec.cwd ?? host.home },
      env: {
        ...(await plainEnvironment(host)),
        ...spec.env,
        ...Object.fromEntries(secretEnv.map(([variable, value]) => [variable, value.reveal()])),
      },
    },
    parse: deserializeMessage,
    pause: (ms) => clock.sleep(ms, gone.signal),
  });
  const why = transport.ended.then((end) => {
    gone.abort();
    return whyGone(end, transport);
  });
  // What a tool answers is checked by whoever asked for it; compiling its schema here would only take time.
  const trusting = {
    getValidator: () => (data: unknown) => ({ valid: true as const, data: data as never, errorMessage: undefined }),
  };
  const client = new Client({ name: "aegis", version }, { jsonSchemaValidator: trusting });
  client.onerror = (error) => log.debug("mcp_message", { server: name, error });
  const secrets = secretEnv.map(([, value]) => value);
  const startedAt = clock.monotonic();
  const close = () => transport.close();
  const connection: Connection = { client, gone: gone.signal, why, secrets, startedAt, close };
  started(connection);

  const timer = new AbortController();
  const greeting = client.connect(transport, { timeout: unlimitedMs }).then(
    () => "greeted" as const,
    (error: Error) => (transport.isGone ? ("gone" as const) : `it did not greet as it should: ${error.message}`),
  );
  const late = clock
    .sleep(greetingMs, timer.signal)
    .then(() => `it did not greet within ${greetingMs / 1000} s${quoted(transport)}`);
  const how = await untilAbort(Promise.race([greeting, why.then(() => "gone" as const), late]), stop);
  timer.abort();
  if (how === "greeted") return connection;
  await close();
  throw unavailable(name, how === undefined ? "this host's daemon is ending" : how === "gone" ? await why : how);
}

/** A call ends with its own deadline; the library wants one too. */
export const unlimitedMs = 2 ** 31 - 1;

async function secretsOf(
  { name, secretEnv }: McpServerSpec,
  secret: ConnectOptions["secret"],
): Promise<[string, Secret][]> {
  const found: [string, Secret][] = [];
  for (const [variable, secretName] of Object.entries(secretEnv)) {
    const value = await secret(secretName);
    if (!value)
      throw unavailable(name, `this host keeps no secret named ${secretName}`, `aegis edge secret set ${secretName}`);
    found.push([variable, value]);
  }
  return found;
}

/** The end of what it said on stderr is most often the reason. */
function quoted(transport: ProcessTransport): string {
  const words = transport.lastWords();
  return words === "" ? "" : `; it said: ${words.slice(-400)}`;
}

/** node dies like that where memory may not be made executable. */
const deadly = /^SIG(?:TRAP|SEGV|ABRT|ILL)$/;

function whyGone(end: ProcessEnd, transport: ProcessTransport): string {
  if (end.kind === "not_started") return end.message;
  const how = end.kind === "exited" ? `it exited with status ${end.code}` : `it was ended by ${end.signal}`;
  // Its last words are then a long stack of V8's own functions.
  const isJit = end.kind === "signal" && deadly.test(end.signal) && /\bv8::|\bnode::/.test(transport.lastWords());
  const remedy = "node needs executable memory, which the service forbids: aegis edge service reinstall --allow-jit";
  return isJit ? `${how}; ${remedy}` : `${how}${quoted(transport)}`;
}
