/** A real systemd with a real user manager, in namespaces of its own, with a controller inside: nothing outside changes. */
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { executable as builtExecutable } from "./aegis.ts";

const script = join(import.meta.dir, "systemd-bench.sh");

export interface Said {
  exit: number;
  /** Both outputs. */
  said: string;
}

export interface SystemdBench {
  /** A line of shell as the ordinary user `edge`, home /home/edge. */
  user(line: string): Promise<Said>;
  root(line: string): Promise<Said>;
  /** As root with the operator's token: the words after `aegis`. */
  operator(line: string): Promise<Said>;
  /** An enrollment token for `name`. */
  token(name: string): Promise<string>;
  reboot(): Promise<void>;
  startController(): Promise<void>;
  stopController(): Promise<void>;
  down(): void;
}

export interface BenchOptions {
  /** Another root file system, such as one made by debootstrap. */
  rootFolder?: string;
  /** Another executable than the one that was built for this machine. */
  executable?: string;
  /** Where the executable lies inside. */
  place?: string;
  /** The controller and its operator run a copy of the executable, as on another machine: no page of it is shared. */
  apart?: boolean;
  /** Further folders or files that lie inside, read-only: path outside -> path inside. */
  binds?: Readonly<Record<string, string>>;
}

export async function systemdBench({
  rootFolder,
  executable = builtExecutable,
  place = "/usr/local/bin/aegis",
  apart = false,
  binds = {},
}: BenchOptions = {}): Promise<SystemdBench> {
  const folder = mkdtempSync(join(tmpdir(), "aegis-systemd-"));
  // A copy: whoever builds meanwhile does not pull the file from under the running service.
  const copy = join(folder, "aegis");
  copyFileSync(executable, copy);
  chmodSync(folder, 0o755);
  const env = {
    PATH: process.env.PATH ?? "",
    BENCH_DIR: join(folder, "bench"),
    BENCH_BIND: [`${copy}:${place}`, ...Object.entries(binds).map(([from, to]) => `${from}:${to}`)].join(" "),
    ...(rootFolder === undefined ? {} : { BENCH_ROOT: rootFolder }),
  };
  const bench = async (...words: string[]): Promise<Said> => {
    const child = Bun.spawn([script, ...words], {
      env,
      cwd: "/",
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: 120_000,
    });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    return { exit: await child.exited, said: stdout + stderr };
  };
  const down = () => {
    Bun.spawnSync([script, "down"], { env, cwd: "/" });
    rmSync(folder, { recursive: true, force: true });
  };
  const must = async (...words: string[]) => {
    const { exit, said } = await bench(...words);
    if (exit !== 0) throw new Error(`${words.join(" ")} ended with ${exit}:\n${said}`);
    return said;
  };
  const other = apart ? "/srv/operator/aegis" : place;
  const self: SystemdBench = {
    user: (line) => bench("exec", line),
    root: (line) => bench("root", line),
    operator: (line) =>
      bench(
        "root",
        `export HOME=/srv/operator AEGIS_CONTROLLER=http://localhost:8088 AEGIS_USER_TOKEN=$(cat /srv/operator/token); ${line.startsWith("aegis") ? `${other}${line.slice(5)}` : line}`,
      ),
    async token(name) {
      const { said } = await self.operator(`aegis edge token issue --name ${name} -o json`);
      const token = /"token": "([^"]+)"/.exec(said)?.[1];
      if (!token) throw new Error(`edge token issue: ${said}`);
      return token;
    },
    async reboot() {
      await must("reboot");
    },
    async startController() {
      await must(
        "root",
        `systemd-run --quiet --collect --unit=controller --setenv=HOME=/srv/operator ${other} controller start && for i in $(seq 100); do (exec 3<>/dev/tcp/localhost/8088) 2>/dev/null && exit 0; sleep 0.05; done; exit 1`,
      );
    },
    async stopController() {
      await must("root", "systemctl stop controller");
    },
    down,
  };
  try {
    await must("up");
    await must(
      "root",
      `mkdir -p /srv/operator && export HOME=/srv/operator && ${apart ? `cp ${place} ${other} && ` : ""}${other} controller init --public-endpoint localhost:50056 && ${other} controller token create --name tester --scope aegis.admin --context default --context operator > /srv/operator/token`,
    );
    await self.startController();
  } catch (error) {
    down();
    throw error;
  }
  return self;
}
