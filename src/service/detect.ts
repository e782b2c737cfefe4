/** Which system keeps services running on this machine. */
import { existsSync } from "node:fs";
import { AegisError } from "../errors.ts";
import { launchd } from "./launchd.ts";
import { nssm } from "./nssm.ts";
import type { ServiceManager } from "./spec.ts";
import { systemd } from "./systemd.ts";

export const managers: Readonly<Record<string, ServiceManager>> = { systemd, launchd, nssm };
const platformNames: Readonly<Record<string, string>> = { linux: "systemd", darwin: "launchd", windows: "nssm" };

/** By the name of a platform or of a manager, for looking; else this machine's own. */
export function serviceManager(platform?: string): ServiceManager {
  if (platform !== undefined) {
    const named = managers[platformNames[platform] ?? platform];
    if (named) return named;
    throw new AegisError(
      "usage",
      `${JSON.stringify(platform)} is no platform with a service; there is: ${Object.keys(platformNames).join(", ")}`,
    );
  }
  if (process.platform === "darwin") return launchd;
  if (process.platform === "win32") return nssm;
  if (existsSync("/run/systemd/system")) return systemd;
  throw new AegisError(
    "unprocessable",
    "this machine was not started by systemd, the only system on Linux that services can be installed for",
    {
      hint: "let your own supervisor keep this running: aegis edge run",
    },
  );
}
