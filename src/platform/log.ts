/** JSON lines for machines: one object a line on stderr, each with `timestamp`, `level` and `event`. */
export type LogLevel = "debug" | "info" | "warn" | "error";
export const logLevels = ["debug", "info", "warn", "error"] as const satisfies readonly LogLevel[];

/** Values that may be logged. A `Secret` prints as `[redacted]`. */
export type LogFields = Record<string, unknown>;

export interface Log {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  /** A log whose every line also carries `fields`. */
  with(fields: LogFields): Log;
}

/** Holds a value that must not reach a log, a terminal or an error by accident. */
export class Secret {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }
  /** The value itself, where it is needed. */
  reveal(): string {
    return this.#value;
  }
  toString(): string {
    return "[redacted]";
  }
  toJSON(): string {
    return "[redacted]";
  }
}

export interface LogOptions {
  level: LogLevel;
  now: () => number;
  /** Takes one line without its newline. */
  write: (line: string, level: LogLevel) => void;
}

export function createLog(options: LogOptions, bound: LogFields = {}): Log {
  const at =
    (level: LogLevel) =>
    (event: string, fields: LogFields = {}) => {
      if (logLevels.indexOf(level) < logLevels.indexOf(options.level)) return;
      const timestamp = new Date(options.now()).toISOString();
      options.write(JSON.stringify({ timestamp, level, event, ...bound, ...fields }, plain), level);
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => createLog(options, { ...bound, ...fields }),
  };
}

/** The same log without what lies below `level`, which may change. */
export function atLeast(level: () => LogLevel, log: Log): Log {
  const keep =
    (at: LogLevel): Log["info"] =>
    (event, fields) => {
      if (logLevels.indexOf(at) >= logLevels.indexOf(level())) log[at](event, fields);
    };
  return {
    debug: keep("debug"),
    info: keep("info"),
    warn: keep("warn"),
    error: keep("error"),
    with: (fields) => atLeast(level, log.with(fields)),
  };
}

/** What JSON cannot say by itself, as something that it can. */
export function plain(_key: string, value: unknown): unknown {
  if (value instanceof Error) return value.message;
  if (typeof value === "bigint") return value.toString();
  return value;
}

export const silentLog: Log = createLog({ level: "error", now: () => 0, write: () => {} });
