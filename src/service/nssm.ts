/** NSSM keeps the daemon running on Windows: what it is set to, the words it is given, and what it says back. */
import { win32 } from "node:path";
import { AegisError } from "../errors.ts";
import type { ProgramEnd } from "../platform/run-program.ts";
import type { Kept, ManagerOptions, ServiceManager, ServiceSpec, ServiceState } from "./spec.ts";

const serviceName = "aegis-edge";

/** Milliseconds that NSSM waits after Ctrl-C: the daemon gives its calls 20 s. */
const stopMs = 28_000;
const rotateBytes = 10_485_760;

type NssmSpec = Pick<ServiceSpec, "executable" | "configPath" | "stateDir" | "env">;

export interface Descriptor {
  name: string;
  displayName: string;
  description: string;
  executable: string;
  arguments: string;
  startup: "automatic";
  stdout: string;
  stderr: string;
  rotateLogs: boolean;
  rotateLogsBytes: number;
}

/** As `--print` shows it. Paths are absolute: the service runs as another account and has another profile. */
export function descriptor({ executable, configPath, stateDir }: NssmSpec): Descriptor {
  return {
    name: serviceName,
    displayName: "AEGIS Edge Daemon",
    description: "AEGIS edge daemon — receives MCP tool calls via SEAL.",
    executable,
    arguments: ["edge", "run", "--config", configPath].map(quoted).join(" "),
    startup: "automatic",
    stdout: win32.join(stateDir, "logs", "aegis-edge.out.log"),
    stderr: win32.join(stateDir, "logs", "aegis-edge.err.log"),
    rotateLogs: true,
    rotateLogsBytes: rotateBytes,
  };
}

