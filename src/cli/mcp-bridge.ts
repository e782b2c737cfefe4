/** Carries MCP messages between a client on stdio and a server over HTTP, and opens the session again when the server has lost it. */
import type { Readable, Writable } from "node:stream";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import {
  isInitializeRequest,
  isJSONRPCErrorResponse,
  isJSONRPCRequest,
  isJSONRPCResultResponse,
  type JSONRPCMessage,
  type JSONRPCRequest,
} from "@modelcontextprotocol/sdk/types.js";
import { AegisError } from "../errors.ts";

export interface BridgeOptions {
  stdin: Readable;
  stdout: Writable;
  stop: AbortSignal;
  warn(text: string): void;
}

export interface Endpoint {
  url: URL;
  fetch(input: string | URL, init?: RequestInit): Promise<Response>;
}

/** JSON-RPC's range for a server's own errors. */
const serverError = -32_000;
/** Longest message of a client, in bytes: a tool's arguments are smaller. */
const maxMessageBytes = 4 * 1024 * 1024;

/** Resolves when stdin ends or `stop` aborts; the server is then told that the session is over. */
export async function bridge(endpoint: Endpoint, { stdin, stdout, stop, warn }: BridgeOptions): Promise<void> {
  const client = new StdioServerTransport(stdin, stdout, { maxBufferSize: maxMessageBytes });
  /** Requests of the client that wait for an answer. */
  const waiting = new Set<string | number>();
  let greeting: JSONRPCRequest | null = null;
  let server = await open();
  let renewal: Promise<void> | null = null;

  async function open(): Promise<StreamableHTTPClientTransport> {
    const transport = new StreamableHTTPClientTransport(endpoint.url, {
      fetch: (url, init) => endpoint.fetch(url, init),
    });
    transport.onmessage = (message) => void deliver(transport, message);
    await transport.start();
    return transport;
  }

  async function deliver(from: StreamableHTTPClientTransport, message: JSONRPCMessage): Promise<void> {
    if (isJSONRPCResultResponse(message) || isJSONRPCErrorResponse(message)) {
      if (isJSONRPCResultResponse(message) && message.id === greeting?.id) {
        const { protocolVersion } = message.result;
        if (typeof protocolVersion === "string") from.setProtocolVersion(protocolVersion);
      }
      // Also the second answer to a greeting, which the client has had.
      if (message.id === undefined || !waiting.delete(message.id)) return;
    }
    await client.send(message);
  }

  /** A session that the server does not know any more takes its unanswered requests with it. */
  async function renew(lost: StreamableHTTPClientTransport, keep: string | number | undefined): Promise<void> {
    if (server !== lost || !greeting) return;
    await lost.close();
    for (const id of [...waiting])
      if (id !== keep)
        await refuse(id, new AegisError("unavailable", "the controller has restarted meanwhile; ask again"));
    server = await open();
    await server.send(greeting);
    await server.send({ jsonrpc: "2.0", method: "notifications/initialized" });
  }

  async function refuse(id: string | number, error: AegisError): Promise<void> {
    if (!waiting.delete(id)) return;
    const message = [error.message, error.hint].filter(Boolean).join("\n");
    await client.send({ jsonrpc: "2.0", id, error: { code: serverError, message } });
  }

  async function forward(message: JSONRPCMessage): Promise<void> {
    const id = isJSONRPCRequest(message) ? message.id : undefined;
    if (id !== undefined) waiting.add(id);
    if (isInitializeRequest(message)) greeting = message as JSONRPCRequest;
    for (let attempt = 1; ; attempt++) {
      await renewal?.catch(() => {});
      const through = server;
      try {
        return await through.send(message);
      } catch (thrown) {
        const error = AegisError.from(thrown);
        if (error.code === "not_found" && attempt === 1 && !isInitializeRequest(message)) {
          renewal ??= renew(through, id).finally(() => {
            renewal = null;
          });
          if (
            await renewal.then(
              () => true,
              () => false,
            )
          )
            continue;
        }
        if (id === undefined) warn(error.message);
        else await refuse(id, error);
        return;
      }
    }
  }

  const over = Promise.withResolvers<void>();
  client.onmessage = (message) => void forward(message);
  client.onerror = (error) => warn(`the client's message cannot be read: ${error.message}`);
  client.onclose = over.resolve;
  stdin.once("end", over.resolve);
  stop.addEventListener("abort", () => over.resolve(), { once: true });
  await client.start();
  await over.promise;
  await server.terminateSession().catch(() => {});
  await server.close();
}
