/** What the flags and this machine say about the service that is meant. */
import { realpath, stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import { readStatus } from "../../daemon/status.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import { aegisHome, edgeFileNames, resolveFrom } from "../../platform/paths.ts";
import { readProxy } from "../../platform/proxy-env.ts";
import { systemProgram } from "../../platform/system-program.ts";
import { serviceManager } from "../../service/detect.ts";
import type { InstallOptions } from "../../service/manager.ts";
import type { AllowedFolder, ServiceSpec } from "../../service/spec.ts";
import { systemHome, systemUser } from "../../service/system-user.ts";
import { many, type Surroundings } from "../command.ts";
import { edgeDir } from "../options.ts";

export const systemFlag = {
  type: "boolean",
  description: "a service of the whole system, run as the user aegis (Linux, as root)",
} as const;

export const installFlags = {
  force: { type: "boolean", description: "replace a service of the same name that somebody else wrote" },
  "keep-existing": { type: "boolean", description: "leave files that differ as they are, and start what they say" },
  "non-interactive": { type: "boolean", description: "for scripts that give it to every command: these never ask" },
  print: { type: "boolean", description: "print what would be written and change nothing" },
  platform: { type: "string", valueHint: "linux|darwin|windows", description: "with --print: for another platform" },
  system: systemFlag,
  proxy: { type: "string", valueHint: "URL", description: "the way out: HTTPS_PROXY for the daemon" },
  allow: many("PATH[:ro|rw]", "a folder that tools may see (default ro)"),
  "allow-user-bus": { type: "boolean", description: "tools may talk to your service manager; service.* needs it" },
  "allow-jit": { type: "boolean", description: "programs with a JIT may run, such as MCP servers on node" },
  "allow-unsandboxed": { type: "boolean", description: "go on where the system gives no user namespaces" },
} as const;

interface SpecFlags {
  system: boolean;
  proxy: string | undefined;
  "allow-user-bus": boolean;
  "allow-jit": boolean;
  "allow-unsandboxed": boolean;
}

/** Of a service of which nothing special is asked. */
export const plainFlags = {
  proxy: undefined,
  "allow-user-bus": false,
  "allow-jit": false,
  "allow-unsandboxed": false,
} as const;

/** Where the service's state is: the system's own place, or the user's. */
export const serviceStateDir = (system: boolean, around: Surroundings): string =>
  system ? join(systemHome, ".aegis/edge") : edgeDir(undefined, around);

export async function serviceSpec(
  args: SpecFlags,
  allow: readonly string[],
  around: Surroundings,
): Promise<ServiceSpec> {
  const { env, home } = around;
  const { system } = args;
  const stateDir = serviceStateDir(system, around);
  const proxies = [
    ...["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "AEGIS_BASE_URL"],
  ].flatMap((name) => (env[name] ? [[name, env[name]] as const] : []));
  if (args.proxy !== undefined) readProxy(args.proxy, "--proxy");
  const executable = await stableExecutable();
  if (system) refuseHidden(executable);
  return {
    executable,
    configPath: join(stateDir, edgeFileNames.config),
    stateDir,
    home: system ? systemHome : home,
    runAs: system ? systemUser : null,
    env: {
      ...(env.PATH ? { PATH: env.PATH } : {}),
      // Else the daemon would look for its state where this command does not.
      ...(system || !env.AEGIS_HOME ? {} : { AEGIS_HOME: aegisHome(env, home) }),
      ...Object.fromEntries(proxies),
      ...(args.proxy === undefined ? {} : { HTTPS_PROXY: args.proxy }),
    },
    allow: await Promise.all(allow.map((text) => allowedFolder(text, home))),
    allowUserBus: args["allow-user-bus"],
    allowJit: args["allow-jit"],
    allowUnsandboxed: args["allow-unsandboxed"],
    notify: await notifyAccess(),
  };
}

/** The system's service sees no home directories, so an executable in one could not be started. */
function refuseHidden(executable: string): void {
  if (!/^\/(?:home|root|run\/user)\//.test(executable)) return;
  throw new AegisError("unprocessable", `a service of the whole system cannot be started from ${executable}`, {
    hint: `install -m 755 ${executable} /usr/local/bin/aegis, and go on with that one`,
  });
}

/** The kernel says `(deleted)` of a file that an update has replaced since this process began. */
export const ownExecutable = (): Promise<string> => realpath(process.execPath.replace(/ \(deleted\)$/, ""));

/** A symbolic link on PATH that leads here stays what it is over updates, as Homebrew's does. */
export async function stableExecutable(): Promise<string> {
  const real = await ownExecutable();
  const found = Bun.which("aegis");
  return found && (await realpath(found).catch(() => null)) === real ? found : real;
}

async function allowedFolder(text: string, home: string): Promise<AllowedFolder> {
  const [, path = text, mode = "ro"] = /^(.+):(ro|rw)$/.exec(text) ?? [];
  const wanted = resolveFrom(process.cwd(), path, home);
  const real = await realpath(wanted).catch((cause: Error) => {
    throw new AegisError("usage", `--allow ${text}: ${wanted} does not exist`, { cause });
  });
  if (!(await stat(real)).isDirectory()) throw new AegisError("usage", `--allow ${text}: ${real} is not a folder`);
  return { path: real, mode: mode === "rw" ? "rw" : "ro" };
}

/** Without the native part the daemon's word goes through a child, which systemd must then believe. */
export async function notifyAccess(): Promise<"main" | "all"> {
  const { canNotify } = await import("../../daemon/service-notify.ts");
  return (await canNotify()) ? "main" : "all";
}

/** Said at every installation that is less than it could be. */
export function warnOfNotify(notify: "main" | "all", terminal: Surroundings["terminal"]): void {
  if (notify === "all" && process.platform === "linux")
    terminal.warn(
      "this executable has no native parts: it tells that it is ready through systemd-notify (NotifyAccess=all), and so could a tool",
    );
}

/** What manager and commands need of this machine. */
export function installOptions(
  stateDir: string,
  conflicts: InstallOptions["conflicts"],
  around: Surroundings,
): InstallOptions {
  const { env, stop, terminal } = around;
  return {
    manager: serviceManager(),
    run: systemProgram(systemClock),
    env,
    user: userInfo().username,
    conflicts,
    force: conflicts === "force",
    connected: (patienceMs) => connectedWithin(stateDir, patienceMs, stop),
    say: (text) => terminal.warn(text),
  };
}

async function connectedWithin(stateDir: string, patienceMs: number, stop: AbortSignal): Promise<string | null> {
  const limit = systemClock.monotonic() + patienceMs;
  for (;;) {
    const status = await readStatus(stateDir);
    if (status?.alive && status.state === "connected") return null;
    if (stop.aborted || systemClock.monotonic() >= limit) return status?.lastError ?? "the daemon has not reported yet";
    await systemClock.sleep(100, stop);
  }
}
