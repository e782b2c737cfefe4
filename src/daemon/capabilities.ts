/** What this host tells its controller about itself: its system, the programs found on PATH, its tools. */
import { access, constants } from "node:fs/promises";
import { arch, platform } from "node:os";
import { delimiter, join } from "node:path";
import type { ToolDescriptor } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";

/** Looked for on PATH, in this order; `shell` is always there. */
const programs = [
  "bash",
  "zsh",
  "sh",
  "pwsh",
  "docker",
  "podman",
  "kubectl",
  "helm",
  "git",
  "ssh",
  "curl",
  "jq",
  "terraform",
  "ansible",
  "systemctl",
];

const mounts: Partial<Record<NodeJS.Platform, string[]>> = {
  linux: ["/", "/home", "/etc", "/var/log"],
  darwin: ["/", "/Users", "/Library", "/var/log"],
  win32: ["C:\\"],
};

const archNames: Partial<Record<NodeJS.Architecture, string>> = { x64: "x86_64", arm64: "aarch64" };

export interface Detected {
  os: string;
  arch: string;
  localTools: readonly string[];
  mountPoints: readonly string[];
}

export async function detect(path: string): Promise<Detected> {
  const found = await Promise.all(programs.map(async (program) => ((await onPath(program, path)) ? [program] : [])));
  return {
    os: platform() === "win32" ? "windows" : platform(),
    arch: archNames[process.arch] ?? arch(),
    localTools: ["shell", ...found.flat()],
    mountPoints: mounts[platform()] ?? ["/"],
  };
}

async function onPath(program: string, path: string): Promise<boolean> {
  const name = platform() === "win32" ? `${program}.exe` : program;
  for (const directory of path.split(delimiter)) {
    if (directory === "") continue;
    const usable = await access(join(directory, name), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return true;
  }
  return false;
}

export interface CapabilitiesInput extends Detected {
  customLabels: Readonly<Record<string, string>>;
  hostName: string;
  /** How often this host sends a heartbeat when its controller asks for nothing else. */
  heartbeatIntervalMs: number;
  tools: readonly ToolDescriptor[];
}

/** A serialised EdgeCapabilities. */
export function encodeCapabilities({ tools, ...host }: CapabilitiesInput): Uint8Array {
  return aegis.cluster.v1.EdgeCapabilities.encode({
    os: host.os,
    arch: host.arch,
    localTools: [...host.localTools],
    mountPoints: [...host.mountPoints],
    customLabels: { ...host.customLabels },
    hostName: host.hostName,
    heartbeatSecs: host.heartbeatIntervalMs / 1000,
    tools: tools.map(({ inputSchema, ...tool }) => ({
      ...tool,
      inputSchemaJson: Buffer.from(JSON.stringify(inputSchema)),
    })),
  }).finish();
}
