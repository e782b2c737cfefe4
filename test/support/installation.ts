/** A controller and hosts as people have them: dist/aegis, a home directory for each, real processes. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./proxies.ts";

export const executable = join(import.meta.dir, "../../dist/aegis");

export interface Ran {
  exit: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: Record<string, string>;
  input?: string;
  timeoutMs?: number;
}

export interface Process {
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly pid: number;
  /** Everything it wrote on both outputs so far. */
  said(): string;
  /** Resolves once it has said something that matches; rejects with what it said when it ends first or takes too long. */
  says(pattern: RegExp | string, timeoutMs?: number): Promise<void>;
  /** SIGTERM unless stated; resolves with the exit status, 128 + n for signal n as a shell would say it. */
  stop(signal?: NodeJS.Signals): Promise<number>;
}

export interface HostProcess {
  name: string;
  home: string;
  stateDir: string;
  /** The running daemon; null between `stop` and `start`. */
  daemon: Process | null;
  /** Words before and the executable itself. */
  command: string[];
  env: Record<string, string>;
  run(args: readonly string[], options?: RunOptions): Promise<Ran>;
  start(): Promise<Process>;
}

export interface Installation {
  home: string;
  grpcPort: number;
  httpPort: number;
  controller: Process;
  /** The operator's command line. */
  run(args: readonly string[], options?: RunOptions): Promise<Ran>;
  restartController(): Promise<void>;
  /** A token for `name`, as an operator gets it. */
  token(name: string, ...flags: string[]): Promise<string>;
  /** Enrolled and connected, unless `start` is false. */
  addHost(name: string, options?: HostOptions): Promise<HostProcess>;
  destroy(): Promise<void>;
}

export interface HostOptions {
  /** Words before the executable, such as `ip netns exec NAME`. */
  before?: string[];
  executable?: string;
  env?: Record<string, string>;
  enroll?: string[];
  start?: boolean;
  /** Edits the settings that enrollment wrote. */
  settings?: (yaml: string) => string;
}

export interface InstallationOptions {
  /** Words before the controller's executable. */
  before?: string[];
  /** HOST of the public endpoint. */
  host?: string;
  start?: string[];
}

const baseEnv = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NO_COLOR: "1" };

