/**
 * A small network on this machine: a host, a way in between and the world beyond. Host and middle are namespaces of the
 * kernel's; the world is this machine itself. What the host may reach is decided here, so that "never goes around the proxy"
 * is something the kernel shows.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";

export interface NetworkLab {
  /** Addresses: the host's own, the middle's as the host sees it, the world's. */
  readonly host: string;
  readonly middle: string;
  readonly world: string;
  /** Words to put before a command so that it runs there. */
  in(place: "host" | "middle"): string[];
  /** Whether the middle passes packets between host and world; off to begin with. */
  forward(on: boolean): void;
  /** Drops this share of the packets to and from the host, 0 to 1. 1 is a dead path without a word. */
  lose(share: number): void;
  /** Bytes per second towards the host; 0 = no limit. */
  limit(bytesPerSecond: number): void;
  /** From now on every packet between host and middle takes so much longer, each way. */
  delay(ms: number): Promise<void>;
  /** The host's established TCP connections, as `remote:port`. */
  connections(): string[];
  destroy(): void;
}

function run(...command: string[]): string {
  const child = Bun.spawnSync(command, { stdout: "pipe", stderr: "pipe" });
  if (child.exitCode !== 0) throw new Error(`${command.join(" ")}: ${child.stderr}`);
  return child.stdout.toString();
}

/** Needs root, iproute2 and nftables; `delay` python3 and /dev/net/tun too. */
export function networkLab(): NetworkLab {
  const bytes = randomBytes(3);
  const id = bytes.toString("hex");
  const names = { host: `aeg-${id}-h`, middle: `aeg-${id}-m` } as const;
  const here = `aeg${id}`;
  const inside = (place: keyof typeof names) => ["ip", "netns", "exec", names[place]];
  // Two labs at once must not share addresses: their ends are on this machine.
  const net = `10.${64 + ((bytes[0] ?? 0) % 128)}`;
  const third = (bytes[1] ?? 0) & 0xfc;
  const [host, middle] = [`${net}.${third}.2`, `${net}.${third}.1`];
  const [beyond, world] = [`${net}.${third + 1}.1`, `${net}.${third + 1}.2`];
  const [slowHost, slowMiddle] = [`${net}.${third + 2}.2`, `${net}.${third + 2}.1`];
  const nft = (rules: string) => {
    const child = Bun.spawnSync([...inside("middle"), "nft", "-f", "-"], { stdin: Buffer.from(rules), stderr: "pipe" });
    if (child.exitCode !== 0) throw new Error(`nft: ${child.stderr}`);
  };
  let slow: Bun.Subprocess | null = null;

  function destroy(): void {
    slow?.kill("SIGKILL");
    // The end of a pair that is here goes with its other end.
    for (const name of Object.values(names)) Bun.spawnSync(["ip", "netns", "del", name]);
    Bun.spawnSync(["ip", "link", "del", here], { stderr: "ignore" });
  }

  try {
    for (const name of Object.values(names)) {
      run("ip", "netns", "add", name);
      run("ip", "-n", name, "link", "set", "lo", "up");
    }
    run(
      ...["ip", "link", "add", "up0", "netns", names.host, "type", "veth"],
      ...["peer", "name", "to-host", "netns", names.middle],
    );
    run("ip", "link", "add", here, "type", "veth", "peer", "name", "to-world", "netns", names.middle);
    run("ip", "-n", names.host, "addr", "add", `${host}/24`, "dev", "up0");
    run("ip", "-n", names.host, "link", "set", "up0", "up");
    run("ip", "-n", names.middle, "addr", "add", `${middle}/24`, "dev", "to-host");
    run("ip", "-n", names.middle, "link", "set", "to-host", "up");
    run("ip", "-n", names.middle, "addr", "add", `${beyond}/24`, "dev", "to-world");
    run("ip", "-n", names.middle, "link", "set", "to-world", "up");
    run("ip", "addr", "add", `${world}/24`, "dev", here);
    run("ip", "link", "set", here, "up");
    run("ip", "-n", names.host, "route", "add", "default", "via", middle);
    // Back to the host, and nowhere else, through the middle.
    for (const address of [host, slowHost]) run("ip", "route", "add", `${address}/32`, "via", beyond);
    const chain = (name: string, hook: string, policy: string) =>
      `add chain ip lab ${name} { type filter hook ${hook} priority 0; policy ${policy}; }\n`;
    nft(
      `add table ip lab\n${chain("pass", "forward", "drop")}${chain("in", "input", "accept")}${chain("out", "output", "accept")}`,
    );
    run(...inside("middle"), "sysctl", "-qw", "net.ipv4.ip_forward=1");
  } catch (error) {
    destroy();
    throw error;
  }

  let forwarding = false;
  let lost = 0;
  function rules(): void {
    const drop = lost >= 1 ? "drop" : lost > 0 ? `numgen random mod 1000 < ${Math.round(lost * 1000)} drop` : "";
    const chain = (name: string, match: string) =>
      `flush chain ip lab ${name}\n${drop ? `add rule ip lab ${name} ${match} ${drop}\n` : ""}`;
    const pass = forwarding ? "add rule ip lab pass accept\n" : "";
    nft(`${chain("pass", "")}${pass}${chain("in", 'iifname "to-host"')}${chain("out", 'oifname "to-host"')}`);
  }

  return {
    host,
    middle,
    world,
    in: inside,
    forward(on) {
      forwarding = on;
      rules();
    },
    lose(share) {
      lost = share;
      rules();
    },
    limit(bytesPerSecond) {
      Bun.spawnSync(["tc", "-n", names.middle, "qdisc", "del", "dev", "to-host", "root"], { stderr: "ignore" });
      if (bytesPerSecond > 0)
        run(
          ...["tc", "-n", names.middle, "qdisc", "add", "dev", "to-host", "root", "tbf"],
          ...["rate", `${bytesPerSecond * 8}bit`, "burst", "32kbit", "latency", "400ms"],
        );
    },
    async delay(ms) {
      const program = join(import.meta.dir, "tun-delay.py");
      const child = Bun.spawn(["python3", program, names.host, names.middle, "slow0", String(ms)], {
        stdin: "ignore",
        stdout: "pipe",
        stderr: "inherit",
      });
      slow = child;
      // It says so once both ends are there.
      await child.stdout.getReader().read();
      for (const [name, own] of [
        [names.host, slowHost],
        [names.middle, slowMiddle],
      ] as const) {
        run("ip", "-n", name, "addr", "add", `${own}/24`, "dev", "slow0");
        run("ip", "-n", name, "link", "set", "slow0", "up");
      }
      run("ip", "-n", names.host, "route", "replace", "default", "via", slowMiddle);
    },
    connections() {
      const lines = run(...inside("host"), "ss", "-Htn", "state", "established").split("\n");
      return lines
        .flatMap((line) => line.trim().split(/\s+/)[3] ?? [])
        .filter((address) => !address.startsWith("127."));
    },
    destroy,
  };
}
