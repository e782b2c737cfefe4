/** The tools this host offers, and how they are kept away from its identity. */
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { confinement } from "../native/confinement.ts";
import type { Clock } from "../platform/clock.ts";
import { type Log, type Secret, silentLog } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import { systemProcesses } from "../platform/process.ts";
import { systemProgram } from "../platform/system-program.ts";
import { cmdRun, commandHost, systemPath } from "../tools/cmd-run.ts";
import { fsTools } from "../tools/fs-tools.ts";
import { hostInfo } from "../tools/host-info.ts";
import { jobTools } from "../tools/job-tools.ts";
import { createJobs } from "../tools/jobs.ts";
import { keyRotation, type RotateKeys } from "../tools/key-rotation.ts";
import type { McpServerSpec } from "../tools/mcp-connection.ts";
import { createMcpServer } from "../tools/mcp-server.ts";
import { mcpTools } from "../tools/mcp-tool.ts";
import { createRegistry, type Registry } from "../tools/registry.ts";
import { selfUpdate } from "../tools/self-update.ts";
import { serviceTools } from "../tools/service-control.ts";
import type { ProtectedPaths } from "./protected.ts";
import { updateDesk } from "./update-desk.ts";

export interface HostTools {
  registry: Registry;
  /** Whether tools can read the daemon's identity, and what stays open. */
  identity: { protected: boolean; detail: string[] };
  /** Finds out what local MCP servers offer, from memory or by starting each once. Never rejects. */
  learn(): Promise<void>;
  /** Ends what outlived its call, and resolves when nothing of it is left. */
  close(): Promise<void>;
}

export interface HostToolsOptions {
  stateDir: string;
  protectedPaths: ProtectedPaths;
  clock: Clock;
  env: Environment;
  home: string;
  /** This system's own unless stated. */
  platform?: NodeJS.Platform;
  mcpServers?: readonly McpServerSpec[];
  log?: Log;
  /** A secret the owner keeps on this host; null when there is none of that name. */
  secret?(name: string): Promise<Secret | null>;
  /** Gives this host a new key, where its daemon runs. */
  rotateKeys?: RotateKeys;
  /** An MCP server offers something else than before. */
  onToolsChanged?(): void;
}

const noDaemon: RotateKeys = () =>
  Promise.reject(new AegisError("unavailable", "only a running daemon changes its key at a call"));

export async function hostTools({
  stateDir,
  protectedPaths,
  clock,
  env,
  home,
  platform = process.platform,
  ...more
}: HostToolsOptions): Promise<HostTools> {
  const { launcher, wrapper, protection } = await confinement({
    ...{ platform, stateDir, home, env, uid: process.geteuid?.() ?? -1 },
    run: systemProgram(clock),
    protectedPaths: protectedPaths.closed,
    readOnlyPaths: protectedPaths.readOnly,
  });
  const runner = systemProcesses({ clock, launcher, wrapper });
  const host = { runner, clock, path: systemPath, home };
  const commands = commandHost(host);
  const jobs = createJobs(commands, join(stateDir, "run", "jobs"));
  const { mcpServers = [], log = silentLog, secret = async () => null, onToolsChanged: onChanged = () => {} } = more;
  const { rotateKeys = noDaemon } = more;
  const directory = join(stateDir, "run", "mcp");
  const servers = mcpServers.map((spec) =>
    createMcpServer({ spec, host: commands, log, secret, directory, onChanged }),
  );
  const mcp = mcpTools(servers);
  const own = [
    ...[cmdRun({ ...host, jobs }), ...jobTools({ jobs, clock }), ...fsTools({ clock })],
    ...[hostInfo({ clock }), ...serviceTools(commands), selfUpdate(updateDesk(stateDir, env))],
    keyRotation(rotateKeys),
  ];
  const registry = createRegistry(own, [mcp]);
  const close = async () => void (await Promise.all([jobs.close(), mcp.close()]));
  const identity =
    protection.kind === "protected"
      ? { protected: true, detail: [...protection.leavesOpen] }
      : { protected: false, detail: [protection.why] };
  return { registry, identity, learn: mcp.learn, close };
}
