/** gRPC by hand over HTTP/2: length-prefixed messages, trailers for the status. No library's opinion of it in between. */
import {
  type ClientHttp2Stream,
  connect,
  constants,
  createSecureServer,
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { AddressInfo } from "node:net";

export interface Status {
  code: number;
  message: string;
}

export class StatusError extends Error {
  readonly status: Status;
  constructor(status: Status) {
    super(`gRPC status ${status.code}: ${status.message}`);
    this.status = status;
  }
}

const framed = (data: Uint8Array): Buffer => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(data.length, 1);
  return Buffer.concat([head, data]);
};

/** Cuts a byte stream into messages. */
function deframe(onMessage: (data: Buffer) => void): (chunk: Buffer) => void {
  let held = Buffer.alloc(0);
  return (chunk) => {
    held = Buffer.concat([held, chunk]);
    for (;;) {
      if (held.length < 5) return;
      const length = held.readUInt32BE(1);
      if (held[0] !== 0) throw new Error("a compressed message, which nobody asked for");
      if (held.length < 5 + length) return;
      const data = Buffer.from(held.subarray(5, 5 + length));
      held = held.subarray(5 + length);
      onMessage(data);
    }
  };
}

/** Messages in the order they came, for one reader, who waits for the next. */
function arrivals() {
  const waiting: Buffer[] = [];
  let wake: (() => void) | null = null;
  let over = false;
  const ring = () => {
    wake?.();
    wake = null;
  };
  return {
    put(data: Buffer) {
      waiting.push(data);
      ring();
    },
    end() {
      over = true;
      ring();
    },
    messages: {
      async *[Symbol.asyncIterator]() {
        for (;;) {
          const next = waiting.shift();
          if (next) yield next;
          else if (over) return;
          else await new Promise<void>((resolve) => (wake = resolve));
        }
      },
    },
  };
}

const statusOf = (headers: IncomingHttpHeaders): Status | null =>
  headers["grpc-status"] === undefined
    ? null
    : { code: Number(headers["grpc-status"]), message: decodeURIComponent(String(headers["grpc-message"] ?? "")) };

export interface PeerCall {
  send(data: Uint8Array): void;
  end(): void;
  /** Resets the stream, as a process does that dies. */
  cancel(): void;
  /** Resolves when response headers came; rejects with the status when the call was refused instead. */
  readonly headers: Promise<void>;
  readonly messages: AsyncIterable<Buffer>;
  readonly status: Promise<Status>;
}

export interface PeerChannel {
  open(path: string): PeerCall;
  unary(path: string, request: Uint8Array): Promise<Buffer>;
  close(): void;
}

/** One TCP connection. `url` has a scheme; `ca` is PEM; `headers` go with every call. */
export function peerChannel(url: string, ca?: string, headers: Record<string, string> = {}): PeerChannel {
  const session = connect(url, ca === undefined ? {} : { ca });
  session.on("error", () => {});

  function open(path: string): PeerCall {
    const stream: ClientHttp2Stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    const arrived = arrivals();
    let over = false;
    let ending: Status | null = null;
    const opened = Promise.withResolvers<void>();
    const status = Promise.withResolvers<Status>();
    opened.promise.catch(() => {});
    const finish = () => {
      if (over) return;
      over = true;
      const last = ending ?? { code: 14, message: "the stream was cut" };
      opened.reject(new StatusError(last));
      status.resolve(last);
      arrived.end();
    };
    stream.on("response", (received) => {
      ending = statusOf(received);
      // A status among the first headers is a refusal, and nothing follows.
      if (!ending) opened.resolve();
    });
    stream.on("trailers", (received) => {
      ending = statusOf(received) ?? ending;
    });
    stream.on("data", deframe(arrived.put));
    stream.on("end", finish);
    stream.on("close", finish);
    stream.on("error", finish);
    return {
      send: (data) => void (!stream.destroyed && !stream.writableEnded && stream.write(framed(data))),
      end: () => void stream.end(),
      cancel: () => stream.close(constants.NGHTTP2_CANCEL),
      headers: opened.promise,
      status: status.promise,
      messages: arrived.messages,
    };
  }

  return {
    open,
    async unary(path, request) {
      const call = open(path);
      call.send(request);
      call.end();
      let answer: Buffer | null = null;
      for await (const data of call.messages) answer = data;
      const status = await call.status;
      if (status.code !== 0 || !answer) throw new StatusError(status);
      return answer;
    },
    close: () => session.destroy(),
  };
}

/** One call as a server sees it. */
export interface ServedCall {
  /** Response headers; sent with the first message when nobody asks for them before. */
  sendHeaders(): void;
  send(data: Uint8Array): void;
  end(status?: Status): void;
  readonly messages: AsyncIterable<Buffer>;
  readonly closed: Promise<void>;
}

export interface PeerServer {
  port: number;
  /** TCP connections accepted so far. */
  readonly connections: number;
  close(): Promise<void>;
}

export type Handler = (path: string, call: ServedCall) => void | Promise<void>;

/** Plaintext unless it is given a certificate. */
export async function peerServer(handler: Handler, tls?: { cert: string; key: string }): Promise<PeerServer> {
  const server = tls ? createSecureServer(tls) : createServer();
  const sessions = new Set<ServerHttp2Session>();
  let connections = 0;
  server.on("session", (session) => {
    connections++;
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", () => {});
  });
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    const closed = Promise.withResolvers<void>();
    const arrived = arrivals();
    let answered = false;
    let trailers: Status = { code: 0, message: "" };
    stream.on("data", deframe(arrived.put));
    stream.on("end", arrived.end);
    stream.on("error", arrived.end);
    stream.on("close", () => {
      arrived.end();
      closed.resolve();
    });
    stream.on("wantTrailers", () => {
      if (stream.destroyed) return;
      stream.sendTrailers({
        "grpc-status": String(trailers.code),
        "grpc-message": encodeURIComponent(trailers.message),
      });
    });
    const sendHeaders = () => {
      if (answered || stream.destroyed) return;
      answered = true;
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    };
    const call: ServedCall = {
      sendHeaders,
      send(data) {
        sendHeaders();
        if (!stream.destroyed) stream.write(framed(data));
      },
      end(status = { code: 0, message: "" }) {
        trailers = status;
        sendHeaders();
        if (!stream.destroyed) stream.end();
      },
      messages: arrived.messages,
      closed: closed.promise,
    };
    void Promise.resolve(handler(String(headers[":path"]), call)).catch((error: unknown) =>
      call.end({ code: 13, message: String(error) }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections;
    },
    close: () =>
      new Promise((resolve) => {
        for (const session of sessions) session.destroy();
        server.close(() => resolve());
      }),
  };
}
