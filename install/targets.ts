/** What a release is built for, and where the runtime of each target comes from. */
import { join } from "node:path";

export interface Target {
  /** As releases and `aegis --version` spell it: `linux-x64`. */
  name: string;
  os: "linux" | "darwin" | "windows";
  cpu: "x64" | "arm64";
  bunTarget: string;
  /** Path of its Bun below install/runtimes. */
  runtime: string;
  executable: "aegis" | "aegis.exe";
}

const target = (os: Target["os"], cpu: Target["cpu"], bunCpu: string): Target => {
  const suffix = os === "windows" ? ".exe" : "";
  return {
    name: `${os}-${cpu}`,
    os,
    cpu,
    bunTarget: `bun-${os}-${cpu}`,
    runtime: join("node_modules/@oven", `bun-${os}-${bunCpu}`, "bin", `bun${suffix}`),
    executable: suffix ? "aegis.exe" : "aegis",
  };
};

export const releaseTargets: readonly Target[] = [
  target("linux", "x64", "x64"),
  target("linux", "arm64", "aarch64"),
  target("darwin", "x64", "x64"),
  target("darwin", "arm64", "aarch64"),
  target("windows", "x64", "x64"),
];
