/** What a service is to be, whichever system keeps it running, and what each system can do with it. */
import { createHash } from "node:crypto";
import type { AegisError } from "../errors.ts";
import type { Environment } from "../platform/paths.ts";
import type { RunProgram } from "../platform/run-program.ts";

export interface AllowedFolder {
  /** Absolute real path. */
  path: string;
  mode: "ro" | "rw";
}

export interface ServiceSpec {
  /** Absolute, and the same over updates: a stable symbolic link is kept. */
  executable: string;
  configPath: string;
  stateDir: string;
  /** Home directory of the user that the daemon runs as. */
  home: string;
  /** Null: the service belongs to the user who installs it. A name: it belongs to the system and runs as that user. */
  runAs: string | null;
  /** Variables such as HTTPS_PROXY and the PATH on which programs are looked for when the host describes itself. */
  env: Readonly<Record<string, string>>;
  /** Folders that tools may see although the sandbox hides everything else of the user. */
  allow: readonly AllowedFolder[];
  /** Tools may talk to the user's service manager, as service.status and service.restart need. */
  allowUserBus: boolean;
  /** Memory may be writable and executable, as programs with a JIT need. */
  allowJit: boolean;
  /** This system has no user namespaces: go on with the lines that work without. */
  allowUnsandboxed: boolean;
  /** How the daemon tells that it is ready: by itself, or by systemd-notify, which any process of the service could then do. */
  notify: "main" | "all";
}

export interface ServiceFile {
  path: string;
  text: string;
}

/** In every file of ours; a file without it was written by somebody else. */
export const marker = "Written by: aegis edge service install";

export const isOurs = (text: string): boolean => text.includes(marker);

/** The file with a sum of its text behind the marker, by which a change by hand is noticed later. */
export const stamped = ({ path, text }: ServiceFile): ServiceFile => ({
  path,
  text: text.replace(marker, `${marker} ${sumOf(text)}`),
});

/** Whether somebody changed what we wrote. */
export function isEdited(text: string): boolean {
  const [stamp = "", sum = ""] = new RegExp(`${marker} ([0-9a-f]{16})`).exec(text) ?? [];
  return stamp !== "" && sumOf(text.replace(stamp, marker)) !== sum;
}

const sumOf = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);

export type ServiceState = "running" | "starting" | "reloading" | "stopped" | "failed" | "masked" | "missing";

export interface ServiceStatus {
  state: ServiceState;
  pid: number | null;
  /** What the daemon or the system says about it; empty when nothing. */
  detail: string;
  /** Times the system started it again by itself; null where that is not counted. */
  restarts: number | null;
  enabled: boolean;
}

/** Whose service: what finds it again once it is installed. */
export type Owner = Pick<ServiceSpec, "runAs" | "home" | "stateDir">;

export interface ManagerOptions {
  run: RunProgram;
  env: Environment;
  /** Go on where only safety objects. */
  force?: boolean;
}

export type Kept = "nothing" | "same" | "other" | "foreign";

/** One for each system. */
export interface ServiceManager {
  name: "systemd" | "launchd" | "nssm";
  /** What lies on disk, the service's own file first; empty where the system keeps it elsewhere. */
  files(spec: ServiceSpec): ServiceFile[];
  /** What `--print` shows. */
  print(spec: ServiceSpec): string;
  /**
   * What the system keeps elsewhere than in files: nothing, what `spec` says, something else of ours, or a service of
   * somebody else's by the same name. `same` where everything is in files.
   */
  kept(spec: ServiceSpec, options: ManagerOptions): Promise<Kept>;
  /** What stands in the way of a start, with what to do about it; null when nothing does. */
  obstacle(spec: ServiceSpec, options: ManagerOptions): Promise<AegisError | null>;
  /** After the files are in their places: starts it now and whenever the system starts. Waits until it says that it is ready, where the system can tell. */
  activate(spec: ServiceSpec, options: ManagerOptions): Promise<void>;
  /** Stops it and starts it no more. Files stay. */
  deactivate(owner: Owner, options: ManagerOptions): Promise<void>;
  /** After files came or went. */
  reload(owner: Owner, options: ManagerOptions): Promise<void>;
  restart(owner: Owner, options: ManagerOptions): Promise<void>;
  /** What the owner must still do so that it runs without a login; null when nothing. */
  linger(owner: Owner, user: string, options: ManagerOptions): Promise<string | null>;
  status(owner: Owner, options: ManagerOptions): Promise<ServiceStatus>;
  /** Where its words are. */
  logs(owner: Owner, wanted: { lines: number; follow: boolean }): { command: string[] } | { files: string[] };
}
