/** What no tool may touch, whatever a policy says: the daemon's identity, its settings, its program, its unit. */
import { realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { EdgeConfig } from "../config/edge.ts";
import { aegisHome, type Environment } from "../platform/paths.ts";

export interface ProtectedPaths {
  /** Neither read nor changed. */
  closed: string[];
  /** Run and read by everybody, changed by nobody. */
  readOnly: string[];
}

/** Where the service managers keep what starts this daemon. */
const units = (home: string): string[] => [
  join(home, ".config/systemd/user/aegis-edge.service"),
  join(home, ".config/systemd/user/aegis-edge.service.d"),
  "/etc/systemd/system/aegis-edge.service",
  "/etc/systemd/system/aegis-edge.service.d",
  join(home, "Library/LaunchAgents/io.aegis.edge.plist"),
];

/** Real paths, each followed by the path as it is written where that is another. */
export async function protectedPaths(
  { stateDir, configPath, keyPath, tokenPath }: EdgeConfig,
  { env, home }: { env: Environment; home: string },
): Promise<ProtectedPaths> {
  const inside = (path: string) => path.startsWith(`${stateDir}/`);
  const elsewhere = [keyPath, tokenPath, configPath].filter((path) => !inside(path));
  return {
    closed: await both([stateDir, aegisHome(env, home), ...elsewhere]),
    readOnly: await both([process.execPath, ...units(home)]),
  };
}

async function both(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map(async (path) => [await real(path), path]));
  return [...new Set(found.flat())];
}

/** Of a path that does not exist yet, as far as it does: what is made there later is protected too. */
async function real(path: string): Promise<string> {
  return await realpath(path).catch(async () =>
    dirname(path) === path ? path : join(await real(dirname(path)), path.slice(dirname(path).length)),
  );
}
