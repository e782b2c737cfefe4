/** The service after an update: restarted, and judged by whether it is connected again. */
import { existsSync } from "node:fs";
import { readStatus } from "../daemon/status.ts";
import { AegisError } from "../errors.ts";
import type { InstallOptions } from "../service/manager.ts";
import type { ServiceSpec } from "../service/spec.ts";
import { systemHome, systemUser } from "../service/system-user.ts";
import { unitPath } from "../service/systemd-unit.ts";
import type { Surroundings } from "./command.ts";
import { installOptions, plainFlags, serviceSpec } from "./edge/service-spec.ts";

/** How long the new executable has to connect before the old one comes back. */
const proofMs = 2 * 60_000;

export interface RunningService {
  /** Whether it was connected before: only then is a missing connection the update's fault. */
  wasConnected: boolean;
  restart(): Promise<void>;
  /** Null once it is connected, or why it is not. */
  connected(): Promise<string | null>;
}

/** The service of this user, or of the system for root; null when none of ours runs here. */
export async function runningService(around: Surroundings): Promise<RunningService | null> {
  const system = process.getuid?.() === 0 && existsSync(unitPath({ runAs: systemUser, home: systemHome }));
  let spec: ServiceSpec;
  let options: InstallOptions;
  try {
    spec = await serviceSpec({ ...plainFlags, system }, [], around);
    options = installOptions(spec.stateDir, "refuse", around);
    if ((await options.manager.status(spec, options)).state !== "running") return null;
  } catch (error) {
    if (error instanceof AegisError) return null; // nothing here keeps services
    throw error;
  }
  const before = await readStatus(spec.stateDir);
  return {
    wasConnected: before?.alive === true && before.state === "connected",
    restart: () => options.manager.restart(spec, options),
    connected: () => options.connected(proofMs),
  };
}

/** Where the service's companion unit says that the state is; without it nobody asked by a file. */
export const updateFor = (env: Surroundings["env"]): string | null => env.AEGIS_UPDATE_FOR || null;
