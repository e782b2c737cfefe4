/** launchd keeps the daemon running on macOS: its property list, the words launchctl is given, and what it says back. */
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import {
  type ManagerOptions,
  marker,
  type ServiceManager,
  type ServiceSpec,
  type ServiceStatus,
  stamped,
} from "./spec.ts";

export const label = "io.aegis.edge";

/** Seconds that launchd waits after SIGTERM: the daemon gives its calls 20. */
const exitTimeoutSeconds = 30;

type AgentSpec = Pick<ServiceSpec, "executable" | "configPath" | "stateDir" | "env">;

export const plistPath = (home: string): string => join(home, "Library/LaunchAgents", `${label}.plist`);
const logPaths = (stateDir: string): { out: string; err: string } => ({
  out: join(stateDir, "logs/aegis-edge.out.log"),
  err: join(stateDir, "logs/aegis-edge.err.log"),
});

const escaped = (text: string): string =>
  text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

type Value = string | boolean | number | readonly Value[] | { readonly [key: string]: Value };

function render(value: Value, indent: string): string {
  if (typeof value === "string") return `${indent}<string>${escaped(value)}</string>\n`;
  if (typeof value === "number") return `${indent}<integer>${value}</integer>\n`;
  if (typeof value === "boolean") return `${indent}<${value}/>\n`;
  if (Array.isArray(value))
    return `${indent}<array>\n${value.map((one) => render(one, `${indent}  `)).join("")}${indent}</array>\n`;
  const pairs = Object.entries(value).map(
    ([key, inner]) => `${indent}  <key>${escaped(key)}</key>\n${render(inner, `${indent}  `)}`,
  );
  return `${indent}<dict>\n${pairs.join("")}${indent}</dict>\n`;
}

/** The whole file. It ends with nothing of its own run at load but the daemon. */
export function plist({ executable, configPath, stateDir, env }: AgentSpec): string {
  const { out, err } = logPaths(stateDir);
  const job: Value = {
    Label: label,
    ProgramArguments: [executable, "edge", "run", "--config", configPath],
    RunAtLoad: true,
    // Started again after a crash, not after a clean stop; NetworkState is in the page but no system since 10.10 acts on it.
    KeepAlive: { SuccessfulExit: false, NetworkState: true },
    ExitTimeOut: exitTimeoutSeconds,
    ThrottleInterval: 10,
    Umask: 0o077,
    ...(Object.keys(env).length > 0 ? { EnvironmentVariables: { ...env } } : {}),
    StandardOutPath: out,
    StandardErrorPath: err,
  };
  return `<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n<!-- ${marker} -->\n<plist version="1.0">\n${render(job, "  ")}</plist>\n`;
}

/** What launchctl is given, in the order to try; the older verbs are for systems without the newer. */
export const launchctl = {
  start: (uid: number, path: string): string[][] => [
    ["bootstrap", `gui/${uid}`, path],
    ["load", "-w", path],
  ],
  stop: (uid: number, path: string): string[][] => [
    ["bootout", `gui/${uid}/${label}`],
    ["unload", "-w", path],
  ],
  restart: (uid: number): string[][] => [["kickstart", "-k", `gui/${uid}/${label}`]],
  status: (): string[] => ["list", label],
  environment: (name: string): string[] => ["getenv", name],
} as const;

export type AgentStatus =
  | { kind: "running"; pid: number }
  | { kind: "stopped"; lastExit: number | null }
  | { kind: "not_loaded" };

/** Reads what `launchctl list LABEL` prints; a status other than 0 means that the job is not loaded. */
export function readStatus(exit: number | null, stdout: string): AgentStatus {
  if (exit !== 0) return { kind: "not_loaded" };
  const number = (key: string) => {
    const text = new RegExp(`"${key}"\\s*=\\s*(-?\\d+);`).exec(stdout)?.[1];
    return text === undefined ? null : Number(text);
  };
  const pid = number("PID");
  if (pid !== null && pid > 0) return { kind: "running", pid };
  return { kind: "stopped", lastExit: number("LastExitStatus") };
}

const userId = (): number => process.getuid?.() ?? 0;

/** The first of `attempts` that launchctl takes. */
async function firstThatWorks({ run }: ManagerOptions, attempts: readonly (readonly string[])[]): Promise<void> {
  const said: string[] = [];
  for (const words of attempts) {
    const end = await run("launchctl", words, { timeoutMs: 30_000 });
    if (end.status === 0) return;
    said.push(`launchctl ${words.join(" ")}: ${(end.stderr || end.stdout).trim() || `ended with ${end.status}`}`);
  }
  throw new AegisError("internal", said.join("; "), { hint: "aegis edge service status" });
}

export const launchd: ServiceManager = {
  name: "launchd",
  files: (spec) => [stamped({ path: plistPath(spec.home), text: plist(spec) })],
  print: plist,
  kept: async () => "same",
  async obstacle(spec) {
    if (spec.runAs === null) return null;
    return new AegisError(
      "usage",
      "--system is for Linux; on macOS the daemon is an agent of the user who enrolled it",
    );
  },
  async activate(spec, options) {
    const path = plistPath(spec.home);
    // What is loaded already would keep the old list.
    await options.run("launchctl", launchctl.stop(userId(), path)[0] ?? [], { timeoutMs: 40_000 });
    await firstThatWorks(options, launchctl.start(userId(), path));
  },
  async deactivate({ home }, options) {
    if ((await launchd.status({ home, runAs: null, stateDir: "" }, options)).state === "missing") return;
    await firstThatWorks(options, launchctl.stop(userId(), plistPath(home)));
  },
  async reload() {},
  restart: (_owner, options) => firstThatWorks(options, launchctl.restart(userId())),
  linger: async () => "it runs while you are logged in: an agent ends with its user's session",
  async status(_owner, { run }): Promise<ServiceStatus> {
    const end = await run("launchctl", launchctl.status(), { timeoutMs: 10_000 });
    const status = readStatus(end.status, end.stdout);
    const base = { restarts: null, enabled: status.kind !== "not_loaded" };
    if (status.kind === "running") return { ...base, state: "running", pid: status.pid, detail: "" };
    if (status.kind === "not_loaded") return { ...base, state: "missing", pid: null, detail: "" };
    const failed = status.lastExit !== null && status.lastExit !== 0;
    return {
      ...base,
      state: failed ? "failed" : "stopped",
      pid: null,
      detail: failed ? `last exit status ${status.lastExit}` : "",
    };
  },
  logs({ stateDir }) {
    const { out, err } = logPaths(stateDir);
    return { files: [err, out] };
  },
};
