/** What keeps tools away from the daemon's identity on this system: chosen when the daemon starts, and said when there is nothing. */
import { join } from "node:path";
import type { Environment } from "../platform/paths.ts";
import type { Launcher, Wrapper } from "../platform/process.ts";
import {
  type FindLauncherOptions,
  findLauncher,
  type IdentityProtection,
  identityProtection,
  launcherDirs,
} from "./launcher.ts";
import { sandboxExec, seatbeltArgs, seatbeltProfile } from "./seatbelt.ts";

export interface Confinement {
  launcher: Launcher | null;
  wrapper: Wrapper | null;
  protection: IdentityProtection;
}

export interface ConfinementOptions extends Omit<FindLauncherOptions, "dirs"> {
  platform: NodeJS.Platform;
  stateDir: string;
  home: string;
  env: Environment;
  /** Effective user id. */
  uid: number;
}

export async function confinement(options: ConfinementOptions): Promise<Confinement> {
  const { platform, stateDir, env, uid } = options;
  if (platform === "darwin") return await seatbelt(options);
  const found = await findLauncher({ ...options, dirs: launcherDirs(stateDir, env) });
  const launcher = found.kind === "found" ? found.launcher : null;
  return { launcher, wrapper: null, protection: identityProtection(found, { env, uid }) };
}

/** What no profile closes. Whoever reads it decides whether that is enough. */
const leavesOpen = ["its environment and arguments, which sysctl shows"];

/** Tries it first: a system that knows a word of the profile no more refuses all of it, and one may take it and not heed it. */
async function seatbelt({ run, home, protectedPaths, readOnlyPaths }: ConfinementOptions): Promise<Confinement> {
  const nothing = (why: string): Confinement => ({
    ...{ launcher: null, wrapper: null },
    protection: { kind: "readable", why: `tools are not confined: ${why}` },
  });
  let profile: string;
  try {
    // What lies there is started at the next login, outside of every profile.
    const agents = join(home, "Library/LaunchAgents");
    profile = seatbeltProfile({ protectedPaths, readOnlyPaths: [...readOnlyPaths, agents] });
  } catch (error) {
    return nothing((error as Error).message);
  }
  const probe = { command: "/usr/bin/true", name: "true", args: [] };
  const { status, stderr } = await run(sandboxExec, seatbeltArgs(profile, probe), { timeoutMs: 10_000 });
  if (status !== 0)
    return nothing(`${sandboxExec} ${stderr.trim() ? `says: ${stderr.trim()}` : `ended with ${status}`}`);
  for (const path of protectedPaths.slice(0, 1)) {
    const look = { command: "/bin/ls", name: "ls", args: [path] };
    if ((await run(sandboxExec, seatbeltArgs(profile, look), { timeoutMs: 10_000 })).status === 0)
      return nothing(`under ${sandboxExec} ${path} can be read all the same`);
  }
  return {
    launcher: null,
    wrapper: { path: sandboxExec, args: (spec) => seatbeltArgs(profile, spec) },
    protection: { kind: "protected", leavesOpen },
  };
}
