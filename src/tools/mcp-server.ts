/** One local MCP server: started when it is needed, stopped when it is not, started again with growing patience. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Client } from "@modelcontextprotocol/sdk/client/index.js";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import { AegisError } from "../errors.ts";
import { backoffMs } from "../platform/backoff.ts";
import type { Secret } from "../platform/log.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { maskSecrets } from "./mask.ts";
import {
  type Connection,
  type ConnectOptions,
  connectServer,
  greetingMs,
  unavailable,
  unlimitedMs,
} from "./mcp-connection.ts";
import { type ListedTool, readListed, readListing } from "./mcp-listing.ts";

export interface McpServerOptions extends ConnectOptions {
  /** Where its tools are remembered, so that they are known without starting it. */
  directory: string;
  /** Its tools are others than before. */
  onChanged(): void;
}

/** Without a call for so long, it is stopped. */
export const idleMs = 10 * 60_000;
/** One that lived so long was well: patience begins anew. */
const healthyMs = 60_000;
const scheduleMs = [1_000, 2_000, 5_000, 15_000, 60_000];
/** Most pages of a list of tools. */
const maxPages = 20;

export interface Progress {
  progress: number;
  total?: number | undefined;
  message?: string | undefined;
}

export type Called =
  /** The owner's secrets are masked. */
  | { kind: "answer"; result: CallToolResult }
  | { kind: "failed"; errorKind: "invalid_args" | "tool_not_found" | "internal"; message: string }
  | { kind: "stopped" };

export interface McpServer {
  readonly name: string;
  /** What it offers; null while nobody knows. */
  readonly tools: readonly ListedTool[] | null;
  /** Finds out what it offers, from what is remembered or by starting it once. Never rejects. */
  learn(): Promise<void>;
  call(
    tool: string,
    args: Record<string, unknown>,
    signal: AbortSignal,
    onProgress: (progress: Progress) => void,
  ): Promise<Called>;
  /** Stops it for good. */
  close(): Promise<void>;
}

/** A connection and what it is used for. */
interface Use {
  connection: Connection;
  calls: number;
  usedAt: number;
}

