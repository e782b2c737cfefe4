/** Keeps the service manager that started this daemon informed: ready, how the connection is, still alive, about to stop. */
import { isEmbedded } from "../native/find.ts";
import { launcherDirs } from "../native/launcher.ts";
import { openNotifier } from "../native/notify.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import type { RunProgram } from "../platform/run-program.ts";
import type { StatusReport } from "./status.ts";

export interface ServiceNotifications {
  /** `status` is what people are shown; default: that of a daemon that begins to connect. */
  ready(status?: string): void;
  state(state: StatusReport["state"]): void;
  /** The settings are being read again, until `reloaded`. */
  reloading(): void;
  reloaded(): void;
  stopping(): void;
}

export interface ServiceNotifyOptions {
  stateDir: string;
  env: Environment;
  clock: Clock;
  log: Log;
  run: RunProgram;
  /** Ends the watchdog's feeding. */
  signal: AbortSignal;
}

const words: Readonly<Record<StatusReport["state"], string>> = {
  connecting: "connecting to the controller",
  connected: "connected",
  waiting: "not connected; waiting for the next attempt",
  stopped: "stopped",
};

/** Null when nobody who listens has started this process. */
export async function serviceNotifications(options: ServiceNotifyOptions): Promise<ServiceNotifications | null> {
  const { stateDir, env, clock, log, run, signal } = options;
  const dirs = launcherDirs(stateDir, env);
  const notifier = await openNotifier({ env, dirs, run, warn: (why) => log.warn("notify_by_command", { why }) });
  if (!notifier) return null;
  // One after the other: a later word must not overtake an earlier one.
  let last: Promise<void> = Promise.resolve();
  const say = (message: string) => {
    last = last.then(async () => {
      const problem = await notifier.send(message);
      if (problem) log.warn("notify_failed", { problem });
    });
  };
  let isReady = false;

  async function feed(everyMs: number): Promise<void> {
    while (!signal.aborted) {
      say("WATCHDOG=1");
      await clock.sleep(everyMs, signal);
    }
  }

  return {
    ready(status = words.connecting) {
      isReady = true;
      say(`READY=1\nSTATUS=${status}`);
      if (notifier.watchdogMs !== null) void feed(notifier.watchdogMs);
    },
    state(state) {
      if (!isReady) return;
      say(`STATUS=${words[state]}`);
    },
    reloading: () => say("RELOADING=1"),
    reloaded: () => say("READY=1"),
    stopping: () => say("STOPPING=1\nSTATUS=finishing the calls that run"),
  };
}

/** Whether this executable can speak to systemd from its own process. */
export const canNotify = (): Promise<boolean> => isEmbedded("aegis-notify");
