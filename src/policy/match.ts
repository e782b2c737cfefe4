/** Which names a pattern stands for. */

/** `*`, a name, or `prefix.*`: what a tool pattern may look like. */
export const toolPatternForm = /^(?:\*|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:\.\*)?)$/;

/** `*` is every tool, `prefix.*` every tool below that prefix on a dot boundary, anything else one tool. */
export function matchesTool(pattern: string, tool: string): boolean {
  if (pattern === "*") return true;
  if (!pattern.endsWith(".*")) return pattern === tool;
  const prefix = pattern.slice(0, -1);
  return tool.startsWith(prefix) && tool.length > prefix.length;
}

/** `*` stands for any characters, none included; every other character for itself. The whole text must match. */
export const matchesText = (pattern: string, text: string): boolean =>
  matchesRun([...pattern], [...text], (part) => part === "*", Object.is);

/**
 * Whether `items` are what `pattern` says, where a part that `isRun` stands for any number of items and every other part
 * for exactly one. Time is bounded by the product of both lengths, whatever the pattern.
 */
export function matchesRun<P, T>(
  pattern: readonly P[],
  items: readonly T[],
  isRun: (part: P) => boolean,
  matchesOne: (part: P, item: T) => boolean,
): boolean {
  let at = 0;
  let item = 0;
  let lastRun = -1;
  let resume = 0;
  while (item < items.length) {
    const part = pattern[at] as P;
    if (at < pattern.length && isRun(part)) {
      lastRun = at++;
      resume = item;
    } else if (at < pattern.length && matchesOne(part, items[item] as T)) {
      at++;
      item++;
    } else if (lastRun >= 0) {
      at = lastRun + 1;
      item = ++resume;
    } else return false;
  }
  return pattern.slice(at).every(isRun);
}
