/**
 * Which paths a caller's glob stands for, in time bounded by the product of both lengths. Libraries turn a glob into a
 * backtracking expression, which a caller can make take for ever.
 */
import { matchesRun } from "../policy/match.ts";

export type Glob =
  | { kind: "glob"; matches(entry: { name: string; relative: string; path: string }): boolean }
  | { kind: "refused"; reason: string };

/** Alternatives that braces may make. */
const maxAlternatives = 100;
const maxPatternChars = 1_000;

type Char =
  | { any: "run" }
  | { any: "one" }
  | { char: string }
  | { isNot: boolean; ranges: readonly [string, string][] };
type Segment = "**" | readonly Char[];

/**
 * `*` stands for any characters within a name, `?` for one, `**` as a whole segment for any number of folders, `[a-z]` and
 * `[!a-z]` for one of a set, `{a,b}` for either, `\` takes the next character as it is. A pattern without `/` is compared
 * with names, one that begins with `/` with whole paths, any other with paths below the folder of the search.
 */
export function parseGlob(pattern: string): Glob {
  if (pattern.length > maxPatternChars)
    return { kind: "refused", reason: `it is longer than ${maxPatternChars} characters` };
  const alternatives = expandBraces(pattern);
  if (!alternatives)
    return { kind: "refused", reason: `its braces stand for more than ${maxAlternatives} patterns, or are not closed` };
  const parsed: Array<{ of: "name" | "relative" | "path"; segments: Segment[] }> = [];
  for (const one of alternatives) {
    const of = one.startsWith("/") ? "path" : one.includes("/") ? "relative" : "name";
    const segments: Segment[] = [];
    for (const part of one.split("/").filter((text) => text !== "")) {
      const segment = part === "**" ? part : parseSegment(part);
      if (segment === null) return { kind: "refused", reason: "its [ is never closed, or it ends in a \\" };
      segments.push(segment);
    }
    parsed.push({ of, segments });
  }
  return {
    kind: "glob",
    matches: (entry) => parsed.some(({ of, segments }) => matchesPath(segments, entry[of])),
  };
}

const matchesPath = (segments: readonly Segment[], path: string): boolean =>
  matchesRun(
    segments,
    path.split("/").filter((name) => name !== ""),
    (segment) => segment === "**",
    (segment, name) =>
      matchesRun(segment as readonly Char[], [...name], (part) => "any" in part && part.any === "run", matchesChar),
  );

function matchesChar(part: Char, char: string): boolean {
  if ("any" in part) return true;
  if ("char" in part) return part.char === char;
  return part.ranges.some(([from, to]) => from <= char && char <= to) !== part.isNot;
}

function parseSegment(text: string): Char[] | null {
  const chars = [...text];
  const parts: Char[] = [];
  for (let at = 0; at < chars.length; at++) {
    const char = chars[at] as string;
    if (char === "*") parts.push({ any: "run" });
    else if (char === "?") parts.push({ any: "one" });
    else if (char === "[") {
      const end = chars.indexOf("]", at + (chars[at + 1] === "!" || chars[at + 1] === "^" ? 3 : 2));
      if (end < 0) return null;
      parts.push(parseSet(chars.slice(at + 1, end)));
      at = end;
    } else if (char === "\\") {
      const next = chars[++at];
      if (next === undefined) return null;
      parts.push({ char: next });
    } else parts.push({ char });
  }
  return parts;
}

function parseSet(chars: readonly string[]): Char {
  const isNot = chars[0] === "!" || chars[0] === "^";
  const inside = isNot ? chars.slice(1) : chars;
  const ranges: [string, string][] = [];
  for (let at = 0; at < inside.length; at++) {
    const from = inside[at] as string;
    const to = inside[at + 1] === "-" ? inside[at + 2] : undefined;
    ranges.push([from, to ?? from]);
    if (to !== undefined) at += 2;
  }
  return { isNot, ranges };
}

/** Null when there are too many, or a brace is left open. */
function expandBraces(pattern: string): string[] | null {
  let done: string[] = [];
  let open = [pattern];
  while (open.length > 0) {
    const next: string[] = [];
    for (const one of open) {
      const brace = firstBrace(one);
      if (brace === "open") return null;
      if (brace === null) done = [...done, one];
      else for (const choice of brace.choices) next.push(one.slice(0, brace.start) + choice + one.slice(brace.end));
    }
    if (next.length + done.length > maxAlternatives) return null;
    open = next;
  }
  return done;
}

function firstBrace(text: string): { start: number; end: number; choices: string[] } | "open" | null {
  let start = -1;
  let depth = 0;
  let from = 0;
  const choices: string[] = [];
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "\\") at++;
    else if (char === "{" && depth++ === 0) [start, from] = [at, at + 1];
    else if (char === "," && depth === 1) {
      choices.push(text.slice(from, at));
      from = at + 1;
    } else if (char === "}" && depth > 0 && --depth === 0)
      return { start, end: at + 1, choices: [...choices, text.slice(from, at)] };
  }
  return depth > 0 ? "open" : null;
}
