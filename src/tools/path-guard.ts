/**
 * Finds what a path leads to and holds on to it, so that what policy judges is what is used, whatever happens to names
 * meanwhile. On Linux the folder is opened, then its entry through that descriptor without following a link: the real
 * path comes from the kernel, and all that follows goes through the descriptors. Elsewhere names are resolved again at
 * the time of use and device and inode compared, which leaves a moment between comparing and using.
 */
import { constants, type Stats } from "node:fs";
import { lstat, readFile, readlink, realpath, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, normalize, parse, sep } from "node:path";
import { closeDescriptor, O_PATH, openDescriptor, statDescriptor } from "../platform/descriptors.ts";

export type TargetKind = "file" | "directory" | "symlink" | "other" | "missing";

/** What a path leads to. Must be closed. */
export interface Target {
  /** The real path: what policy is asked about. */
  path: string;
  kind: TargetKind;
  /** Null when it is missing. */
  stats: Stats | null;
  /** Of a missing one, what there is to be made below `folder`, the last being its own name. */
  missing: readonly string[];
  /** Why it cannot be reached although policy may allow it, as the system's error code; ENOENT when it is missing. */
  obstacle: string | null;
  /** Leads to the folder that it lies in, or the nearest one that exists. */
  folder: string;
  /** The real path of that folder. */
  folderPath: string;
  /** Leads to it by its name in that folder: for making, renaming and removing it. */
  entry: string;
  /** Leads to the thing itself, whatever name it has by now. */
  self: string;
  /** Opens it; rejects with ESTALE when it is no longer the one that was judged. */
  open(flags: number): Promise<number>;
  close(): Promise<void>;
}

export type Located = { kind: "target"; target: Target } | { kind: "refused"; reason: string };

export interface LocateOptions {
  /** Whether a link at the end of the path is followed, or is itself the target. */
  follow: boolean;
  /** `descriptors` where /proc shows them, else `names`. */
  by?: "descriptors" | "names";
}

/** Links followed before a path counts as a circle, as the kernel has it. */
const maxLinks = 40;

export async function locate(path: string, { follow, by = usual }: LocateOptions): Promise<Located> {
  const problem = pathProblem(path);
  if (problem) return { kind: "refused", reason: problem };
  let asked = plain(path);
  for (let links = 0; ; links++) {
    const found = await (by === "descriptors" ? byDescriptors(asked) : byNames(asked));
    if (found.kind === "refused" || found.target.kind !== "symlink" || !follow) return found;
    const { target } = found;
    const leadsTo = await readlink(target.entry).catch(() => null);
    await target.close();
    if (leadsTo === null) continue; // it was a link a moment ago
    if (links === maxLinks) return endless(target.path);
    asked = plain(isAbsolute(leadsTo) ? leadsTo : join(dirname(target.path), leadsTo));
  }
}

const usual = process.platform === "linux" ? "descriptors" : "names";

/** Why `path` cannot be judged, or null. */
function pathProblem(path: string): string | null {
  if (path.includes("\0")) return "it holds a zero byte";
  if (!isAbsolute(path)) return "it is not absolute";
  if (path.split(/[/\\]/).includes("..")) return "it holds ..";
  if (!path.isWellFormed()) return "it is no well-formed text";
  return null;
}

const plain = (path: string): string => {
  const normal = normalize(path);
  return normal.length > parse(normal).root.length && normal.endsWith(sep) ? normal.slice(0, -1) : normal;
};

async function byDescriptors(path: string): Promise<Located> {
  const held: number[] = [];
  const close = async () => {
    for (const descriptor of held.splice(0)) await closeDescriptor(descriptor);
  };
  try {
    const located = await holding(path, held, close);
    if (located.kind === "refused") await close();
    return located;
  } catch (error) {
    await close();
    throw error;
  }
}

/** The last element is opened through the descriptor of its folder, and no link in it is followed. */
async function holding(path: string, held: number[], close: () => Promise<void>): Promise<Located> {
  const { folder, names, obstacle } = await nearestFolder(path, (above) => openDescriptor(above, folderFlags));
  if (folder === null) return { kind: "refused", reason: "nothing above it can be opened" };
  held.push(folder);
  const real = await realPathOf(folder);
  if (real === null)
    return { kind: "refused", reason: "a folder on the way was moved meanwhile, or has a name that is no text" };
  const closed = await closedPlace(join(real, ...names));
  if (closed) return { kind: "refused", reason: closed };
  const [name] = names;
  const entry = name === undefined ? self(folder) : `${self(folder)}/${name}`;
  const known = { path: join(real, ...names), folder: self(folder), folderPath: real, entry, missing: names, close };
  if (names.length > 1 || obstacle !== null) return absent(known, obstacle);
  let found: number;
  try {
    found = await openDescriptor(entry, O_PATH | (name === undefined ? 0 : constants.O_NOFOLLOW));
  } catch (error) {
    return absent(known, codeOf(error));
  }
  held.push(found);
  const stats = await statDescriptor(found);
  const open = (flags: number) => openDescriptor(self(found), flags);
  return present({ ...known, self: self(found), stats, missing: [], open });
}

