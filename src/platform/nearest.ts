/** Guesses which word somebody meant. */

/**
 * The candidate with the fewest letters added, dropped, changed or swapped; undefined when none is near enough to be
 * meant: a third of the word's letters may differ, two at least for words of four letters and more.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const wanted = word.toLowerCase().slice(0, maxLength);
  const allowed = Math.max(wanted.length >= 4 ? 2 : 1, Math.floor(wanted.length / 3));
  let best: string | undefined;
  let bestDistance = allowed + 1;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, candidate.toLowerCase().slice(0, maxLength));
    if (distance < bestDistance && distance < candidate.length) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** What is longer was not meant to be a word of ours, and the work grows with the square. */
const maxLength = 64;

/** Levenshtein, with two neighbours swapped counted as one change. */
function editDistance(left: string, right: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let row = 1; row <= left.length; row++) {
    const now = [row];
    for (let column = 1; column <= right.length; column++) {
      const same = left[row - 1] === right[column - 1];
      let least = Math.min(at(last, column) + 1, at(now, column - 1) + 1, at(last, column - 1) + (same ? 0 : 1));
      const swapped =
        row > 1 && column > 1 && left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1];
      if (swapped) least = Math.min(least, at(beforeLast, column - 2) + 1);
      now.push(least);
    }
    [beforeLast, last] = [last, now];
  }
  return at(last, right.length);
}

const at = (row: readonly number[], column: number): number => row[column] ?? 0;