/** One argument as Windows programs split a command line: quoted when needed, backslashes doubled before a quote. */
export function quoted(word: string): string {
  if (word !== "" && !/[\s"]/.test(word)) return word;
  return `"${word.replace(/(\\*)"/g, '$1$1\\"').replace(/(\\+)$/, "$1$1")}"`;
}

/** Every call of nssm that makes the service what `descriptor` says; a second round changes nothing. */
export function installCommands(spec: NssmSpec): string[][] {
  const {
    name,
    displayName,
    description,
    executable,
    arguments: parameters,
    stdout,
    stderr,
    rotateLogsBytes,
  } = descriptor(spec);
  const variables = Object.entries(spec.env).map(([key, value]) => `${key}=${value}`);
  const environment =
    variables.length > 0 ? ["set", name, "AppEnvironmentExtra", ...variables] : ["reset", name, "AppEnvironmentExtra"];
  return [
    ["install", name, executable],
    ...settings().map(([key, ...values]) => ["set", name, key, ...values]),
    environment,
  ];

  function settings(): [string, ...string[]][] {
    return [
      ["Application", executable],
      ["AppParameters", parameters],
      ["AppDirectory", spec.stateDir],
      ["DisplayName", displayName],
      ["Description", description],
      ["Start", "SERVICE_AUTO_START"],
      ["AppStdout", stdout],
      ["AppStderr", stderr],
      ["AppRotateFiles", "1"],
      ["AppRotateOnline", "1"],
      ["AppRotateBytes", String(rotateLogsBytes)],
      ["AppStopMethodConsole", String(stopMs)],
      ["AppExit", "Default", "Restart"],
      // Not enrolled, or settings that cannot be read: starting again would not help.
      ["AppExit", "78", "Exit"],
      ["AppRestartDelay", "5000"],
    ];
  }
}

export const words = {
  start: (): string[] => ["start", serviceName],
  stop: (): string[] => ["stop", serviceName],
  restart: (): string[] => ["restart", serviceName],
  status: (): string[] => ["status", serviceName],
  get: (...key: string[]): string[] => ["get", serviceName, ...key],
  remove: (): string[] => ["remove", serviceName, "confirm"],
} as const;

export type NssmStatus = "running" | "stopped" | "paused" | "starting" | "stopping" | "missing" | "unknown";

/** NSSM writes UTF-16 where its output is no console, so zero bytes may stand between the letters. */
export const plainText = (stdout: string): string =>
  stdout
    .replace(/\u0000/g, "")
    .replace(/^\ufeff/, "")
    .trim();

const states: Readonly<Record<string, NssmStatus>> = {
  SERVICE_RUNNING: "running",
  SERVICE_STOPPED: "stopped",
  SERVICE_PAUSED: "paused",
  SERVICE_START_PENDING: "starting",
  SERVICE_STOP_PENDING: "stopping",
};

/** Status 3 means that there is no such service. */
export function readStatus(exit: number | null, stdout: string): NssmStatus {
  if (exit === 3) return "missing";
  return states[plainText(stdout)] ?? "unknown";
}

/** Whether an executable lies where only administrators can replace it: what runs as LocalSystem must. */
export function isProtectedPlace(executable: string, env: Readonly<Record<string, string | undefined>>): boolean {
  const places = [env.ProgramFiles, env["ProgramFiles(x86)"], env.SystemRoot].filter(
    (place) => place !== undefined && place !== "",
  );
  const path = win32.normalize(executable).toLowerCase();
  return places.some((place) =>
    path.startsWith(
      `${win32
        .normalize(place ?? "")
        .toLowerCase()
        .replace(/\\+$/, "")}\\`,
    ),
  );
}

/** nssm64.exe lies beside aegis.exe; else wherever PATH has it. */
const helper = (executable: string): string[] => [
  win32.join(win32.dirname(executable), "nssm64.exe"),
  "nssm64.exe",
  "nssm.exe",
];

async function call(
  { run }: ManagerOptions,
  args: readonly string[],
  executable = process.execPath,
): Promise<ProgramEnd> {
  let end: ProgramEnd = { status: null, stdout: "", stderr: "" };
  for (const program of helper(executable)) {
    end = await run(program, args, { timeoutMs: 45_000 });
    if (end.status !== null) break;
  }
  return end;
}

function failure(args: readonly string[], { stdout, stderr, status }: ProgramEnd): AegisError {
  const said = plainText(stderr) || plainText(stdout) || `ended with ${status}`;
  const hint = /denied|administrator/i.test(said)
    ? 'run it in a terminal that was opened with "Run as administrator"'
    : "aegis edge service status";
  return new AegisError("internal", `nssm ${args.join(" ")}: ${said}`, { hint });
}

async function must(options: ManagerOptions, args: readonly string[]): Promise<void> {
  const end = await call(options, args);
  if (end.status !== 0) throw failure(args, end);
}

const serviceStates: Readonly<Record<NssmStatus, ServiceState>> = {
  running: "running",
  stopped: "stopped",
  paused: "failed",
  starting: "starting",
  stopping: "stopped",
  missing: "missing",
  unknown: "failed",
};

export const nssm: ServiceManager = {
  name: "nssm",
  files: () => [],
  print: (spec) => `${JSON.stringify(descriptor(spec), null, 2)}\n`,
  kept,
  async obstacle(spec: ServiceSpec, options) {
    const end = await call(options, words.status(), spec.executable);
    if (end.status === null)
      return new AegisError("unprocessable", `nssm64.exe is neither beside ${spec.executable} nor on the Path`, {
        hint: "install aegis again: iwr -useb https://get.100monkeys.ai | iex",
      });
    if (spec.runAs !== null)
      return new AegisError("usage", "--system is for Linux; a Windows service belongs to the system anyway");
    return options.force ? null : await unsafePlace(spec.executable, options);
  },
  async activate(spec, options) {
    const present = readStatus(...statusOf(await call(options, words.status()))) !== "missing";
    const [install, ...settings] = installCommands(spec);
    if (install && !present) await must(options, install);
    for (const setting of settings) await must(options, setting);
    await must(options, present ? words.restart() : words.start());
  },
  async deactivate(_owner, options) {
    if (readStatus(...statusOf(await call(options, words.status()))) === "missing") return;
    await call(options, words.stop());
    await must(options, words.remove());
  },
  async reload() {},
  restart: (_owner, options) => must(options, words.restart()),
  linger: async (_owner, _user, { env }) =>
    isProtectedPlace(process.execPath, env)
      ? null
      : `${process.execPath} runs as LocalSystem and lies where your account can replace it; a safer place is ${win32.join(env.ProgramFiles ?? "C:\\Program Files", "aegis")}`,
  async status(_owner, options) {
    const end = await call(options, words.status());
    const state = readStatus(...statusOf(end));
    const detail =
      state === "paused"
        ? "it ended too often in a row; aegis edge service restart"
        : state === "unknown"
          ? plainText(end.stdout || end.stderr)
          : "";
    return { state: serviceStates[state], pid: null, detail, restarts: null, enabled: state !== "missing" };
  },
  logs({ stateDir }) {
    return { files: ["err", "out"].map((pipe) => win32.join(stateDir, "logs", `aegis-edge.${pipe}.log`)) };
  },
};

/** Who may write an executable that then runs as LocalSystem, besides the account that installs it. */
const trustedWriters = [/\\SYSTEM$/i, /\\Administrators$/i, /\\TrustedInstaller$/i];

/** Names that icacls lists with a right to write: full access, modify, write. */
export function writersOf(icacls: string, path: string): string[] {
  return icacls
    .replace(path, "")
    .split("\n")
    .flatMap((line) => {
      const [, name = "", rights = ""] = /^\s*(\S.*?):((?:\([^)]*\))+)\s*$/.exec(line.replace(/\r$/, "")) ?? [];
      return /\((?:[^)]*,)?(?:F|M|W|WD|GA|GW)(?:,[^)]*)?\)/.test(rights) ? [name] : [];
    });
}

