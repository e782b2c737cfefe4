/** Shows text that somebody else wrote inside a message of ours. */

/** Longest part that is shown, in characters. */
const maxQuotedChars = 120;

/** In quotes, cut with a count, and with nothing in it that a terminal would act on or that would reorder the line. */
export function quote(text: string): string {
  const cut = text.length > maxQuotedChars ? text.slice(0, maxQuotedChars) : text;
  const quoted = JSON.stringify(cut).replace(
    /[\u007f-\u009f\u2028\u2029]|\p{Cf}/gu,
    (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`,
  );
  return cut === text ? quoted : `${quoted} and ${text.length - cut.length} more characters`;
}
