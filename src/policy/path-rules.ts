/** Which real paths a rule stands for. Grants are read narrowly, denials widely. */
import { expandHome } from "../platform/paths.ts";
import { matchesRun } from "./match.ts";

export type PathStyle = "posix" | "windows";

export interface PathWorld {
  /** Never touched by any tool, whatever a context says: real paths, each with everything below it. */
  protectedPaths: readonly string[];
  /** The real path of the home directory, for `~`. */
  home: string;
  /** How paths are written; this machine's way unless stated. */
  style?: PathStyle;
}

export const styleOf = (world: Pick<PathWorld, "style">): PathStyle =>
  world.style ?? (process.platform === "win32" ? "windows" : "posix");

/**
 * What no tool touches unless the owner writes a `path_denylist` without it. A rule without a leading `/` or `~` stands
 * for that name in any directory, and every rule for everything below what it names.
 */
export const usualDenylist: readonly string[] = [
  ...[".ssh", ".gnupg", ".aws", ".azure", ".kube", ".config/gcloud"],
  ...[".netrc", ".git-credentials", "**/.env*"],
];

/** The segments of a path that can be judged: absolute and in its one spelling. Null for any other text. */
export function segmentsOf(path: string, style: PathStyle): readonly string[] | null {
  if (path.includes("\0") || !path.isWellFormed()) return null;
  if (style === "windows") {
    const [, drive = "", rest = ""] = /^([A-Za-z]:)[\\/](.*)$/s.exec(path) ?? [];
    if (drive === "") return null;
    const names = rest === "" ? [] : rest.split(/[\\/]/);
    // A colon opens another stream of the file; dots and spaces at the end of a name do not count for the system.
    return names.some((name) => name === "" || name.includes(":") || /[. ]$/.test(name)) ? null : [drive, ...names];
  }
  if (!path.startsWith("/")) return null;
  const names = path === "/" ? [] : path.slice(1).split("/");
  return names.some((name) => name === "" || name === "." || name === "..") ? null : names;
}

/** An entry without `*` or `?` grants that path and all below it, an entry with them only what it matches as a whole. */
export function grantsPath(entry: string, path: readonly string[], world: PathWorld): boolean {
  const style = styleOf(world);
  const rule = ruleSegments(entry, world);
  const same = style === "windows" ? (text: string) => text.toLowerCase() : (text: string) => text;
  return matchesSegments(isGlob(entry) ? rule : [...rule, "**"], path, same);
}

/** Upper and lower case, and characters that some file system takes for the same, make no difference to a denial. */
export const deniesPath = (entry: string, path: readonly string[], world: PathWorld): boolean =>
  matchesSegments([...anywhere(entry, ruleSegments(entry, world)), "**"], path, fold);

/** The protected path that `path` is or lies below; with `mode` write also one that lies below `path`. */
export function protectedBy(path: readonly string[], mode: "read" | "write", world: PathWorld): string | undefined {
  if (styleOf(world) === "posix" && isInsideOfMachine(path)) return `/${path.slice(0, 2).join("/")}`;
  const own = path.map(fold);
  const startsWith = (long: readonly string[], short: readonly string[]) =>
    short.every((name, index) => long[index] === name);
  return [...world.protectedPaths, expandHome("~/.aegis", world.home)].find((one) => {
    const kept = ruleSegments(one, world).map(fold);
    return startsWith(own, kept) || (mode === "write" && startsWith(kept, own));
  });
}

/**
 * Memory, descriptors and environment of processes, this one's too, and disks without their file systems: whoever reads
 * these has read every protected path.
 */
function isInsideOfMachine([root, name = ""]: readonly string[]): boolean {
  if (root === "proc") return /^(?:\d+|self|thread-self|kcore)$/.test(name);
  return root === "dev" && name !== "" && name !== "shm";
}

export const isGlob = (entry: string): boolean => /[*?]/.test(entry);

/** What is wrong with an entry of `path_allowlist`, or null. */
export function allowEntryProblem(entry: string): string | null {
  if (/^(?:~(?:[/\\]|$)|\/|[A-Za-z]:[\\/]|\*\*(?:\/|$))/.test(entry)) return denyEntryProblem(entry);
  return "expected an absolute path, a path below ~/ or a pattern that begins with **/";
}

/** What is wrong with an entry of `path_denylist`, or null. */
export function denyEntryProblem(entry: string): string | null {
  if (entry === "" || entry.includes("\0")) return "expected a path or a pattern";
  if (/^~[^/\\]/.test(entry)) return "expected ~/, which is the home directory of this host's own user";
  if (entry.split(/[\\/]/).some((name) => name === ".." || name === ".")) return "expected a path without . and ..";
  return null;
}

function ruleSegments(entry: string, world: PathWorld): readonly string[] {
  const expanded = expandHome(entry, world.home);
  return expanded.split(styleOf(world) === "windows" ? /[\\/]+/ : /\/+/).filter((name) => name !== "");
}

const anywhere = (entry: string, rule: readonly string[]): readonly string[] =>
  /^(?:~|\/|\\|[A-Za-z]:[\\/])/.test(entry) ? rule : ["**", ...rule];

const matchesSegments = (rule: readonly string[], path: readonly string[], same: (text: string) => string): boolean =>
  matchesRun(
    rule,
    path,
    (part) => part === "**",
    (part, name) => (isGlob(part) ? matchesName(same(part), same(name)) : same(part) === same(name)),
  );

const matchesName = (pattern: string, name: string): boolean =>
  matchesRun(
    [...pattern],
    [...name],
    (char) => char === "*",
    (char, one) => char === "?" || char === one,
  );

/** One text for all that a case-insensitive or normalising file system could take for the same name, and some more. */
const fold = (name: string): string =>
  /^[\x20-\x7e]*$/.test(name)
    ? name.toLowerCase()
    : name
        .normalize("NFKC")
        .replace(/\p{Default_Ignorable_Code_Point}/gu, "")
        .toUpperCase()
        .toLowerCase();
