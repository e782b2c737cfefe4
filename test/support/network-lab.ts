/**
 * A small network on this machine: a host, a way in between and the world beyond, in namespaces of the kernel's. What the
 * host may reach is decided here, so that "never goes around the proxy" is something the kernel shows.
 */
import { randomBytes } from "node:crypto";

export interface NetworkLab {
  /** Addresses: the host's own, the middle's as the host sees it, the world's. */
  readonly host: string;
  readonly middle: string;
  readonly world: string;
  /** Words to put before a command so that it runs there. */
  in(place: "host" | "middle" | "world"): string[];
  /** Whether the middle passes packets between host and world; off to begin with. */
  forward(on: boolean): void;
  /** Drops this share of the packets to and from the host, 0 to 1. 1 is a dead path without a word. */
  lose(share: number): void;
  /** Bytes per second towards the host; 0 = no limit. */
  limit(bytesPerSecond: number): void;
  /** The host's established TCP connections, as `remote:port`. */
  connections(): string[];
  destroy(): void;
}

function run(...command: string[]): string {
  const child = Bun.spawnSync(command, { stdout: "pipe", stderr: "pipe" });
  if (child.exitCode !== 0) throw new Error(`${command.join(" ")}: ${child.stderr}`);
  return child.stdout.toString();
}

/** Needs root, iproute2 and nftables. */
export function networkLab(): NetworkLab {
  const id = randomBytes(3).toString("hex");
  const names = { host: `aeg-${id}-h`, middle: `aeg-${id}-m`, world: `aeg-${id}-w` } as const;
  const inside = (place: keyof typeof names) => ["ip", "netns", "exec", names[place]];
  const [host, middle, beyond, world] = ["10.91.1.2", "10.91.1.1", "10.91.2.1", "10.91.2.2"];
  const nft = (rules: string) => {
    const child = Bun.spawnSync([...inside("middle"), "nft", "-f", "-"], { stdin: Buffer.from(rules), stderr: "pipe" });
    if (child.exitCode !== 0) throw new Error(`nft: ${child.stderr}`);
  };
  try {
    for (const name of Object.values(names)) {
      run("ip", "netns", "add", name);
      run("ip", "-n", name, "link", "set", "lo", "up");
    }
    const link = (place: "host" | "world", own: string, other: string) => {
      run(
        "ip",
        "link",
        "add",
        "up0",
        "netns",
        names[place],
        "type",
        "veth",
        "peer",
        "name",
        `to-${place}`,
        "netns",
        names.middle,
      );
      run("ip", "-n", names[place], "addr", "add", `${own}/24`, "dev", "up0");
      run("ip", "-n", names[place], "link", "set", "up0", "up");
      run("ip", "-n", names.middle, "addr", "add", `${other}/24`, "dev", `to-${place}`);
      run("ip", "-n", names.middle, "link", "set", `to-${place}`, "up");
      run("ip", "-n", names[place], "route", "add", "default", "via", other);
    };
    link("host", host, middle);
    link("world", world, beyond);
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

  function destroy(): void {
    for (const name of Object.values(names)) Bun.spawnSync(["ip", "netns", "del", name]);
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
          "tc",
          "-n",
          names.middle,
          "qdisc",
          "add",
          "dev",
          "to-host",
          "root",
          "tbf",
          "rate",
          `${bytesPerSecond * 8}bit`,
          "burst",
          "32kbit",
          "latency",
          "400ms",
        );
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
