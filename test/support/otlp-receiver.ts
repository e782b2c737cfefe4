/** A collector: takes OTLP over gRPC as the specification writes it, and remembers what it was told. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Metadata, Server, ServerCredentials, type sendUnaryData, status } from "@grpc/grpc-js";
import protobuf from "protobufjs";

export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string;
  name: string;
  kind: string;
  failed: boolean;
  attributes: Record<string, unknown>;
  resource: Record<string, unknown>;
}

export interface ReceivedLine {
  traceId: string;
  spanId: string;
  body: string;
  severity: string;
  attributes: Record<string, unknown>;
  resource: Record<string, unknown>;
}

export interface OtlpReceiver {
  port: number;
  spans: ReceivedSpan[];
  lines: ReceivedLine[];
  /** The metadata of each export. */
  exports: Record<string, unknown>[];
  /** `hang`: takes everything and answers nothing. */
  behave(how: "take" | "hang" | "refuse"): void;
  /** Everything that came, as text. */
  text(): string;
  stop(): void;
}

export interface ReceiverOptions {
  /** 0 = any free one. */
  port?: number;
  tls?: { certPem: string; keyPem: string };
}

type Message = Record<string, unknown>;
const list = (message: unknown, name: string): Message[] => ((message as Message)[name] as Message[] | undefined) ?? [];
const hex = (bytes: unknown): string => Buffer.from((bytes as string | undefined) ?? "", "base64").toString("hex");

function attributes(from: unknown): Record<string, unknown> {
  const named = list(from, "attributes").map(({ key, value }) => [key, Object.values(value as Message)[0]]);
  return Object.fromEntries(named) as Record<string, unknown>;
}

export async function otlpReceiver({ port = 0, tls }: ReceiverOptions = {}): Promise<OtlpReceiver> {
  const { root } = protobuf.parse(readFileSync(join(import.meta.dir, "otlp.proto"), "utf8"));
  const plain = (type: string, body: Uint8Array): Message => {
    const found = root.lookupType(`otlp.${type}`);
    return found.toObject(found.decode(body), { bytes: String, longs: Number, enums: String });
  };
  let how: "take" | "hang" | "refuse" = "take";
  const server = new Server();
  const receiver: OtlpReceiver = {
    ...{ port, spans: [], lines: [], exports: [] },
    behave(next) {
      how = next;
    },
    text: () => JSON.stringify([receiver.spans, receiver.lines, receiver.exports]),
    stop: () => server.forceShutdown(),
  };

  function takeSpans(body: Uint8Array): void {
    for (const { resource, scopeSpans } of list(plain("TraceRequest", body), "resourceSpans"))
      for (const scope of scopeSpans as Message[])
        for (const span of list(scope, "spans"))
          receiver.spans.push({
            ...{ traceId: hex(span.traceId), spanId: hex(span.spanId), parentSpanId: hex(span.parentSpanId) },
            ...{ name: span.name as string, kind: span.kind as string },
            failed: (span.status as Message | undefined)?.code === "STATUS_CODE_ERROR",
            ...{ attributes: attributes(span), resource: attributes(resource) },
          });
  }

  function takeLines(body: Uint8Array): void {
    for (const { resource, scopeLogs } of list(plain("LogsRequest", body), "resourceLogs"))
      for (const scope of scopeLogs as Message[])
        for (const line of list(scope, "logRecords"))
          receiver.lines.push({
            ...{ traceId: hex(line.traceId), spanId: hex(line.spanId) },
            ...{ body: Object.values(line.body as Message)[0] as string, severity: line.severityText as string },
            ...{ attributes: attributes(line), resource: attributes(resource) },
          });
  }

  const method = (path: string, take: (body: Uint8Array) => void) => ({
    [path]: {
      path,
      ...{ requestStream: false, responseStream: false },
      requestSerialize: (bytes: Buffer) => bytes,
      requestDeserialize: (bytes: Buffer) => bytes,
      responseSerialize: (bytes: Buffer) => bytes,
      responseDeserialize: (bytes: Buffer) => bytes,
      take,
    },
  });
  const methods = {
    ...method("/opentelemetry.proto.collector.trace.v1.TraceService/Export", takeSpans),
    ...method("/opentelemetry.proto.collector.logs.v1.LogsService/Export", takeLines),
  };
  const handlers = Object.fromEntries(
    Object.entries(methods).map(([path, { take }]) => [
      path,
      ({ request, metadata }: { request: Buffer; metadata: Metadata }, answer: sendUnaryData<Buffer>) => {
        receiver.exports.push(metadata.getMap());
        if (how === "hang") return;
        if (how === "refuse") return answer({ code: status.UNAUTHENTICATED, details: "who are you?" });
        take(request);
        answer(null, Buffer.alloc(0));
      },
    ]),
  );
  server.addService(methods, handlers);
  const credentials = tls
    ? ServerCredentials.createSsl(null, [
        { cert_chain: Buffer.from(tls.certPem), private_key: Buffer.from(tls.keyPem) },
      ])
    : ServerCredentials.createInsecure();
  receiver.port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return receiver;
}
