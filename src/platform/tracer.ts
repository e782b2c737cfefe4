/** Spans as whoever does the work sees them: begun, described, ended. Where they go to is somebody else's concern. */
import type { LogFields } from "./log.ts";
import type { TraceContext } from "./trace-context.ts";

/** Names of tools and hosts, ids, counts: never arguments, output or secrets. */
export type SpanFacts = Readonly<Record<string, string | number | boolean>>;

export interface Span {
  /** What belongs under it is begun with this, here and on other machines; null when nobody traces. */
  readonly context: TraceContext | null;
  /** Once. `problem` is what made it fail, as a word; null when nothing did. */
  end(facts: SpanFacts, problem: string | null): void;
}

export interface Tracer {
  /** `server` does what somebody asked for, `client` asks another machine, `internal` is a part of either. */
  begin(name: string, kind: "server" | "client" | "internal", parent: TraceContext | null, facts: SpanFacts): Span;
}

/** Keeps nothing. What a caller sent is still handed on, so that a trace goes through. */
export const noTracer: Tracer = {
  begin: (_name, _kind, parent) => ({ context: parent, end: () => {} }),
};

/** What joins a line of the log to a trace. */
export const traceFields = (context: TraceContext | null): LogFields =>
  context === null ? {} : { trace_id: context.traceId, span_id: context.spanId };

/** Longest name of a span or text of a fact that others choose, in characters. */
const maxChars = 128;
export const short = (text: string): string => (text.length > maxChars ? `${text.slice(0, maxChars)}...` : text);
