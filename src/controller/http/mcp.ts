/** MCP over Streamable HTTP at /mcp: a session for each client, bound to the token that opened it. */
import { randomUUID } from "node:crypto";
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import type { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { AegisError } from "../../errors.ts";
import { catalog, liveHosts } from "../mcp-catalog.ts";
import type { McpServices } from "../mcp-server.ts";
import type { Authenticated } from "./auth.ts";
import { readText } from "./request.ts";

const mcpLimits = { sessions: 1_000, idleMs: 60 * 60_000, lookEveryMs: 2_000 };

interface Session {
  transport: WebStandardStreamableHTTPServerTransport;
  server: Server;
  tokenId: string;
  tenantId: string;
  usedAt: number;
}

export interface McpHub {
  /** One request of a client that is known. */
  handle(request: Request, principal: Authenticated): Promise<Response>;
  /** Tells clients when what their hosts can do has changed, until `signal` aborts; then ends every session. */
  watch(signal: AbortSignal): Promise<void>;
  readonly size: number;
}

export function createMcpHub(services: McpServices): McpHub {
  const { clock, nodes, log } = services;
  const sessions = new Map<string, Session>();

  async function close(id: string, session: Session): Promise<void> {
    sessions.delete(id);
    await session.server.close().catch((error: unknown) => log.warn("mcp_not_closed", { error }));
  }

  async function makeRoom(): Promise<void> {
    const now = clock.monotonic();
    const byAge = [...sessions].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    for (const [id, session] of byAge)
      if (now - session.usedAt > mcpLimits.idleMs || sessions.size >= mcpLimits.sessions) await close(id, session);
  }

  async function open(principal: Authenticated): Promise<Session> {
    await makeRoom();
    // The SDK is large and most controllers are asked for it seldom.
    const [{ WebStandardStreamableHTTPServerTransport }, { createMcpServer }] = await Promise.all([
      import("@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js"),
      import("../mcp-server.ts"),
    ]);
    const server = createMcpServer(services, principal);
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void sessions.set(id, session),
      onsessionclosed: (id) => void sessions.delete(id),
    });
    const { tokenId, tenantId } = principal;
    const session: Session = { transport, server, tokenId, tenantId, usedAt: clock.monotonic() };
    await server.connect(transport as Parameters<Server["connect"]>[0]);
    return session;
  }

  return {
    async handle(request, principal) {
      const id = request.headers.get("mcp-session-id");
      const known = id === null ? undefined : sessions.get(id);
      // Another token's session is as unknown as one that never was.
      if (id !== null && known?.tokenId !== principal.tokenId)
        throw new AegisError("not_found", "this MCP session is over or never was; initialize again");
      const parsedBody = request.method === "POST" ? jsonOf(await readText(request)) : undefined;
      const session = known ?? (await open(principal));
      session.usedAt = clock.monotonic();
      return await session.transport.handleRequest(request, parsedBody === undefined ? {} : { parsedBody });
    },
    get size() {
      return sessions.size;
    },
    async watch(signal) {
      const seen = new Map<string, string>();
      while (!signal.aborted) {
        const tenants = new Set([...sessions.values()].map(({ tenantId }) => tenantId));
        for (const tenantId of [...seen.keys()]) if (!tenants.has(tenantId)) seen.delete(tenantId);
        for (const tenantId of tenants) {
          const now = JSON.stringify(catalog(liveHosts(nodes, tenantId)));
          const before = seen.get(tenantId);
          seen.set(tenantId, now);
          if (before === undefined || before === now) continue;
          for (const session of sessions.values())
            if (session.tenantId === tenantId) void session.server.sendToolListChanged().catch(() => {});
        }
        await clock.sleep(mcpLimits.lookEveryMs, signal);
      }
      for (const [id, session] of [...sessions]) await close(id, session);
    },
  };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new AegisError("invalid_request", `the body is no JSON: ${(cause as Error).message}`, { cause });
  }
}
