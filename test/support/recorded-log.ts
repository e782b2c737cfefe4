/** A log that a test can read. */
import { createLog, type Log, type LogLevel } from "../../src/platform/log.ts";

export interface RecordedLog extends Log {
  lines: Record<string, unknown>[];
  /** The names of all events so far. */
  events(): unknown[];
  find(event: string): Record<string, unknown> | undefined;
}

export function recordedLog(level: LogLevel = "debug"): RecordedLog {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>);
  const log = createLog({ level, now: () => 0, write });
  return {
    ...log,
    lines,
    events: () => lines.map((line) => line.event),
    find: (event) => lines.find((line) => line.event === event),
  };
}
