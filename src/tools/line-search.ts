/** Searches lines for what a caller's pattern says, in time proportional to the text whatever the pattern. */
import type { RE2JS } from "re2js";

export type LineSearch =
  | {
      kind: "search" /** Calls `found` for each line that matches, in order, until it answers false. */;
      search: Search;
    }
  | { kind: "refused"; reason: string };

type Search = (text: string, found: (line: string, number: number) => boolean) => void;

const maxPatternChars = 1_000;
/** What of a longer line is looked at, in characters. */
const maxLineChars = 8 * 1024;
/** Steps of a compiled pattern; a line takes at most this times its length. */
const maxProgramSize = 1_000;

export async function parsePattern(pattern: string, { ignoreCase }: { ignoreCase: boolean }): Promise<LineSearch> {
  if (pattern.length > maxPatternChars)
    return { kind: "refused", reason: `it is longer than ${maxPatternChars} characters` };
  // Loaded with the first search: a host that never searches does not pay for it.
  const library = (await import("re2js")).RE2JS;
  let compiled: RE2JS;
  try {
    compiled = library.compile(pattern, ignoreCase ? library.CASE_INSENSITIVE : 0);
  } catch (error) {
    return { kind: "refused", reason: (error as Error).message };
  }
  if (compiled.programSize() > maxProgramSize) return { kind: "refused", reason: "its repetitions make it too large" };
  const literal = ignoreCase ? null : requiredLiteral(pattern);
  const matches = (line: string) => compiled.matcher(line.slice(0, maxLineChars)).find();
  return { kind: "search", search: literal === null ? everyLine(matches) : linesWith(literal, matches) };
}

const everyLine =
  (matches: (line: string) => boolean): Search =>
  (text, found) => {
    for (let start = 0, number = 1; start <= text.length; number++) {
      const end = endOfLine(text, start);
      const line = text.slice(start, end);
      if ((start < text.length || line !== "") && matches(line) && !found(line, number)) return;
      start = end + 1;
    }
  };

/** Looks only at lines that hold `literal`, which the system finds much faster than any pattern. */
const linesWith =
  (literal: string, matches: (line: string) => boolean): Search =>
  (text, found) => {
    let number = 1;
    let counted = 0;
    for (let at = text.indexOf(literal); at >= 0; ) {
      const start = text.lastIndexOf("\n", at) + 1;
      const end = endOfLine(text, at);
      for (let next = text.indexOf("\n", counted); next >= 0 && next < start; next = text.indexOf("\n", counted)) {
        number++;
        counted = next + 1;
      }
      const line = text.slice(start, end);
      if (matches(line) && !found(line, number)) return;
      at = text.indexOf(literal, end);
    }
  };

function endOfLine(text: string, from: number): number {
  const end = text.indexOf("\n", from);
  return end < 0 ? text.length : end;
}

/** Parts of a text that end with a line, none much longer than `chars`, so that other work can go on between them. */
export function* slices(text: string, chars: number): Generator<{ text: string; firstLine: number }> {
  for (let start = 0, firstLine = 1; start < text.length; ) {
    const end = text.length - start <= chars ? text.length : endOfLine(text, start + chars) + 1;
    const slice = text.slice(start, end);
    yield { text: slice, firstLine };
    for (let at = slice.indexOf("\n"); at >= 0; at = slice.indexOf("\n", at + 1)) firstLine++;
    start = end;
  }
}

/**
 * The longest text that every match must hold, as far as that is easily seen; null when none of two characters is. Looks
 * at the outermost sequence only: a group, a class or an escape ends a run of plain characters.
 */
export function requiredLiteral(pattern: string): string | null {
  if (pattern.includes("(?") || pattern.includes("[:")) return null; // flags and named classes: not worth reading
  let best = "";
  let run = "";
  const cut = () => {
    if (run.length > best.length) best = run;
    run = "";
  };
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at] as string;
    if (char === "|") return null;
    if (char === "(" || char === "[") {
      cut();
      at = closing(pattern, at);
      if (at < 0) return null;
    } else if (char === "*" || char === "?" || char === "{") {
      run = [...run].slice(0, -1).join("");
      cut();
      if (char === "{") at = pattern.indexOf("}", at);
      if (at < 0) return null;
    } else if (char === "+" || char === "." || char === "^" || char === "$") cut();
    else if (char === "\\") {
      const next = pattern[++at] ?? "";
      if (/[dDsSwWbBtnrfva]/.test(next)) cut();
      else if (/\w/.test(next) || next === "") return null;
      else run += next;
    } else run += char;
  }
  cut();
  return best.length >= 2 ? best : null;
}

/** Where the group or class that begins at `open` ends; -1 when it does not. */
function closing(pattern: string, open: number): number {
  if (pattern[open] === "[") {
    for (let at = open + (pattern[open + 1] === "^" ? 3 : 2); at < pattern.length; at++) {
      if (pattern[at] === "\\") at++;
      else if (pattern[at] === "[")
        return -1; // a named class: not worth looking into
      else if (pattern[at] === "]") return at;
    }
    return -1;
  }
  let depth = 0;
  for (let at = open; at < pattern.length; at++) {
    const char = pattern[at];
    if (char === "\\") at++;
    else if (char === "[") {
      at = closing(pattern, at);
      if (at < 0) return -1;
    } else if (char === "(") depth++;
    else if (char === ")" && --depth === 0) return at;
  }
  return -1;
}
