/** How much memory processes come to have while something is done to them. */
import { readFileSync } from "node:fs";

export interface MemoryWatch<Name extends string> {
  /** What each had at least until now is what follows is compared with. */
  mark(): void;
  /** How much more than that each had at most, in MB. */
  grown(): Record<Name, number>;
  stop(): void;
}

/**
 * Memory of its own, in MB: the executable's pages, which are the page cache's and are given back whenever nothing goes on,
 * neither count nor hide anything. NaN when there is no such process.
 */
export function ownMemoryMb(pid: number): number {
  try {
    return Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
  } catch {
    return Number.NaN;
  }
}

const everyMs = 40;

/** Looks again and again; `pids` answers who it is now. */
export function watchMemory<Name extends string>(pids: () => Record<Name, number>): MemoryWatch<Name> {
  let least: Partial<Record<Name, number>> = {};
  let most: Partial<Record<Name, number>> = {};
  const each = (act: (name: Name, pid: number) => void) => {
    for (const [name, pid] of Object.entries(pids()) as [Name, number][]) act(name, pid);
  };
  const look = () =>
    each((name, pid) => {
      const mb = ownMemoryMb(pid);
      if (Number.isNaN(mb)) return;
      least[name] ??= mb;
      least[name] = Math.min(least[name], mb);
      most[name] = Math.max(most[name] ?? 0, mb);
    });
  look();
  const timer = setInterval(look, everyMs);
  let base: Partial<Record<Name, number>> | null = null;
  return {
    mark() {
      look();
      base = least;
      most = {};
      least = {};
      look();
    },
    grown() {
      look();
      const grown = {} as Record<Name, number>;
      each((name) => {
        grown[name] = Math.max(0, (most[name] ?? 0) - ((base ?? least)[name] ?? 0));
      });
      return grown;
    },
    stop: () => clearInterval(timer),
  };
}
