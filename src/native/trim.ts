/** Gives the clean file pages of this process back to the page cache, from which they return as they are used. */
import { loadAddon } from "./find.ts";

/**
 * Answers how many mappings were given back, or why it could not be done. `deep`: also pages that the page cache may then
 * give up, so that they are read from the file again.
 */
export async function trimWorkingSet(dirs: readonly string[], { deep }: { deep: boolean }): Promise<number | string> {
  const addon = await loadAddon("aegis-trim", dirs);
  if (typeof addon === "string") return addon;
  const trimmed = (addon.trim as (deep: boolean) => number)(deep);
  return trimmed >= 0 ? trimmed : `/proc/self/smaps could not be read: errno ${-trimmed}`;
}
