/** Speaks with an MCP server over its standard input and output: one JSON message a line, as the protocol has it. */
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import type { ProcessEnd, ProcessHandle, ProcessRunner, ProcessSpec } from "../platform/process.ts";

/** Longest message of a server, in bytes: anything more is no answer to a call. */
export const maxMessageBytes = 10 * 1024 * 1024;
/** What is kept of the latest words on stderr, in bytes. */
const keptErrorBytes = 2 * 1024;
/** How long a server may take to end once its input is closed; then it is stopped like any process. */
const partingMs = 2_000;

export interface ProcessTransport extends Transport {
  /** Settles when the server is gone. */
  readonly ended: Promise<ProcessEnd>;
  /** It has ended, or takes no more messages and is about to. */
  readonly isGone: boolean;
  /** The latest it said on stderr. */
  lastWords(): string;
}

export interface TransportOptions {
  runner: ProcessRunner;
  spec: Omit<ProcessSpec, "stdin" | "output">;
  /** A message as it stands in a line, checked for form. Throws for anything else. */
  parse(line: string): JSONRPCMessage;
  pause(ms: number): Promise<void>;
}

/** A line that is no message, such as a greeting, is passed over and told to `onerror`. */
export function processTransport({ runner, spec, parse, pause }: TransportOptions): ProcessTransport {
  let handle: ProcessHandle | null = null;
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let words = Buffer.alloc(0);
  let isGone = false;
  const ended = Promise.withResolvers<ProcessEnd>();

  function take(line: string): void {
    if (line.trim() === "") return;
    try {
      transport.onmessage?.(parse(line));
    } catch (error) {
      transport.onerror?.(error as Error);
    }
  }

  function read(piece: Uint8Array): void {
    let rest = Buffer.from(piece);
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      const line = Buffer.concat([...pending, rest.subarray(0, end)]).toString("utf8");
      pending = [];
      pendingBytes = 0;
      rest = rest.subarray(end + 1);
      take(line);
    }
    pendingBytes += rest.length;
    if (rest.length > 0) pending.push(rest);
    if (pendingBytes <= maxMessageBytes) return;
    pending = [];
    pendingBytes = 0;
    transport.onerror?.(new Error(`a message is longer than ${maxMessageBytes} bytes`));
    handle?.stop();
  }

  const transport: ProcessTransport = {
    ended: ended.promise,
    get isGone() {
      return isGone;
    },
    lastWords: () => words.toString("utf8").trim(),
    async start() {
      handle = runner.start({
        ...spec,
        stdin: "open",
        async output(pipe, piece) {
          if (pipe === "stdout") read(piece);
          else words = Buffer.concat([words, piece]).subarray(-keptErrorBytes);
        },
      });
      void handle.ended
        .catch((error: Error): ProcessEnd => ({ kind: "not_started", reason: "failed", message: error.message }))
        .then((end) => {
          isGone = true;
          ended.resolve(end);
          transport.onclose?.();
        });
    },
    async send(message) {
      const sent = await handle?.write(Buffer.from(`${JSON.stringify(message)}\n`));
      if (sent) return;
      isGone = true;
      throw new Error("the server is gone");
    },
    async close() {
      if (!handle) return;
      handle.closeStdin();
      await Promise.race([ended.promise, pause(partingMs)]);
      handle.stop();
      await ended.promise;
    },
  };
  return transport;
}
