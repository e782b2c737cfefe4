/** The log of a program that runs for long: JSON lines on stderr. */
import { createLog, type Log, type LogLevel } from "../platform/log.ts";

export const jsonLog = (level: LogLevel): Log =>
  createLog({ level, now: Date.now, write: (line) => void process.stderr.write(`${line}\n`) });
