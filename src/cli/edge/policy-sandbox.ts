/** The other half of `edge policy test`: whether the sandbox of the installed service lets a call do what policy allows. */
import { basename, dirname } from "node:path";
import { pathsOf } from "../../daemon/hidden-places.ts";
import type { HostTools } from "../../daemon/run-tools.ts";
import type { Access } from "../../policy/access.ts";
import { installedSandbox, judgePath, type Sandbox } from "../../service/sandbox.ts";
import { systemHome, systemUser } from "../../service/system-user.ts";
import type { Surroundings } from "../command.ts";
import { serviceStateDir } from "./service-spec.ts";

export type SandboxAnswer =
  /** Nothing but the policy was asked, and why. */
  | { kind: "not_asked"; why: string }
  | { kind: "allowed"; unit: string }
  | {
      kind: "denied";
      /** The line of the unit, or what confines tools. */
      by: string;
      /** The unit; null when it is no line of one. */
      unit: string | null;
      reason: string;
      /** The command that would let it; null when there is none. */
      remedy: string | null;
    };

export interface SandboxQuestion {
  stateDir: string;
  accesses: readonly Access[];
  identity: HostTools["identity"];
  /** What no tool may read. */
  closed: readonly string[];
}

export async function askSandbox(question: SandboxQuestion, around: Surroundings): Promise<SandboxAnswer> {
  const { stateDir, accesses, identity, closed } = question;
  if (identity.protected) {
    const path = accesses
      .filter(({ kind }) => kind !== "path")
      .flatMap(pathsOf)
      .find((one) => isBelowAny(one, closed));
    if (path !== undefined) {
      const by = process.platform === "darwin" ? "sandbox-exec, around each command" : "Landlock, around each command";
      return { kind: "denied", by, unit: null, reason: `no command reaches ${path}`, remedy: null };
    }
  }
  if (process.platform !== "linux")
    return { kind: "not_asked", why: "a service on this system has no sandbox: this is the policy alone" };
  const system = stateDir.startsWith(`${systemHome}/`);
  const owner = system
    ? { runAs: systemUser, home: systemHome, stateDir }
    : { runAs: null, home: around.home, stateDir };
  const runtimeDir = system ? "/run" : `/run/user/${process.getuid?.() ?? 0}`;
  const isService = stateDir === serviceStateDir(system, around);
  const sandbox = isService ? await installedSandbox(owner, runtimeDir) : null;
  if (sandbox === null)
    return { kind: "not_asked", why: "no service is installed for this state directory: this is the policy alone" };
  return denied(sandbox, accesses) ?? { kind: "allowed", unit: sandbox.unit };
}

const install = "aegis edge service install";
/** Programs that end at once where no memory may be writable and executable. */
const needJit = new Set(["node", "nodejs"]);

function denied(sandbox: Sandbox, accesses: readonly Access[]): SandboxAnswer | null {
  const { unit } = sandbox;
  for (const access of accesses) {
    const mode = access.kind === "path" ? access.mode : "read";
    for (const path of pathsOf(access)) {
      const denial = judgePath(sandbox, path, mode);
      if (denial === null) continue;
      const { by, what } = denial;
      return {
        kind: "denied",
        by,
        unit,
        reason: `${path}: ${what}`,
        remedy: `${install} --allow ${shown(path, mode)}`,
      };
    }
    if (access.kind !== "command") continue;
    const name = basename(access.executable);
    if (sandbox.deniesJit !== null && needJit.has(name)) {
      const reason = `${name} needs memory that is writable and executable`;
      return { kind: "denied", by: sandbox.deniesJit, unit, reason, remedy: `${install} --allow-jit` };
    }
    if (!sandbox.hasUserBus && name === "systemctl" && access.args.includes("--user")) {
      const reason = "the user's service manager is hidden";
      return { kind: "denied", by: "ProtectHome", unit, reason, remedy: `${install} --allow-user-bus` };
    }
  }
  return null;
}

/** The folder to show so that this can be done. */
function shown(path: string, mode: "read" | "write"): string {
  const folder = dirname(path) === "/" || /^\/(?:home\/[^/]+|root)$/.test(dirname(path)) ? path : dirname(path);
  return mode === "write" ? `${folder}:rw` : folder;
}

const isBelowAny = (path: string, folders: readonly string[]): boolean =>
  folders.some((folder) => path === folder || path.startsWith(`${folder}/`));

export function sandboxInWords(answer: SandboxAnswer): [string, string][] {
  switch (answer.kind) {
    case "not_asked":
      return [["sandbox", answer.why]];
    case "allowed":
      return [["sandbox", `allowed by ${answer.unit}`]];
    case "denied":
      return [
        ["sandbox", `denied by ${answer.by}${answer.unit === null ? "" : ` in ${answer.unit}`}: ${answer.reason}`],
        ...(answer.remedy === null ? [] : [["to allow it", answer.remedy] as [string, string]]),
      ];
  }
}
