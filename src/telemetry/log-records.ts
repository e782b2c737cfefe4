/** Lines of the log as records of a collector: the same fields, as plain attributes. */
import { type Log, type LogFields, type LogLevel, plain } from "../platform/log.ts";

export type Emit = (level: LogLevel, event: string, fields: LogFields) => void;

/** `emit` gets each line's own fields and those bound to its log. */
export function watchLog(log: Log, emit: Emit, bound: LogFields = {}): Log {
  const both =
    (level: LogLevel): Log["info"] =>
    (event, fields) => {
      log[level](event, fields);
      emit(level, event, { ...bound, ...fields });
    };
  return {
    ...{ debug: both("debug"), info: both("info"), warn: both("warn"), error: both("error") },
    with: (fields) => watchLog(log.with(fields), emit, { ...bound, ...fields }),
  };
}

type Attribute = string | number | boolean;

/** What joins a line to its trace is told apart. What is no plain value is told as JSON, in which a Secret is redacted. */
export function attributesOf({ trace_id: traceId, span_id: spanId, ...fields }: LogFields): {
  attributes: Record<string, Attribute>;
  traceId?: string;
  spanId?: string;
} {
  const attributes: Record<string, Attribute> = {};
  for (const [name, value] of Object.entries(fields)) {
    const said = attribute(value);
    if (said !== undefined) attributes[name] = said;
  }
  return {
    attributes,
    ...(typeof traceId === "string" && typeof spanId === "string" ? { traceId, spanId } : {}),
  };
}

function attribute(value: unknown): Attribute | undefined {
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") return value;
  const said = plain("", value);
  return typeof said === "string" ? said : JSON.stringify(said, plain);
}
