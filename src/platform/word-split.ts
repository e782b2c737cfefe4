/** Splits one line into words as a POSIX shell does, and does nothing else of what a shell does. */

export type WordSplit = { kind: "words"; words: string[] } | { kind: "refused"; reason: string };

/** What only a shell gives a meaning to: passed on as a word it would run something else than what was meant. */
const operators = "|&;<>()";

/**
 * Blanks separate, '...' keeps everything, "..." keeps all but \ before one of `"\$ and backtick, \ keeps one character.
 * `$x`, `*`, `~` and `#` are characters like any other. Refuses unquoted operators, open quotes and line breaks.
 */
export function splitWords(line: string): WordSplit {
  const words: string[] = [];
  let word: string | null = null;
  const refused = (reason: string): WordSplit => ({ kind: "refused", reason });
  for (let at = 0; at < line.length; at++) {
    const char = line[at] as string;
    if (char === " " || char === "\t") {
      if (word !== null) words.push(word);
      word = null;
    } else if (char === "\n" || char === "\r") return refused("it has more than one line");
    else if (operators.includes(char)) return refused(`${char} at character ${at + 1} needs a shell, or quotes`);
    else if (char === "'") {
      const end = line.indexOf("'", at + 1);
      if (end < 0) return refused(`the ' at character ${at + 1} is never closed`);
      word = (word ?? "") + line.slice(at + 1, end);
      at = end;
    } else if (char === '"') {
      const quoted = doubleQuoted(line, at + 1);
      if (!quoted) return refused(`the " at character ${at + 1} is never closed`);
      word = (word ?? "") + quoted.text;
      at = quoted.end;
    } else if (char === "\\") {
      at++;
      if (at === line.length) return refused("it ends in a \\");
      word = (word ?? "") + line[at];
    } else word = (word ?? "") + char;
  }
  if (word !== null) words.push(word);
  return { kind: "words", words };
}

function doubleQuoted(line: string, start: number): { text: string; end: number } | null {
  let text = "";
  for (let at = start; at < line.length; at++) {
    const char = line[at] as string;
    if (char === '"') return { text, end: at };
    if (char === "\\" && '"\\$`'.includes(line[at + 1] ?? " ")) at++;
    text += line[at];
  }
  return null;
}
