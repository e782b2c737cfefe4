/** For commands that do a daemon's work: what it would log as a problem is said to the person. */
import { AegisError } from "../../errors.ts";
import { type Log, silentLog } from "../../platform/log.ts";
import type { Terminal } from "../terminal.ts";

export const noted = (terminal: Terminal): Log => ({
  ...silentLog,
  warn(event, fields = {}) {
    const { message, error } = fields;
    const why = error === undefined ? message : AegisError.from(error).message;
    terminal.warn(typeof why === "string" ? why : event);
  },
  error(event, fields = {}) {
    terminal.warn(`${event}: ${fields.error === undefined ? "" : AegisError.from(fields.error).message}`);
  },
});
