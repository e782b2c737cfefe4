/** sshd on loopback for one bench: its own keys, its own user with a plain shell, and a warm ControlMaster when asked. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../src/platform/free-port.ts";

export interface Sshd {
  port: number;
  /** Words before a remote command over a connection that is open already. */
  master(address?: string): string[];
  /** The same over a connection of its own. */
  fresh(address?: string): string[];
  stop(): Promise<void>;
}

const user = "aegis-bench";

function must(...command: string[]): void {
  const run = Bun.spawnSync(command, { stdout: "pipe", stderr: "pipe" });
  if (run.exitCode !== 0) throw new Error(`${command.join(" ")}: ${run.stderr}`);
}

/** Needs root: sshd changes to the user that signs in. */
export async function sshd(listen: readonly string[] = ["127.0.0.1"]): Promise<Sshd> {
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
    ...listen.map((address) => `ListenAddress ${address}`),
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
  const common = (address: string) => [
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
    `${user}@${address}`,
  ];
  const socket = (address: string) => join(folder, `master-${address}`);
  const self: Sshd = {
    port,
    master: (address = "127.0.0.1") => [
      "ssh",
      "-S",
      socket(address),
      "-o",
      "ControlMaster=no",
      ...common(address),
      "--",
    ],
    fresh: (address = "127.0.0.1") => ["ssh", ...common(address), "--"],
    async stop() {
      for (const address of listen)
        Bun.spawnSync(["ssh", "-S", socket(address), "-O", "exit", ...common(address)], { stderr: "ignore" });
      server.kill();
      await server.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
  for (let attempt = 0; ; attempt++) {
    if (Bun.spawnSync([...self.fresh(listen[0]), "true"], { stderr: "ignore" }).exitCode === 0) break;
    if (attempt > 50) throw new Error(`sshd does not answer: ${await new Response(server.stderr).text()}`);
    await Bun.sleep(50);
  }
  for (const address of listen)
    must(
      "ssh",
      "-S",
      socket(address),
      "-o",
      "ControlMaster=yes",
      "-o",
      "ControlPersist=yes",
      "-f",
      "-N",
      ...common(address),
    );
  return self;
}
