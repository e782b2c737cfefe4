/** sshd on loopback for one bench: its own keys, its own user with a plain shell, and a warm ControlMaster when asked. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../src/platform/free-port.ts";

export interface Sshd {
  /** Words before a remote command over a connection that is open already. */
  master(): string[];
  /** The same over a connection of its own. */
  fresh(): string[];
  /** So many names of this one sshd, with an open ControlMaster for each. */
  warm(count: number): Promise<WarmHosts>;
  /** The processes that carry the open connection: sshd's below its listener, and the ControlMaster. */
  processes(): { server: number[]; client: number[] };
  stop(): Promise<void>;
}

export interface WarmHosts {
  /** As clush writes many names, and as ansible does. */
  pattern: string;
  list: string;
  /** A file for ssh -F by which each name goes over its open connection. */
  config: string;
}

const user = "aegis-bench";

function must(...command: string[]): void {
  const run = Bun.spawnSync(command, { stdout: "pipe", stderr: "pipe" });
  if (run.exitCode !== 0) throw new Error(`${command.join(" ")}: ${run.stderr}`);
}

/** Every process that descends from `pid`. */
function below(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  const children = text.split(" ").filter(Boolean).map(Number);
  return children.flatMap((child) => [child, ...below(child)]);
}

/** Needs root: sshd changes to the user that signs in. */
export async function sshd(): Promise<Sshd> {
  if (Bun.spawnSync(["id", user], { stderr: "ignore", stdout: "ignore" }).exitCode !== 0)
    must("useradd", "--create-home", "--skel", "/var/empty", "--shell", "/bin/sh", user);
  Bun.spawnSync(["usermod", "-p", "*", user]);
  const folder = mkdtempSync(join(tmpdir(), "aegis-sshd-"));
  chmodSync(folder, 0o755);
  mkdirSync("/run/sshd", { recursive: true });
  const port = await freePort();
  must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", join(folder, "host"));
  must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", join(folder, "client"));
  writeFileSync(join(folder, "authorized"), await Bun.file(join(folder, "client.pub")).text(), { mode: 0o644 });
  const config = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${join(folder, "host")}`,
    `AuthorizedKeysFile ${join(folder, "authorized")}`,
    "UsePAM no",
    "StrictModes no",
    "PasswordAuthentication no",
    "MaxStartups 1000:30:2000",
    "MaxSessions 1000",
    "PidFile none",
    "LogLevel ERROR",
  ];
  writeFileSync(join(folder, "sshd_config"), `${config.join("\n")}\n`);
  const server = Bun.spawn(["/usr/sbin/sshd", "-D", "-e", "-f", join(folder, "sshd_config")], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const common = [
    "-F",
    "none",
    "-p",
    String(port),
    "-i",
    join(folder, "client"),
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    `${user}@127.0.0.1`,
  ];
  const socket = join(folder, "master");
  const opened: string[] = [];
  const masters = join(folder, "ssh_config");
  const self: Sshd = {
    master: () => ["ssh", "-S", socket, "-o", "ControlMaster=no", ...common, "--"],
    fresh: () => ["ssh", ...common, "--"],
    async warm(count) {
      const options = [
        ...["Host *", "HostName 127.0.0.1", `Port ${port}`, `User ${user}`, `IdentityFile ${join(folder, "client")}`],
        ...["StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "LogLevel ERROR"],
        ...[`ControlPath ${folder}/%n`, "ControlMaster auto", "ControlPersist yes"],
      ];
      writeFileSync(masters, `${options.join("\n")}\n`);
      while (opened.length < count) {
        const some = Array.from(
          { length: Math.min(8, count - opened.length) },
          (_, index) => opened.length + index + 1,
        );
        const children = some.map((number) =>
          Bun.spawn(["ssh", "-F", masters, "-f", "-N", `m${number}`], {
            ...{ stdin: "ignore", stdout: "ignore", stderr: "ignore" },
          }),
        );
        for (const exit of await Promise.all(children.map(({ exited }) => exited)))
          if (exit !== 0) throw new Error(`a ControlMaster did not open: exit ${exit}`);
        opened.push(...some.map((number) => `m${number}`));
      }
      const list = opened.slice(0, count).join(",");
      return { pattern: `m[1-${count}]`, list, config: masters };
    },
    processes() {
      const check = Bun.spawnSync(["ssh", "-S", socket, "-O", "check", ...common], { stdout: "pipe", stderr: "pipe" });
      const said = `${check.stdout}${check.stderr}`;
      const client = Number(/pid=(\d+)/.exec(said)?.[1]);
      if (!client) throw new Error(`the ControlMaster does not say its process: ${said}`);
      return { server: below(server.pid), client: [client] };
    },
    async stop() {
      for (const name of opened) Bun.spawnSync(["ssh", "-F", masters, "-O", "exit", name], { stderr: "ignore" });
      Bun.spawnSync(["ssh", "-S", socket, "-O", "exit", ...common], { stderr: "ignore" });
      server.kill();
      await server.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
  for (let attempt = 0; ; attempt++) {
    if (Bun.spawnSync([...self.fresh(), "true"], { stderr: "ignore" }).exitCode === 0) break;
    if (attempt > 50) throw new Error(`sshd does not answer: ${await new Response(server.stderr).text()}`);
    await Bun.sleep(50);
  }
  must("ssh", "-S", socket, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-f", "-N", ...common);
  return self;
}
