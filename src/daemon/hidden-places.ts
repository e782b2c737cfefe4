/** Why a tool does not find what its host's owner has: the service's sandbox hides it, and which command shows it. */
import { lstat, readFile } from "node:fs/promises";
import { dirname, isAbsolute } from "node:path";
import type { Environment } from "../platform/paths.ts";
import type { Access } from "../policy/access.ts";
import { quote } from "../policy/quote.ts";
import type { ToolResult } from "../tools/tool.ts";

/** The empty folder that the sandbox has put over what lies at an absolute path, be there something or not; else null. */
export type Hidden = (path: string) => string | null;

/** What the service's unit covers with an empty folder. */
const covered = ["/home", "/root", "/run/user"];

/** Where the daemon is no service of systemd, nothing is hidden. */
export async function hiddenPlaces(env: Environment, home: string): Promise<Hidden> {
  if (!env.INVOCATION_ID) return () => null;
  const text = await readFile("/proc/self/mountinfo", "utf8").catch(() => "");
  return hiddenBy(text, home);
}

/** `mountinfo` as /proc/self/mountinfo has it. */
export function hiddenBy(mountinfo: string, home: string): Hidden {
  /** The last mount at a point is the one that is seen. */
  const mounts = new Map<string, boolean>();
  for (const line of mountinfo.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const [, , , root = "", point = ""] = before.split(" ").map(plain);
    const [type] = after.split(" ");
    if (!isAbsolute(point)) continue;
    const empty = type === "tmpfs" && [...covered, home].includes(point);
    mounts.set(point, empty || root.endsWith("/inaccessible/dir"));
  }
  return (path) => {
    for (let at = path; ; at = dirname(at)) {
      const hides = mounts.get(at);
      if (hides !== undefined) return hides ? at : null;
      if (at === dirname(at)) return null;
    }
  };
}

/** The kernel writes blanks and backslashes as three octal digits. */
const plain = (word: string): string =>
  word.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/**
 * A failure with what hides what the call was about, where that is so: in its message, and as `note` beside it, because
 * of a command that ended with a status people are shown the status alone.
 */
export async function explainHidden(
  result: ToolResult,
  accesses: readonly Access[],
  hidden: Hidden,
): Promise<ToolResult> {
  if (result.ok) return result;
  for (const path of accesses.flatMap(pathsOf)) {
    const cover = hidden(path);
    if (cover === null || (await lstat(path).catch(() => null))) continue;
    const folder = dirname(path) === cover ? path : dirname(path);
    const note = remedy(path, folder);
    const errorMessage = `${result.errorMessage ?? "it failed"}; ${note}`;
    return { ...result, errorMessage, structured: { ...result.structured, note } };
  }
  return result;
}

/** The absolute paths that an access names, also among the arguments of a command. */
export function pathsOf(access: Access): string[] {
  switch (access.kind) {
    case "path":
      return [access.path];
    case "command":
      // Also what follows an option's equals sign.
      return [access.executable, ...access.args.flatMap((arg) => [arg, arg.slice(arg.indexOf("=") + 1)])].filter(
        isAbsolute,
      );
    case "shell":
      return access.line.split(/[\s"'=;|&<>()]+/).filter(isAbsolute);
    default:
      return [];
  }
}

const remedy = (path: string, folder: string): string =>
  `the service's sandbox hides ${quote(path)} from tools; the host's owner shows them a folder with: aegis edge service install --allow ${folder}`;
