/** Finds the file that a command's name stands for, where only the system's administrator can put one. */
import { access, constants, realpath, stat } from "node:fs/promises";
import { delimiter, dirname, isAbsolute, join, normalize } from "node:path";

export type Executable =
  | { kind: "found"; path: string }
  /** `path` is where it would be: to be judged before anybody is told that it is not there. */
  | { kind: "absent"; path: string; why: string }
  | { kind: "refused"; reason: string };

export interface SearchOptions {
  /** Directories for bare names, in order, as in PATH. Those that this user could change are passed over. */
  path: string;
  /** This process's user id; null where there is none. */
  uid: number | null;
}

/** A bare name is looked for on the fixed path, an absolute path is followed to the real file, all else is refused. */
export async function findExecutable(name: string, { path, uid }: SearchOptions): Promise<Executable> {
  if (name === "" || name === "." || name === "..") return { kind: "refused", reason: "it is no name of a command" };
  if (isAbsolute(name)) return absolute(name);
  if (/[/\\]/.test(name)) return { kind: "refused", reason: "it is neither a bare name nor an absolute path" };
  const passedOver: string[] = [];
  for (const directory of path.split(delimiter).filter(isAbsolute)) {
    for (const file of process.platform === "win32" ? [`${name}.exe`, name] : [name]) {
      const real = await executableAt(join(directory, file));
      if (!real) continue;
      const changeable = uid === null ? null : await whatCanBeChanged([directory, real], uid);
      if (!changeable) return { kind: "found", path: real };
      passedOver.push(`${join(directory, file)} is passed over, because this user can change ${changeable}`);
    }
  }
  return { kind: "refused", reason: [`it is not found in ${path}`, ...passedOver].join("; ") };
}

/** The fixed path without what this user could change: a child's own lookups then find what ours would. */
export async function trustedPath({ path, uid }: SearchOptions): Promise<string> {
  const directories = path.split(delimiter).filter(isAbsolute);
  const seen: Judged = new Map();
  const trusted = await Promise.all(
    directories.map(async (directory) => uid === null || (await whatCanBeChanged([directory], uid, seen)) === null),
  );
  return directories.filter((_, index) => trusted[index]).join(delimiter);
}

async function absolute(name: string): Promise<Executable> {
  const path = normalize(name);
  try {
    const real = await realpath(name);
    if (!(await stat(real)).isFile()) return { kind: "absent", path: real, why: `${name} is no file` };
    await access(real, constants.X_OK);
    return { kind: "found", path: real };
  } catch (error) {
    const { code } = told(error);
    const real = await realpath(name).catch(() => path);
    const why = code === "EACCES" ? `${name} is not executable by this host's user` : `${name} does not exist`;
    return { kind: "absent", path: real.length > 1 ? real.replace(/\/$/, "") : real, why };
  }
}

async function executableAt(path: string): Promise<string | null> {
  try {
    if (!(await stat(path)).isFile()) return null;
    await access(path, constants.X_OK);
    return await realpath(path);
  } catch (error) {
    told(error);
    return null;
  }
}

/** What says something about the file. A system that has nothing left to look with says nothing, and that is no answer. */
function told(error: unknown): NodeJS.ErrnoException {
  const { code = "" } = error as NodeJS.ErrnoException;
  if (["EMFILE", "ENFILE", "ENOMEM", "EIO"].includes(code)) throw error;
  return error as NodeJS.ErrnoException;
}

/** Whether each place can be changed by this user: replaced, and written to. Asked once for directories with the same parents. */
type Judged = Map<string, Promise<{ owned: boolean; writable: boolean; sticky: boolean }>>;

/** The first of `paths`, or of what lies above them, that `uid` owns or may write; null when none. Root may write all. */
async function whatCanBeChanged(
  paths: readonly string[],
  uid: number,
  seen: Judged = new Map(),
): Promise<string | null> {
  if (uid === 0) return null;
  const places = paths.flatMap((path) => withParents(path).map((at) => ({ at, isItself: at === path })));
  const judged = await Promise.all(places.map(({ at }) => judge(at, uid, seen)));
  // In a sticky directory such as /tmp only owners can replace what lies there.
  const first = judged.findIndex(
    ({ owned, writable, sticky }, index) => owned || (writable && (places[index]?.isItself || !sticky)),
  );
  return places[first]?.at ?? null;
}

function withParents(path: string): string[] {
  const above = dirname(path);
  return above === path ? [path] : [path, ...withParents(above)];
}

function judge(at: string, uid: number, seen: Judged) {
  const known = seen.get(at);
  if (known !== undefined) return known;
  const found = stat(at).catch(() => ({ uid: -1, mode: 0 }));
  const writable = access(at, constants.W_OK).then(
    () => true,
    () => false,
  );
  const answer = Promise.all([found, writable]).then(([{ uid: owner, mode }, mayWrite]) => ({
    owned: owner === uid,
    writable: mayWrite,
    sticky: (mode & 0o1000) !== 0,
  }));
  seen.set(at, answer);
  return answer;
}
