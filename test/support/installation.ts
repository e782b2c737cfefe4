/** A controller, its operator and hosts as people have them: dist/aegis, a home directory for each, real processes. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../../src/platform/free-port.ts";
import { type Machine, type MachineOptions, type Outcome, type Playground, playground, type Running } from "./aegis.ts";

export interface Host extends Machine {
  name: string;
  stateDir: string;
  /** The daemon that was started last; null before the first. */
  daemon: Running | null;
  /** Runs the daemon and waits until it is connected. */
  connect(): Promise<Running>;
  /** The settings that its owner may edit. */
  settings(): string;
  /** Replaces text in them, which must be there. */
  edit(from: string | RegExp, to: string): void;
}

export interface HostOptions extends MachineOptions {
  env?: Record<string, string>;
  enroll?: readonly string[];
  /** False: enrolled, and no daemon. */
  start?: boolean;
  /** Called with its home before it is enrolled. */
  prepare?: (home: string) => void;
}

export interface InstallationOptions {
  /** HOST of the public endpoint. */
  host?: string;
  /** Words before the controller's executable. */
  before?: readonly string[];
  start?: readonly string[];
  /** Called with the controller's home before anything is in it. */
  prepare?: (home: string) => void;
}

export interface Installation {
  place: Playground;
  grpcPort: number;
  httpUrl: string;
  /** The controller's machine, and what it printed when it was made. */
  server: Machine;
  initialised: Outcome;
  controller: Running;
  /** The operator's machine: every context, every scope. */
  desk: Machine;
  restartController(): Promise<void>;
  /** A token that lets `name` in, as an operator gets it. */
  token(name: string, ...flags: string[]): Promise<string>;
  /** Enrolled and connected. */
  addHost(name: string, options?: HostOptions): Promise<Host>;
  close(): Promise<void>;
}

/** What a command printed for programs, whatever its exit; throws with its words when that was nothing. */
export function jsonOf({ exit, stdout, stderr }: Outcome) {
  if (stdout === "") throw new Error(`exit ${exit}: ${stderr}`);
  return JSON.parse(stdout);
}

export async function installation(options: InstallationOptions = {}): Promise<Installation> {
  const place = playground();
  const server = place.machine("server", {}, options.before ? { before: options.before } : {});
  options.prepare?.(server.home);
  const [grpcPort, httpPort] = [await freePort(), await freePort()];
  const initialised = await server.run(
    ...["controller", "init", "--public-endpoint", `${options.host ?? "localhost"}:${grpcPort}`],
  );
  if (initialised.exit !== 0) throw new Error(`controller init: ${initialised.stderr}`);
  const made = await server.run(
    ...["controller", "token", "create", "--name", "tester", "--scope", "aegis.admin"],
    ...["--context", "default", "--context", "operator", "-o", "json"],
  );
  const startController = async () => {
    const running = server.start(
      ...["controller", "start", "--grpc-port", `${grpcPort}`, "--port", `${httpPort}`, ...(options.start ?? [])],
    );
    const [, url = ""] = await running.until(/"event":"controller_started".*"http_url":"([^"]+)"/);
    return { running, url };
  };
  const { running: controller, url: httpUrl } = await startController();
  const desk = place.machine("desk", { AEGIS_CONTROLLER: httpUrl, AEGIS_USER_TOKEN: jsonOf(made).token });

  const site: Installation = {
    ...{ place, grpcPort, httpUrl, server, initialised, controller, desk },
    async restartController() {
      site.controller = (await startController()).running;
    },
    token: async (name, ...flags) =>
      jsonOf(await desk.run("edge", "token", "issue", "--name", name, "-o", "json", ...flags)).token,
    async addHost(name, { env = {}, enroll = [], start = true, prepare, ...how } = {}) {
      const machine = place.machine(name, env, how);
      prepare?.(machine.home);
      const stateDir = join(machine.home, ".aegis/edge");
      const file = join(stateDir, "aegis-config.yaml");
      const host: Host = {
        ...machine,
        ...{ name, stateDir, daemon: null },
        async connect() {
          host.daemon = machine.start("edge", "run");
          await host.daemon.until(/"event":"connected"/);
          return host.daemon;
        },
        settings: () => readFileSync(file, "utf8"),
        edit(from, to) {
          const before = host.settings();
          const after = before.replace(from, to);
          if (after === before) throw new Error(`no ${from} in ${file}`);
          writeFileSync(file, after);
        },
      };
      const flags = ["--no-service", "--non-interactive", ...enroll];
      const enrolled = await host.feed(await site.token(name), "edge", "enroll", "-", ...flags);
      if (enrolled.exit !== 0) throw new Error(`edge enroll: ${enrolled.stderr}`);
      if (start) await host.connect();
      return host;
    },
    close: () => place.close(),
  };
  return site;
}