async function unsafePlace(executable: string, { run, env }: ManagerOptions): Promise<AegisError | null> {
  if (isProtectedPlace(executable, env)) return null;
  const { status, stdout } = await run("icacls", [executable], { timeoutMs: 20_000 });
  const own = `\\${env.USERNAME ?? ""}`.toLowerCase();
  const writers = writersOf(stdout, executable);
  const isTrusted = (name: string) => name.toLowerCase().endsWith(own) || trustedWriters.some((one) => one.test(name));
  const others = writers.filter((name) => !isTrusted(name));
  if (status === 0 && writers.length > 0 && others.length === 0) return null;
  const who = others.length > 0 ? `which ${others.join(", ")} can change` : "and who can change it cannot be told";
  return new AegisError("forbidden", `the service would run ${executable} as LocalSystem, ${who}`, {
    hint: `move it to ${win32.join(env.ProgramFiles ?? "C:\\Program Files", "aegis")}, or install it all the same with --force`,
  });
}

async function kept(spec: ServiceSpec, options: ManagerOptions): Promise<Kept> {
  const get = async (...key: string[]) => lettersOf((await call(options, words.get(...key))).stdout);
  if (readStatus(...statusOf(await call(options, words.status()))) === "missing") return "nothing";
  if ((await get("DisplayName")) !== lettersOf(descriptor(spec).displayName)) return "foreign";
  for (const [, , key = "", ...values] of installCommands(spec).slice(1)) {
    const [wanted, of] = key === "AppExit" ? [values.slice(1), values.slice(0, 1)] : [values, []];
    // Nothing but words for people, in letters that do not survive its way of writing.
    if (key !== "Description" && (await get(key, ...of)) !== lettersOf(wanted.join("\n"))) return "other";
  }
  return "same";
}

/** What is left of a text that NSSM wrote in UTF-16 and that was read as UTF-8: its ASCII, line by line. */
const lettersOf = (text: string): string =>
  plainText(text)
    .split(/[\r\n]+/)
    .map((line) => line.replace(/[^ -~]/g, "").trim())
    .join("\n");

const statusOf = ({ status, stdout }: ProgramEnd): [number | null, string] => [status, stdout];