export async function runCommand(
  command: readonly string[],
  env: Record<string, string>,
  { input, timeoutMs = 60_000 }: RunOptions = {},
): Promise<Ran> {
  const child = Bun.spawn([...command], {
    env,
    cwd: tmpdir(),
    stdin: input === undefined ? "ignore" : Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
    timeout: timeoutMs,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  await child.exited;
  return { exit: statusOf(child), stdout, stderr };
}

const statusOf = (child: Pick<Bun.Subprocess, "exitCode" | "signalCode">): number =>
  child.exitCode ?? 128 + (child.signalCode === "SIGKILL" ? 9 : child.signalCode === "SIGTERM" ? 15 : 1);

export function startProcess(command: readonly string[], env: Record<string, string>): Process {
  const child = Bun.spawn([...command], { env, cwd: tmpdir(), stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  let text = "";
  let wake: Array<() => void> = [];
  const read = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      text += decoder.decode(chunk, { stream: true });
      for (const resolve of wake.splice(0)) resolve();
    }
  };
  const ended = Promise.all([read(child.stdout), read(child.stderr), child.exited]).then(() => {
    for (const resolve of wake.splice(0)) resolve();
  });
  return {
    child,
    pid: child.pid,
    said: () => text,
    async says(pattern, timeoutMs = 15_000) {
      const limit = performance.now() + timeoutMs;
      const seen = () => (typeof pattern === "string" ? text.includes(pattern) : pattern.test(text));
      while (!seen()) {
        const leftMs = limit - performance.now();
        const over = child.exitCode !== null || child.signalCode !== null;
        if (leftMs <= 0 || over)
          throw new Error(`${command.join(" ")} never said ${pattern}${over ? ", and ended" : ""}:\n${text}`);
        await Promise.race([new Promise<void>((resolve) => wake.push(resolve)), Bun.sleep(Math.min(leftMs, 250))]);
      }
      wake = [];
    },
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      await ended;
      return statusOf(child);
    },
  };
}

export async function installation({
  before = [],
  host = "localhost",
  start = [],
}: InstallationOptions = {}): Promise<Installation> {
  const root = mkdtempSync(join(tmpdir(), "aegis-installation-"));
  const home = join(root, "operator");
  mkdirSync(home);
  const env = { ...baseEnv, HOME: home };
  const [grpcPort, httpPort] = [await freePort(), await freePort()];
  const run: Installation["run"] = (args, options = {}) =>
    runCommand(
      [executable, ...args],
      { ...env, AEGIS_CONTROLLER: `http://127.0.0.1:${httpPort}`, AEGIS_USER_TOKEN: operatorToken, ...options.env },
      options,
    );
  let operatorToken = "";
  const initialised = await runCommand(
    [executable, "controller", "init", "--public-endpoint", `${host}:${grpcPort}`],
    env,
  );
  if (initialised.exit !== 0) throw new Error(`controller init: ${initialised.stderr}`);
  const made = await runCommand(
    [
      executable,
      "controller",
      "token",
      "create",
      "--name",
      "tester",
      "--scope",
      "aegis.admin",
      "--context",
      "default",
      "--context",
      "operator",
    ],
    env,
  );
  if (made.exit !== 0) throw new Error(`controller token create: ${made.stderr}`);
  operatorToken = made.stdout.trim();

  async function startController(): Promise<Process> {
    const controller = startProcess(
      [
        ...before,
        executable,
        "controller",
        "start",
        "--grpc-port",
        String(grpcPort),
        "--port",
        String(httpPort),
        ...start,
      ],
      env,
    );
    await controller.says("controller_started");
    return controller;
  }

  const hosts: HostProcess[] = [];
  const self: Installation = {
    home,
    grpcPort,
    httpPort,
    controller: await startController(),
    run,
    async restartController() {
      self.controller = await startController();
    },
    async token(name, ...flags) {
      const issued = await run(["edge", "token", "issue", "--name", name, "-o", "json", ...flags]);
      if (issued.exit !== 0) throw new Error(`edge token issue: ${issued.stderr}`);
      return (JSON.parse(issued.stdout) as { token: string }).token;
    },
    async addHost(name, options = {}) {
      const hostHome = join(root, name);
      mkdirSync(hostHome);
      const hostEnv = { ...baseEnv, HOME: hostHome, ...options.env };
      const command = [...(options.before ?? []), options.executable ?? executable];
      const made: HostProcess = {
        name,
        home: hostHome,
        stateDir: join(hostHome, ".aegis/edge"),
        daemon: null,
        command,
        env: hostEnv,
        run: (args, runOptions = {}) =>
          runCommand([...command, ...args], { ...hostEnv, ...runOptions.env }, runOptions),
        async start() {
          made.daemon = startProcess([...command, "edge", "run"], hostEnv);
          return made.daemon;
        },
      };
      hosts.push(made);
      const enrolled = await made.run(
        ["edge", "enroll", "-", "--no-service", "--non-interactive", ...(options.enroll ?? [])],
        { input: await self.token(name) },
      );
      if (enrolled.exit !== 0) throw new Error(`edge enroll: ${enrolled.stderr}`);
      const file = join(made.stateDir, "aegis-config.yaml");
      if (options.settings) writeFileSync(file, options.settings(readFileSync(file, "utf8")));
      if (options.start === false) return made;
      await (await made.start()).says('"event":"connected"');
      return made;
    },
    async destroy() {
      await Promise.all(hosts.map(async ({ daemon }) => daemon?.stop("SIGKILL")));
      await self.controller.stop("SIGKILL");
      rmSync(root, { recursive: true, force: true });
    },
  };
  return self;
}