/** The same by names alone: what is opened is compared with what was judged. */
async function byNames(path: string): Promise<Located> {
  const { folder, names, obstacle } = await nearestFolder(path, realFolder);
  if (folder === null) return { kind: "refused", reason: "nothing above it can be resolved" };
  const entry = join(folder, ...names);
  const target = {
    path: entry,
    folder,
    folderPath: folder,
    entry: join(folder, names[0] ?? ""),
    missing: names,
    close: async () => {},
  };
  if (names.length > 1 || obstacle !== null) return absent(target, obstacle);
  let stats: Stats;
  try {
    stats = await lstat(entry);
  } catch (error) {
    return absent(target, codeOf(error));
  }
  async function open(flags: number): Promise<number> {
    const descriptor = await openDescriptor(entry, flags | (constants.O_NOFOLLOW ?? 0));
    const now = await statDescriptor(descriptor);
    const isSame = now.dev === stats.dev && now.ino === stats.ino;
    if (isSame && (await realFolder(dirname(entry)).catch(() => null)) === folder) return descriptor;
    await closeDescriptor(descriptor);
    throw Object.assign(new Error(`${entry} is no longer what was judged`), { code: "ESTALE" });
  }
  return present({ ...target, self: entry, stats, missing: [], open });
}

interface Nearest<F> {
  /** The nearest folder above that there is; null when not even the root can be opened. */
  folder: F | null;
  /** What follows below it; one name when the folder is the one that the path says, none for the root. */
  names: string[];
  /** Why the folder that the path says cannot be had; null when there is nothing wrong with it but its absence. */
  obstacle: string | null;
}

async function nearestFolder<F>(path: string, open: (above: string) => Promise<F>): Promise<Nearest<F>> {
  const names: string[] = [];
  let obstacle: string | null = null;
  for (let at = path; ; ) {
    const above = dirname(at);
    if (above !== at) names.unshift(at.slice(above.endsWith(sep) ? above.length : above.length + 1));
    try {
      return { folder: await open(above), names, obstacle };
    } catch (error) {
      const code = codeOf(error);
      if (code !== "ENOENT") obstacle ??= code;
    }
    if (above === at || dirname(above) === above) return { folder: null, names, obstacle };
    at = above;
  }
}

const folderFlags = O_PATH | (constants.O_DIRECTORY ?? 0);

const self = (descriptor: number): string => `/proc/self/fd/${descriptor}`;

async function realFolder(path: string): Promise<string> {
  const real = await realpath(path);
  if ((await stat(real)).isDirectory()) return real;
  throw Object.assign(new Error(`${real} is no folder`), { code: "ENOTDIR" });
}

/**
 * Where the kernel says that an open folder lies; null when that name leads somewhere else, as it does for a folder of
 * another mount namespace, one that was removed, and one whose name is no UTF-8.
 */
async function realPathOf(descriptor: number): Promise<string | null> {
  const path = (await readlink(self(descriptor), { encoding: "buffer" })).toString("utf8");
  const [held, named] = await Promise.all([statDescriptor(descriptor), stat(path).catch(() => null)]);
  return isAbsolute(path) && named?.dev === held.dev && named.ino === held.ino ? path : null;
}

/** What shows this daemon's own memory and environment, and what lies behind every protection of files. */
async function closedPlace(path: string): Promise<string | null> {
  if (path === "/proc/kcore") return "it shows the memory of the machine";
  const [, pid] = /^\/proc\/(\d+)(?:\/|$)/.exec(path) ?? [];
  if (pid === undefined) return null;
  const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
  return Number(/^Tgid:\t(\d+)$/m.exec(status)?.[1]) === process.pid ? "it shows the daemon itself" : null;
}

type Known = Pick<Target, "path" | "folder" | "folderPath" | "entry" | "missing" | "close">;

const absent = (known: Known, obstacle: string | null): Located => ({
  kind: "target",
  target: {
    ...known,
    kind: "missing",
    stats: null,
    self: known.entry,
    obstacle: obstacle ?? "ENOENT",
    open: (flags) => openDescriptor(known.entry, flags),
  },
});

const present = (known: Omit<Target, "kind" | "obstacle"> & { stats: Stats }): Located => ({
  kind: "target",
  target: { ...known, kind: kindOf(known.stats), obstacle: null },
});

function kindOf(stats: Stats): TargetKind {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  return stats.isSymbolicLink() ? "symlink" : "other";
}

/** A path that goes round in circles. */
const endless = (path: string): Located =>
  absent(
    { path, folder: dirname(path), folderPath: dirname(path), entry: path, missing: [], close: async () => {} },
    "ELOOP",
  );

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? "EIO";
