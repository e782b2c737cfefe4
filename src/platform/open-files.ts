/** How many files and connections this process may have open at a time. */
import { readFileSync } from "node:fs";

/** Null where the system does not say. */
export function openFilesLimit(): number | null {
  if (process.platform !== "linux") return null;
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return soft === undefined ? null : Number(soft);
  } catch {
    return null;
  }
}
