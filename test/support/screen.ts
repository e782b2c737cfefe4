/** What stands on a terminal after these bytes: newlines, returns, cursor up and erase below are all it knows. */
export function screenOf(bytes: string): string[] {
  const lines: string[] = [""];
  let row = 0;
  let column = 0;
  for (const [, up, erase, colour, letter] of bytes.matchAll(
    /\u001b\[(\d+)A|\u001b\[(J)|\u001b\[([\d;]*)m|([\s\S])/g,
  )) {
    if (up !== undefined) row = Math.max(0, row - Number(up));
    else if (erase !== undefined) {
      lines.length = row + 1;
      lines[row] = (lines[row] ?? "").slice(0, column);
    } else if (colour !== undefined) continue;
    else if (letter === "\n") {
      row += 1;
      column = 0;
      lines[row] ??= "";
    } else if (letter === "\r") column = 0;
    else {
      const line = (lines[row] ?? "").padEnd(column);
      lines[row] = line.slice(0, column) + letter + line.slice(column + 1);
      column += 1;
    }
  }
  return lines;
}
