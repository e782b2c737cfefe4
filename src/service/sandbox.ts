/** What the sandbox of an installed unit lets a tool do, read from the unit and its drop-ins as systemd reads them. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Owner } from "./spec.ts";
import { unitPath } from "./systemd-unit.ts";

/** `empty`: nothing lies below but what other rules show; `own`: a folder that only this service sees. */
type Effect = "read-only" | "writable" | "empty" | "closed" | "own";

interface Rule {
  path: string;
  effect: Effect;
  /** The line of the unit. */
  by: string;
}

export interface Sandbox {
  /** Path of the unit. */
  unit: string;
  rules: readonly Rule[];
  /** The line that refuses memory which is writable and executable; null when none does. */
  deniesJit: string | null;
  /** Tools reach the user's service manager. */
  hasUserBus: boolean;
}

export interface Denial {
  /** The line of the unit, such as `ProtectSystem=strict`. */
  by: string;
  what: string;
}

/** Null where no unit is installed for this owner. */
export async function installedSandbox(owner: Owner, runtimeDir: string): Promise<Sandbox | null> {
  const path = unitPath(owner);
  const unit = await readFile(path, "utf8").catch(() => null);
  if (unit === null) return null;
  const folders = owner.runAs === null ? ["/etc/systemd/user", join(path, "..")] : [join(path, "..")];
  const found = await Promise.all(folders.map((folder) => dropIns(`${folder}/aegis-edge.service.d`)));
  // By name, whatever folder they lie in; of two with one name the later folder's counts.
  const byName = [...new Map(found.flat()).entries()].sort(([left], [right]) => (left < right ? -1 : 1));
  const texts = byName.map(([, text]) => text);
  return readSandbox(path, [unit, ...texts], { home: owner.home, runtimeDir });
}

async function dropIns(folder: string): Promise<[name: string, text: string][]> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(".conf"));
  return await Promise.all(
    names.map(async (name) => [name, await readFile(join(folder, name), "utf8").catch(() => "")] as [string, string]),
  );
}

/** `texts`: the unit, then its drop-ins in the order in which they count. */
export function readSandbox(
  unit: string,
  texts: readonly string[],
  place: { home: string; runtimeDir: string },
): Sandbox {
  const lines = texts.flatMap(serviceLines);
  const value = (name: string) => lines.findLast(([key]) => key === name)?.[1] ?? "";
  const isOn = (name: string) => /^(?:1|yes|true|on)$/i.test(value(name));
  /** An empty line forgets those before it. */
  const entries = (name: string) => {
    const all = lines.flatMap(([key, text]) => (key === name ? [text] : []));
    return all.slice(all.lastIndexOf("") + 1).flatMap((text) => listEntries(text, place));
  };
  const rules: Rule[] = [];
  const put = (effect: Effect, by: string, ...paths: string[]) =>
    rules.push(...paths.map((path) => ({ path, effect, by })));

  const system = value("ProtectSystem");
  if (system === "strict") {
    put("read-only", "ProtectSystem=strict", "/");
    put("writable", "ProtectSystem=strict", "/dev", "/proc", "/sys", ...homes);
  } else if (isOn("ProtectSystem") || system === "full")
    put("read-only", `ProtectSystem=${system}`, "/usr", "/boot", ...(system === "full" ? ["/etc"] : []));
  for (const [name, effect] of [
    ["ReadWritePaths", "writable"],
    ["ReadOnlyPaths", "read-only"],
    ["InaccessiblePaths", "closed"],
  ] as const)
    for (const [path = ""] of entries(name)) put(effect, `${name}=${path}`, path);
  const home = value("ProtectHome");
  if (home === "tmpfs") put("empty", "ProtectHome=tmpfs", ...homes);
  else if (home === "read-only") put("read-only", "ProtectHome=read-only", ...homes);
  else if (isOn("ProtectHome")) put("closed", `ProtectHome=${home}`, ...homes);
  if (isOn("PrivateTmp")) put("own", "PrivateTmp=true", "/tmp", "/var/tmp");
  if (isOn("PrivateDevices")) {
    put("empty", "PrivateDevices=true", "/dev");
    put("writable", "PrivateDevices=true", ...devices.map((name) => `/dev/${name}`));
  }
  if (isOn("ProtectKernelTunables")) put("read-only", "ProtectKernelTunables=true", "/proc/sys", "/sys");
  if (isOn("ProtectKernelModules")) put("closed", "ProtectKernelModules=true", "/usr/lib/modules", "/lib/modules");
  if (isOn("ProtectKernelLogs")) put("closed", "ProtectKernelLogs=true", "/proc/kmsg", "/dev/kmsg");
  if (isOn("ProtectControlGroups")) put("read-only", "ProtectControlGroups=true", "/sys/fs/cgroup");
  for (const [path = "", options] of entries("TemporaryFileSystem"))
    put(options?.split(",").includes("ro") ? "empty" : "own", `TemporaryFileSystem=${path}`, path);
  for (const [name, effect] of [
    ["BindReadOnlyPaths", "read-only"],
    ["BindPaths", "writable"],
  ] as const)
    for (const [from = "", to = from] of entries(name)) put(effect, `${name}=${to}`, to);
  return {
    unit,
    rules,
    deniesJit: isOn("MemoryDenyWriteExecute") ? "MemoryDenyWriteExecute=true" : null,
    hasUserBus: home === "" || rules.some(({ path }) => path === `${place.runtimeDir}/bus`),
  };
}

