/** Tells the service manager that started this process how it is doing: sd_notify from the main process. */
import type { Environment } from "../platform/paths.ts";
import type { RunProgram } from "../platform/run-program.ts";
import { loadAddon } from "./find.ts";

export interface Notifier {
  /** `addon` sends from this process; `command` runs systemd-notify, which needs NotifyAccess=all. */
  how: "addon" | "command";
  /** Lines such as `READY=1`. Answers what went wrong, or null. */
  send(message: string): Promise<string | null>;
  /** How often the manager wants to hear `WATCHDOG=1`, halved; null when it does not watch. */
  watchdogMs: number | null;
}

export interface NotifierOptions {
  env: Environment;
  /** Where the addon may be placed, best first. */
  dirs: readonly string[];
  run: RunProgram;
  /** Said once when the addon is not to be had. */
  warn?: (why: string) => void;
}

/** null when no service manager listens. */
export async function openNotifier({ env, dirs, run, warn }: NotifierOptions): Promise<Notifier | null> {
  const socket = env.NOTIFY_SOCKET;
  if (!socket || !/^[/@]./.test(socket)) return null;
  const watchdogMs = watchdogInterval(env);
  const addon = await loadAddon("aegis-notify", dirs);
  if (typeof addon !== "string") {
    const notify = addon.notify as (socket: string, message: string) => number;
    const send = async (message: string) => {
      const result = notify(socket, message);
      return result >= 0 ? null : `sd_notify to ${socket} failed with errno ${-result}`;
    };
    return { how: "addon", watchdogMs, send };
  }
  warn?.(addon);
  const send = async (message: string) => {
    const { status, stderr } = await run("systemd-notify", message.split("\n"), { env: { NOTIFY_SOCKET: socket } });
    return status === 0 ? null : `systemd-notify: ${stderr.trim() || `ended with ${status}`}`;
  };
  return { how: "command", watchdogMs, send };
}

function watchdogInterval(env: Environment): number | null {
  const micros = Number(env.WATCHDOG_USEC);
  if (!Number.isInteger(micros) || micros <= 0) return null;
  if (env.WATCHDOG_PID && Number(env.WATCHDOG_PID) !== process.pid) return null;
  return Math.max(1, Math.floor(micros / 2000));
}
