/** Starts tools so that they cannot reach the daemon's identity: where the launcher is, what it enforces here, how it is called. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Environment } from "../platform/paths.ts";
import type { RunProgram } from "../platform/run-program.ts";
import { placeNative, spareDir } from "./find.ts";
import { openRules, type Rules } from "./rules.ts";

/** What Landlock can close; `modes` is chmod, chown and times, which it never covers. */
export type Closable = "files" | "ptrace" | "truncate" | "signals" | "abstract-sockets" | "modes";

/** What `aegis-launch --probe` prints. */
export interface LauncherProbe {
  /** Landlock's version in this kernel; 0 when it cannot be used. */
  abi: number;
  enforced: readonly Closable[];
  open: readonly Closable[];
  /** Why it cannot be used. */
  why?: string;
}

export interface Launcher {
  path: string;
  probe: LauncherProbe;
  /** What stands after the launcher's path to start such a command; `rulesFd` is where it finds rules that are made already. */
  args(spec: LaunchSpec, rulesFd?: number): string[];
  rules?: Rules;
}

export interface LaunchSpec {
  /** Absolute: nothing is looked up. */
  command: string;
  args: readonly string[];
  /** argv[0], for a file that holds many programs; the command itself unless stated. */
  name?: string;
}

export interface LaunchOptions {
  /** Absolute paths that tools may neither read nor change. */
  protectedPaths: readonly string[];
  /** Absolute paths that tools may read and run, not change. */
  readOnlyPaths: readonly string[];
  /** Milliseconds between SIGTERM and SIGKILL once the launcher is asked to stop. */
  graceMs?: number;
}

export interface FindLauncherOptions extends LaunchOptions {
  /** Where programs may be run from and only this user writes, best first. */
  dirs: readonly string[];
  run: RunProgram;
}

/** The arguments of one start. A kernel without Landlock must be known beforehand: else the launcher refuses to start. */
export function launchArgs(
  spec: LaunchSpec,
  probe: Pick<LauncherProbe, "abi">,
  { protectedPaths, readOnlyPaths, graceMs }: LaunchOptions,
  rulesFd?: number,
): string[] {
  return [
    ...(rulesFd === undefined
      ? [
          ...protectedPaths.flatMap((path) => ["--protect", path]),
          ...readOnlyPaths.flatMap((path) => ["--read-only", path]),
        ]
      : ["--ruleset-fd", String(rulesFd)]),
    ...(probe.abi > 0 ? [] : ["--no-landlock"]),
    ...(graceMs === undefined ? [] : ["--grace-ms", String(graceMs)]),
    ...(spec.name === undefined ? [] : ["--name", spec.name]),
    ...["--parent", String(process.pid), "--", spec.command, ...spec.args],
  ];
}

export type Found = { kind: "found"; launcher: Launcher } | { kind: "absent"; why: string };

/** Places the launcher, runs it once to see what this kernel enforces, and says why where there is none. */
export async function findLauncher(options: FindLauncherOptions): Promise<Found> {
  const refusals: string[] = [];
  for (const dir of options.dirs) {
    try {
      const placed = await placeNative("aegis-launch", dir);
      if (placed.kind === "absent") return placed;
      const { status, stdout, stderr } = await options.run(placed.path, ["--probe"]);
      if (status === 0) {
        const launcher = launcherAt(placed.path, JSON.parse(stdout), options);
        const rules = launcher.probe.abi > 0 ? await openRules(options.dirs, options) : "there is no Landlock";
        return { kind: "found", launcher: typeof rules === "string" ? launcher : { ...launcher, rules } };
      }
      refusals.push(`${placed.path}: ${stderr.trim() || `ended with ${status}`}`);
    } catch (error) {
      refusals.push(`${dir}: ${(error as Error).message}`);
    }
  }
  return { kind: "absent", why: `the launcher cannot be run (${refusals.join("; ")})` };
}

const launcherAt = (path: string, probe: LauncherProbe, options: LaunchOptions): Launcher => ({
  path,
  probe,
  args: (spec, rulesFd) => launchArgs(spec, probe, options, rulesFd),
});

/** Where the launcher is looked for, best first. */
export const launcherDirs = (stateDir: string, env: Environment): string[] => [join(stateDir, "run"), spareDir(env)];

/** Whether tools can read the daemon's key and token, or become it. */
export type IdentityProtection =
  | { kind: "protected"; leavesOpen: readonly string[] }
  | { kind: "readable"; why: string };

export function identityProtection(found: Found, { env, uid }: { env: Environment; uid: number }): IdentityProtection {
  if (found.kind === "absent") return { kind: "readable", why: found.why };
  const { probe } = found.launcher;
  if (!probe.enforced.includes("files"))
    return { kind: "readable", why: probe.why ?? "the launcher found no way to enforce it" };
  return {
    kind: "protected",
    leavesOpen: [...probe.open.map((one) => leftOpen[one]), ...ofRoot(uid), ...managers(env, uid)],
  };
}

const leftOpen: Readonly<Record<Closable, string>> = {
  files: "its files",
  ptrace: "its memory",
  truncate: "emptying its files (closed from kernel 6.2 on)",
  signals: "signals to the daemon (closed from kernel 6.12 on)",
  "abstract-sockets": "abstract sockets (closed from kernel 6.12 on)",
  modes: "chmod of its files, which no kernel closes",
};

/** CAP_PERFMON reads what Landlock closes to everybody else. */
const ofRoot = (uid: number): string[] => (uid === 0 ? ["its environment, because it runs as root"] : []);

/** A service manager that answers a tool starts programs outside of all this. The unit hides it. */
function managers(env: Environment, uid: number): string[] {
  const runtime = env.XDG_RUNTIME_DIR || `/run/user/${uid}`;
  const sockets = [
    join(runtime, "bus"),
    join(runtime, "systemd/private"),
    ...(uid === 0 ? ["/run/systemd/private"] : []),
  ];
  return sockets
    .filter(existsSync)
    .slice(0, 1)
    .map((path) => `the service manager at ${path}, which can start programs for a tool`);
}
