/** Finds every process that came from one, also those which left its group, its session or lost their parent. */
import { readdirSync, readFileSync } from "node:fs";

export interface Found {
  /** Negative: a whole process group, on systems that show no more. */
  pid: number;
  /** Its command line, shortened. */
  command: string;
}

/** The variable that each process inherits from the one we started. Its value is different for each start. */
export const markName = "AEGIS_PROCESS";

export interface Root {
  pid: number;
  /** The value of `markName`. */
  mark: string;
  /** When it began, as /proc counts; 0 when unknown. */
  startedAt: number;
}

/** The root of what is about to be looked for; to be asked right after the start. */
export const rootOf = (pid: number, mark: string): Root => ({ pid, mark, startedAt: readStat(pid)?.startedAt ?? 0 });

/**
 * All that still live, `root` included; what has ended and only waits to be reaped does not count. Complete on Linux as
 * long as a process keeps its environment; elsewhere the group is all that can be seen.
 */
export function findAll(root: Root): Found[] {
  if (process.platform !== "linux") return groupOf(root);
  const processes = readdirSync("/proc")
    .map((name) => (/^\d+$/.test(name) ? readStat(Number(name)) : null))
    .filter((one) => one !== null && one.startedAt >= root.startedAt && one.pid !== process.pid) as Stat[];
  const mark = Buffer.from(`${markName}=${root.mark}\0`);
  const own = new Set<number>();
  for (const one of processes)
    if ([one.pid, one.group, one.session].includes(root.pid) || environmentOf(one.pid).includes(mark)) own.add(one.pid);
  for (let before = -1; before !== own.size; ) {
    before = own.size;
    for (const one of processes) if (own.has(one.parent)) own.add(one.pid);
  }
  return processes
    .filter((one) => own.has(one.pid) && one.state !== "Z" && one.state !== "X")
    .map((one) => ({ pid: one.pid, command: commandOf(one.pid) || one.name }));
}

/** Sends `signal` to each; those that are gone, or not ours to signal, are passed over. */
export function signalAll(found: readonly Found[], signal: "SIGTERM" | "SIGKILL"): void {
  for (const { pid } of found) {
    try {
      process.kill(pid, signal);
    } catch {
      // gone, or another user's: whoever looks again sees which
    }
  }
}

function groupOf({ pid }: Root): Found[] {
  try {
    process.kill(-pid, 0);
    return [{ pid: -pid, command: `process group ${pid}` }];
  } catch {
    return [];
  }
}

interface Stat {
  pid: number;
  name: string;
  state: string;
  parent: number;
  group: number;
  session: number;
  startedAt: number;
}

/** /proc/PID/stat, whose second field may hold blanks and brackets. */
function readStat(pid: number): Stat | null {
  const text = readQuietly(`/proc/${pid}/stat`)?.toString("latin1") ?? "";
  const end = text.lastIndexOf(")");
  if (end < 0) return null;
  const fields = text.slice(end + 2).split(" ");
  const number = (index: number) => Number(fields[index]);
  return {
    pid,
    name: text.slice(text.indexOf("(") + 1, end),
    state: fields[0] ?? "",
    parent: number(1),
    group: number(2),
    session: number(3),
    startedAt: number(19),
  };
}

const environmentOf = (pid: number): Buffer => readQuietly(`/proc/${pid}/environ`) ?? Buffer.alloc(0);

const commandOf = (pid: number): string =>
  (readQuietly(`/proc/${pid}/cmdline`)?.toString("utf8") ?? "").replaceAll("\0", " ").trim().slice(0, 120);

function readQuietly(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch {
    return null; // gone meanwhile, or another user's
  }
}