export function createMcpServer(options: McpServerOptions): McpServer {
  const { spec, host, log, directory, onChanged } = options;
  const { name } = spec;
  const { clock } = host;
  const remembered = join(directory, `${name}.json`);
  const digest = createHash("sha256").update(JSON.stringify(spec)).digest("hex");
  const closing = new AbortController();
  let tools: readonly ListedTool[] | null = null;
  let current: Promise<Use> | null = null;
  let failures = 0;
  let nextTryAt = 0;
  let lastFailure = "";

  /** One start at a time; whoever comes meanwhile waits for the same. */
  function connected(): Promise<Use> {
    if (current) return current;
    const starting = begin();
    current = starting;
    const forget = () => {
      if (current === starting) current = null;
    };
    starting.then(({ connection }) => void connection.why.then(forget), forget);
    return starting;
  }

  async function begin(): Promise<Use> {
    if (closing.signal.aborted) throw unavailable(name, "this host's daemon is ending");
    const waitMs = nextTryAt - clock.monotonic();
    if (waitMs > 0) {
      const when = `it is started again in ${Math.ceil(waitMs / 1000)} s`;
      throw unavailable(name, `it has failed ${failures} times in a row and ${when}; last: ${lastFailure}`);
    }
    const connection = await connectServer(options, closing.signal, (started) => void countFailure(started));
    const use: Use = { connection, calls: 0, usedAt: clock.monotonic() };
    try {
      await list(connection.client);
      const { ToolListChangedNotificationSchema } = await import("@modelcontextprotocol/sdk/types.js");
      connection.client.setNotificationHandler(ToolListChangedNotificationSchema, () => {
        list(connection.client).catch((error: unknown) => log.warn("mcp_list", { server: name, error }));
      });
    } catch (error) {
      const wasGone = connection.gone.aborted;
      await connection.close();
      const why = await connection.why;
      throw unavailable(name, wasGone ? why : `it did not name its tools: ${(error as Error).message}`);
    }
    const afterMs = Math.round(clock.monotonic() - connection.startedAt);
    log.info("mcp_started", { server: name, tools: tools?.length ?? 0, after_ms: afterMs });
    void stopWhenIdle(use);
    return use;
  }

  /** Every end that nobody asked for is a failure, that of one which never greeted too. */
  const wanted = new WeakSet<Connection>();
  async function countFailure(connection: Connection): Promise<void> {
    const why = await connection.why;
    if (clock.monotonic() - connection.startedAt >= healthyMs) failures = 0;
    if (wanted.has(connection) || closing.signal.aborted) return;
    failures++;
    lastFailure = why;
    nextTryAt = clock.monotonic() + backoffMs(failures, { scheduleMs, random: () => 1 });
    log.warn("mcp_ended", { server: name, reason: why, failures });
  }

  async function stopWhenIdle(use: Use): Promise<void> {
    const { connection } = use;
    while (!connection.gone.aborted) {
      const leftMs = use.calls > 0 ? idleMs : use.usedAt + idleMs - clock.monotonic();
      if (leftMs > 0) await clock.sleep(leftMs, connection.gone);
      else {
        wanted.add(connection);
        failures = 0;
        current = null;
        log.info("mcp_idle", { server: name });
        await connection.close();
      }
    }
  }

  async function list(client: Client): Promise<void> {
    const listed: unknown[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < maxPages; page++) {
      const answer = await client.listTools(cursor === undefined ? {} : { cursor }, { timeout: greetingMs });
      listed.push(...answer.tools);
      cursor = answer.nextCursor;
      if (cursor === undefined) break;
    }
    const { known, passedOver } = readListing(listed);
    if (passedOver.length > 0) log.warn("mcp_tools_passed_over", { server: name, tools: passedOver });
    if (JSON.stringify(known) === JSON.stringify(tools)) return;
    tools = known;
    onChanged();
    try {
      await makeDirectory(directory);
      await writeFileAtomic(remembered, JSON.stringify({ digest, tools: known }));
    } catch (error) {
      log.warn("mcp_not_remembered", { server: name, error });
    }
  }

  return {
    name,
    get tools() {
      return tools;
    },
    async learn() {
      const known = await readListed(remembered, digest);
      if (!known)
        return void (await connected().catch((error: unknown) => log.warn("mcp_unavailable", { server: name, error })));
      tools = known;
      onChanged();
    },
    async call(tool, args, signal, onProgress) {
      let use: Use | undefined;
      try {
        use = await untilAbort(connected(), signal);
      } catch (error) {
        return { kind: "failed", errorKind: "internal", message: AegisError.from(error).message };
      }
      if (!use) return { kind: "stopped" };
      if (!tools?.some((one) => one.name === tool))
        return {
          kind: "failed",
          errorKind: "tool_not_found",
          message: `the MCP server ${name} has no tool named ${tool}`,
        };
      const { client, secrets, gone, why } = use.connection;
      use.calls++;
      try {
        const request = { signal, timeout: unlimitedMs, onprogress: onProgress };
        const result = await client.callTool({ name: tool, arguments: args }, undefined, request);
        return { kind: "answer", result: masked(result, secrets) as CallToolResult };
      } catch (error) {
        if (signal.aborted) return { kind: "stopped" };
        const { code, message } = error as { code?: number; message: string };
        const said = gone.aborted ? `ended during the call: ${await why}` : `refused: ${message}`;
        const errorKind = code === invalidParams && !gone.aborted ? "invalid_args" : "internal";
        return { kind: "failed", errorKind, message: String(masked(`the MCP server ${name} ${said}`, secrets)) };
      } finally {
        use.calls--;
        use.usedAt = clock.monotonic();
      }
    },
    async close() {
      closing.abort();
      const use = await current?.catch(() => null);
      await use?.connection.close();
    },
  };
}

/** Of JSON-RPC. */
const invalidParams = -32602;

/** Every text in `value` without the secrets. */
function masked(value: unknown, secrets: readonly Secret[]): unknown {
  if (secrets.length === 0) return value;
  if (typeof value === "string") {
    const mask = maskSecrets(secrets);
    return Buffer.concat([mask.add(Buffer.from(value)), mask.end()]).toString("utf8");
  }
  if (Array.isArray(value)) return value.map((one) => masked(one, secrets));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, masked(one, secrets)]));
}
