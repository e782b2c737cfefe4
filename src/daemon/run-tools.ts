/** The tools this host offers, and how they are kept away from its identity. */
import { join } from "node:path";
import { findLauncher, identityProtection, launcherDirs } from "../native/launcher.ts";
import type { Clock } from "../platform/clock.ts";
import type { Environment } from "../platform/paths.ts";
import { systemProcesses } from "../platform/process.ts";
import { systemProgram } from "../platform/system-program.ts";
import { cmdRun, commandHost, systemPath } from "../tools/cmd-run.ts";
import { fsTools } from "../tools/fs-tools.ts";
import { hostInfo } from "../tools/host-info.ts";
import { jobTools } from "../tools/job-tools.ts";
import { createJobs } from "../tools/jobs.ts";
import { createRegistry, type Registry } from "../tools/registry.ts";
import { serviceTools } from "../tools/service-control.ts";
import type { ProtectedPaths } from "./protected.ts";

export interface HostTools {
  registry: Registry;
  /** Whether tools can read the daemon's identity, and what stays open. */
  identity: { protected: boolean; detail: string[] };
  /** Ends what outlived its call, and resolves when nothing of it is left. */
  close(): Promise<void>;
}

export interface HostToolsOptions {
  stateDir: string;
  protectedPaths: ProtectedPaths;
  clock: Clock;
  env: Environment;
  home: string;
}

export async function hostTools({ stateDir, protectedPaths, clock, env, home }: HostToolsOptions): Promise<HostTools> {
  const found = await findLauncher({
    dirs: launcherDirs(stateDir, env),
    run: systemProgram(clock),
    protectedPaths: protectedPaths.closed,
    readOnlyPaths: protectedPaths.readOnly,
  });
  const launcher = found.kind === "found" ? found.launcher : null;
  const runner = systemProcesses({ clock, launcher });
  const host = { runner, clock, path: systemPath, home };
  const commands = commandHost(host);
  const jobs = createJobs(commands, join(stateDir, "run", "jobs"));
  const registry = createRegistry([
    ...[cmdRun({ ...host, jobs }), ...jobTools({ jobs, clock }), ...fsTools({ clock })],
    ...[hostInfo({ clock }), ...serviceTools(commands)],
  ]);
  const protection = identityProtection(found, { env, uid: process.geteuid?.() ?? -1 });
  const identity =
    protection.kind === "protected"
      ? { protected: true, detail: [...protection.leavesOpen] }
      : { protected: false, detail: [protection.why] };
  return { registry, identity, close: () => jobs.close() };
}
