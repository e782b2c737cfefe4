/**
 * A controller that behaves as the Rust one does: it verifies nothing of what a daemon signs, sends inner envelopes with an
 * empty token and an empty context name, says nothing to a Hello, and ends a stream that displeases it without a status.
 */
import { randomUUID } from "node:crypto";
import { type PeerServer, peerServer, type ServedCall } from "./grpc.ts";
import { type Field, Fields, message, struct } from "./protobuf.ts";

export interface RustControllerOptions {
  tls?: { cert: string; key: string };
  /** Response headers are held back until there is a command to send. */
  lateHeaders?: boolean;
  /** Node ids with a row; any, when absent. */
  known?: readonly string[];
}

export interface Invoke {
  commandId?: string;
  tool?: string;
  args?: Record<string, unknown>;
  context?: string;
  /** Of the inner envelope. */
  innerContext?: string;
  tenant?: string;
  token?: string;
  deadlineSecs?: number;
  /** Appended to the InvokeToolCommand. */
  extra?: readonly Field[];
  withoutEnvelope?: boolean;
}

export interface RustController extends PeerServer {
  /** Every event as it came, the Hello first; one list for each stream. */
  readonly streams: readonly Fields[][];
  /** Sends to the newest stream; its id. */
  invoke(invoke: Invoke): string;
  cancel(commandId: string): void;
  /** Any EdgeCommand. */
  command(...fields: Field[]): void;
  /** Resolves with the first CommandResultEvent of this command. */
  result(commandId: string): Promise<Fields>;
  /** Ends the newest stream, with status 0. */
  hangUp(): void;
}

export async function rustController(options: RustControllerOptions = {}): Promise<RustController> {
  const streams: Fields[][] = [];
  const results = new Map<string, PromiseWithResolvers<Fields>>();
  let newest: ServedCall | null = null;
  const resultOf = (commandId: string) => {
    const waiting = results.get(commandId) ?? Promise.withResolvers<Fields>();
    results.set(commandId, waiting);
    return waiting;
  };

  async function connectEdge(call: ServedCall): Promise<void> {
    if (!options.lateHeaders) call.sendHeaders();
    const events: Fields[] = [];
    for await (const data of call.messages) {
      const event = new Fields(data);
      if (events.length === 0) {
        streams.push(events);
        if (!isKnown(event, options.known)) return call.end();
        newest = call;
      } else if (event.has(1)) return call.end();
      events.push(event);
      // The first result of a command completes it, whoever sent it; progress is read and forgotten.
      if (event.has(3)) resultOf(event.sub(3).text(2)).resolve(event.sub(3));
    }
  }

  const server = await peerServer((path, call) => {
    if (path === "/aegis.cluster.v1.NodeClusterService/ConnectEdge") return connectEdge(call);
    call.end({ code: 12, message: "" });
  }, options.tls);

  const command = (...fields: Field[]) => newest?.send(message(...fields));
  return {
    port: server.port,
    get connections() {
      return server.connections;
    },
    streams,
    command,
    invoke(invoke) {
      const { commandId = randomUUID(), context = "default", tool = "cmd.run", args, deadlineSecs = 60 } = invoke;
      const inner = message(
        [1, invoke.token ?? ""],
        [2, invoke.tenant ?? "acme"],
        ...(invoke.innerContext === undefined ? [] : [[3, invoke.innerContext] as const]),
      );
      const fields: Field[] = [
        [1, commandId],
        [2, context],
        ...(invoke.withoutEnvelope ? [] : [[3, inner] as const]),
        [4, tool],
        ...(args ? [[5, struct(args)] as const] : []),
        [6, message([1, deadlineSecs])],
        ...(invoke.extra ?? []),
      ];
      command([1, message(...fields)]);
      return commandId;
    },
    cancel: (commandId) => command([2, message([1, commandId])]),
    result: (commandId) => resultOf(commandId).promise,
    hangUp: () => newest?.end(),
    close: () => server.close(),
  };
}

/** All that is looked at of a Hello: the `sub` of a token that nobody verifies. */
function isKnown(event: Fields, known: readonly string[] | undefined): boolean {
  const parts = event.sub(1).sub(1).text(1).split(".");
  if (!event.has(1) || parts.length !== 3) return false;
  const { sub } = JSON.parse(Buffer.from(parts[1] ?? "", "base64url").toString("utf8")) as { sub: string };
  return known?.includes(sub) ?? true;
}
