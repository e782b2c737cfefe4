/** Tells what this host is and how it is doing: host.info. */
import { readFile, statfs } from "node:fs/promises";
import os from "node:os";
import { z } from "zod";
import type { Clock } from "../platform/clock.ts";
import { userName } from "../platform/user-name.ts";
import { inputSchema, parseArgs } from "./parse-args.ts";
import { answered } from "./results.ts";
import type { Tool } from "./tool.ts";

/** Most file systems and most interfaces in an answer. */
const maxListed = 64;

const schema = z.strictObject({});

export const hostInfo = ({ clock }: { clock: Clock }): Tool => ({
  descriptor: {
    name: "host.info",
    description: "Tells the host's system, processors, memory, disks, network addresses, load and time.",
    ...{ readOnly: true, destructive: false, fleetCapable: true, inputSchema: inputSchema(schema) },
  },
  async prepare(value) {
    const parsed = parseArgs(schema, value);
    if (parsed.kind === "invalid_args") return parsed;
    return {
      kind: "ready",
      call: { accesses: [], run: async ({ maxOutputBytes }) => answered(await facts(clock), maxOutputBytes) },
    };
  },
});

async function facts(clock: Clock): Promise<Record<string, unknown>> {
  const cpus = os.cpus();
  return {
    status: "success",
    hostname: os.hostname(),
    os: { type: process.platform, name: await systemName(), kernel: os.release(), arch: process.arch },
    cpu: { model: cpus[0]?.model ?? "unknown", count: cpus.length, load_average: os.loadavg() },
    memory: { total_bytes: os.totalmem(), available_bytes: (await availableBytes()) ?? os.freemem() },
    uptime_secs: Math.round(clock.sinceBoot() / 1000),
    time: new Date(clock.now()).toISOString(),
    time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    disks: await disks(),
    network: interfaces(),
    user: { uid: process.getuid?.() ?? null, name: await userName() },
  };
}

/** `Debian GNU/Linux 12 (bookworm)` where the system says so, else what the kernel is called. */
async function systemName(): Promise<string> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  return /^PRETTY_NAME="?(.*?)"?$/m.exec(release)?.[1] ?? `${os.type()} ${os.version()}`;
}

/** What programs could still take without swapping, which is more than what is free. */
async function availableBytes(): Promise<number | null> {
  const text = process.platform === "linux" ? await readFile("/proc/meminfo", "utf8").catch(() => "") : "";
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  return kib === undefined ? null : Number(kib) * 1024;
}

/** File systems that lie on a device of this machine. A network's could keep us waiting, and others hold no files. */
const onDevices = /^(?:ext[234]|xfs|btrfs|zfs|f2fs|vfat|exfat|ntfs3?|apfs|hfs|jfs|reiserfs|bcachefs)$/;

interface Mount {
  device: string;
  path: string;
  type: string;
}

async function mounts(): Promise<Mount[]> {
  if (process.platform === "win32") return [{ device: "C:", path: "C:\\", type: "ntfs" }];
  const text = await readFile("/proc/self/mounts", "utf8").catch(() => "");
  const found = text.split("\n").flatMap((line) => {
    const [device = "", path = "", type = ""] = line.split(" ").map(unescaped);
    return onDevices.test(type) ? [{ device, path, type }] : [];
  });
  // A device that is seen at several places is told once, at the shortest.
  const shortest = [...found].sort((left, right) => left.path.length - right.path.length);
  const first = shortest.filter((one, index) => shortest.findIndex(({ device }) => device === one.device) === index);
  return first.length > 0 ? first : [{ device: "", path: "/", type: "" }];
}

const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

async function disks(): Promise<Record<string, unknown>[]> {
  const told: Record<string, unknown>[] = [];
  for (const { path, type, device } of (await mounts()).slice(0, maxListed)) {
    const stats = await statfs(path).catch(() => null);
    if (!stats) continue;
    const { bsize, blocks, bavail } = stats;
    told.push({ path, ...(type && { type, device }), total_bytes: bsize * blocks, available_bytes: bsize * bavail });
  }
  return told;
}

function interfaces(): Record<string, unknown>[] {
  const all = Object.entries(os.networkInterfaces()).map(([name, addresses = []]) => ({ name, addresses }));
  return all
    .filter(({ addresses }) => addresses.some(({ internal }) => !internal))
    .slice(0, maxListed)
    .map(({ name, addresses }) => ({ name, addresses: addresses.map(({ address }) => address) }));
}
