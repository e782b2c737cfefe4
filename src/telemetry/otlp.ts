/** Telemetry by OpenTelemetry's own SDK. Loads it, so only those who have a collector import this. */
import { ROOT_CONTEXT, SeverityNumber, SpanKind, SpanStatusCode, TraceFlags, trace } from "@opentelemetry/api";
import { type ISerializer, ProtobufLogsSerializer, ProtobufTraceSerializer } from "@opentelemetry/otlp-transformer";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { OtlpConfig } from "../config/otlp.ts";
import type { LogLevel, Secret } from "../platform/log.ts";
import type { TraceContext } from "../platform/trace-context.ts";
import type { Tracer } from "../platform/tracer.ts";
import { version } from "../version.ts";
import { type Collector, openCollector, type Signal } from "./collector.ts";
import { attributesOf, watchLog } from "./log-records.ts";
import { lastFlushMs, type Telemetry, type TelemetryOptions } from "./telemetry.ts";
import { countLosses, maxWaiting, type WaitingRoom, waitingRoom } from "./waiting-room.ts";

/** A record leaves this long after it was made, or when so many are there. */
const batch = { scheduledDelayMillis: 1_000, maxExportBatchSize: 512, maxQueueSize: maxWaiting };
/** The collector gives up before; this is the SDK's own patience. */
const exportTimeoutMillis = 15_000;
/** What is longer or more is cut: 2 048 records of either kind stay a few MiB. */
const recordLimits = { attributeCountLimit: 32, attributeValueLengthLimit: 512 };

const scope = "aegis";
const kinds = { server: SpanKind.SERVER, client: SpanKind.CLIENT, internal: SpanKind.INTERNAL } as const;
const severities: Readonly<Record<LogLevel, SeverityNumber>> = {
  debug: SeverityNumber.DEBUG,
  info: SeverityNumber.INFO,
  warn: SeverityNumber.WARN,
  error: SeverityNumber.ERROR,
};

export async function otlpTelemetry(
  options: TelemetryOptions & { config: OtlpConfig; headers: Readonly<Record<string, Secret>> },
): Promise<Telemetry> {
  const { config, headers, env, clock, log } = options;
  const losses = countLosses(log, config.url);
  const collector = openCollector({ config, headers, env, clock, onTrouble: losses.trouble });
  const resource = resourceFromAttributes({ ...options.resource, ...config.resource });

  const spanRoom = waitingRoom(losses);
  const spans = new BatchSpanProcessor({
    ...batch,
    exportTimeoutMillis,
    exporter: exporter("traces", ProtobufTraceSerializer, { collector, room: spanRoom, delivered: losses.delivered }),
  });
  const tracing = new TracerProvider({
    resource,
    spanLimits: recordLimits,
    sampler: new ParentBasedSampler({
      root: config.sampleRatio === 1 ? new AlwaysOnSampler() : new TraceIdRatioBasedSampler(config.sampleRatio),
    }),
    spanProcessors: [
      {
        onStart() {},
        onEnd(span) {
          if (spanRoom.enter()) spans.onEnd(span);
        },
        forceFlush: () => spans.forceFlush(),
        shutdown: () => spans.shutdown(),
      },
    ],
  });

  const logRoom = waitingRoom(losses);
  const lines = new BatchLogRecordProcessor({
    ...batch,
    exportTimeoutMillis,
    exporter: exporter("logs", ProtobufLogsSerializer, { collector, room: logRoom, delivered: losses.delivered }),
  });
  const logging = new LoggerProvider({ resource, logRecordLimits: recordLimits, processors: [lines] });
  const logger = logging.getLogger(scope, version);

  return {
    tracer: tracerOf(tracing),
    watch: (inner, least) =>
      watchLog(inner, (level, event, fields) => {
        if (severities[level] < severities[least] || !logRoom.enter()) return;
        const { attributes, traceId, spanId } = attributesOf(fields);
        const joined = traceId !== undefined && spanId !== undefined;
        logger.emit({
          ...{ severityNumber: severities[level], severityText: level.toUpperCase(), body: event, eventName: event },
          ...{ attributes, timestamp: clock.now() },
          context: joined
            ? trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags: TraceFlags.SAMPLED })
            : ROOT_CONTEXT,
        });
      }),
    async close() {
      collector.hurry();
      const patience = new AbortController();
      const sent = Promise.allSettled([tracing.shutdown(), logging.shutdown()]);
      await Promise.race([sent, clock.sleep(lastFlushMs, patience.signal)]);
      patience.abort();
      collector.close();
      losses.lose(spanRoom.waiting + logRoom.waiting);
      losses.tellRest();
    },
  };
}

interface Way {
  collector: Collector;
  room: WaitingRoom;
  delivered(): void;
}

interface Answer {
  partialSuccess?: { rejectedSpans?: unknown; rejectedLogRecords?: unknown };
}

/** What the SDK's batches are given to; the outcome is counted here, so the SDK hears only that the batch is done with. */
function exporter<T>(signal: Signal, serializer: ISerializer<T[], Answer>, { collector, room, delivered }: Way) {
  const send = async (records: T[]): Promise<void> => {
    const body = serializer.serializeRequest(records);
    const answer = body && (await collector.send(signal, body));
    if (answer) delivered();
    room.leave(records.length, answer ? rejected(serializer, answer) : records.length);
  };
  return {
    export: (records: T[], done: (result: { code: number }) => void) =>
      void send(records).finally(() => done({ code: 0 })),
    forceFlush: async () => {},
    shutdown: async () => {},
  };
}

function rejected<T>(serializer: ISerializer<T[], Answer>, answer: Uint8Array): number {
  if (answer.length === 0) return 0;
  try {
    const { partialSuccess } = serializer.deserializeResponse(answer);
    return Number(partialSuccess?.rejectedSpans ?? partialSuccess?.rejectedLogRecords ?? 0) || 0;
  } catch {
    return 0;
  }
}

function tracerOf(provider: TracerProvider): Tracer {
  const tracer = provider.getTracer(scope, version);
  return {
    begin(name, kind, parent, facts) {
      const above = parent
        ? trace.setSpanContext(ROOT_CONTEXT, { ...remote(parent), isRemote: kind === "server" })
        : ROOT_CONTEXT;
      const span = tracer.startSpan(name, { kind: kinds[kind], attributes: { ...facts } }, above);
      const { traceId, spanId, traceFlags } = span.spanContext();
      return {
        context: { traceId, spanId, sampled: (traceFlags & TraceFlags.SAMPLED) !== 0, state: parent?.state ?? "" },
        end(more, problem) {
          span.setAttributes({ ...more });
          if (problem !== null) span.setStatus({ code: SpanStatusCode.ERROR, message: problem });
          span.end();
        },
      };
    },
  };
}

const remote = ({ traceId, spanId, sampled }: TraceContext) => ({
  ...{ traceId, spanId },
  traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
});
