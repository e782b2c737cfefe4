/** Keeps the rules that confine tools ready, so that not every start looks at every folder on the way to what is protected. */
import { loadAddon } from "./find.ts";

export interface RulePaths {
  /** Absolute paths that tools may neither read nor change. */
  protectedPaths: readonly string[];
  /** Absolute paths that tools may read and run, not change. */
  readOnlyPaths: readonly string[];
}

/** A descriptor of rules that hold now, to be handed to the launcher at once; null when it must make its own. */
export type Rules = () => number | null;

/** Answers why there are none to be kept. */
export async function openRules(
  dirs: readonly string[],
  { protectedPaths, readOnlyPaths }: RulePaths,
): Promise<Rules | string> {
  const addon = await loadAddon("aegis-rules", dirs);
  if (typeof addon === "string") return addon;
  const make = addon.rules as (paths: string) => number;
  const marked = [...protectedPaths.map((path) => `P${path}\0`), ...readOnlyPaths.map((path) => `R${path}\0`)].join("");
  return () => {
    const descriptor = make(marked);
    return descriptor < 0 ? null : descriptor;
  };
}