const homes = ["/home", "/root", "/run/user"];
const devices = ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd", "stdin", "stdout", "stderr"];

/** What denies it, or null. Of the rules that fit, the one of the longest path counts, and of those the last. */
export function judgePath({ rules }: Sandbox, path: string, mode: "read" | "write"): Denial | null {
  const deciding = rules
    .filter((rule) => isBelow(path, rule.path))
    .reduce<Rule | null>((best, rule) => (best === null || rule.path.length >= best.path.length ? rule : best), null);
  if (deciding === null) return null;
  const { effect, by } = deciding;
  // A folder on the way to something that is shown is there too.
  const isThere = path === deciding.path || rules.some((rule) => shows(rule.effect) && isBelow(rule.path, path));
  if (effect === "closed" || (effect === "empty" && !isThere)) return { by, what: "it is hidden" };
  if (mode === "write" && (effect === "read-only" || effect === "empty")) return { by, what: "it cannot be written" };
  return null;
}

const shows = (effect: Effect): boolean => effect === "read-only" || effect === "writable";
const isBelow = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);

/** Each `Name=value` of the section [Service]. */
function serviceLines(text: string): [key: string, value: string][] {
  let section = "";
  return text
    .replace(/\\\n/g, " ")
    .split("\n")
    .flatMap((line): [string, string][] => {
      section = /^\s*\[(.+)\]\s*$/.exec(line)?.[1] ?? section;
      const [, key = "", value = ""] = /^\s*([A-Za-z]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
      return section === "Service" && key !== "" ? [[key, value]] : [];
    });
}

/** A list of paths, each with what follows its colons: blanks part entries, quotes and backslashes keep what they say. */
function listEntries(text: string, place: { home: string; runtimeDir: string }): string[][] {
  const entries: string[][] = [[]];
  let quote = "";
  let fields = entries[0] ?? [];
  const add = (piece: string) => void fields.push(`${fields.pop() ?? ""}${piece}`);
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? "";
    if (char === "\\") add(text[++at] ?? "");
    else if (char === "%") add(specifier(text[++at] ?? "", place));
    else if (char === quote) quote = "";
    else if (quote !== "") add(char);
    else if (char === '"' || char === "'") quote = char;
    else if (char === ":") fields.push("");
    else if (/\s/.test(char)) {
      fields = [];
      entries.push(fields);
    } else add(char);
  }
  return entries
    .filter((entry) => entry.length > 0)
    .map(([path = "", ...rest]) => [path.replace(/^[-+]+(?=\/)/, ""), ...rest]);
}

const specifier = (letter: string, { home, runtimeDir }: { home: string; runtimeDir: string }): string =>
  letter === "h" ? home : letter === "t" ? runtimeDir : letter === "%" ? "%" : `%${letter}`;
