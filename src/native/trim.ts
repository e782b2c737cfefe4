/** Gives the clean file pages of this process back to the page cache, from which they return as they are used. */
import { loadAddon } from "./find.ts";

/** Answers how many mappings were given back, or why it could not be done. */
export async function trimWorkingSet(dirs: readonly string[]): Promise<number | string> {
  const addon = await loadAddon("aegis-trim", dirs);
  if (typeof addon === "string") return addon;
  const trimmed = (addon.trim as () => number)();
  return trimmed >= 0 ? trimmed : `/proc/self/maps could not be read: errno ${-trimmed}`;
}
