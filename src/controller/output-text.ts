/** What a pipe printed, as JSON can carry it: text where the bytes are UTF-8, base64 elsewhere, and no character cut in two. */
import type { CapturedText } from "../api/events.ts";
import type { StreamResult } from "./dispatch-types.ts";

export interface Piece {
  offset: number;
  skippedBytes: number;
  data?: string;
  base64?: string;
}

export interface PieceMaker {
  /** A chunk that begins at `offset` of what the pipe produced. */
  add(chunk: Uint8Array, offset: number, skippedBytes: number): Piece[];
  /** What is held back because its character is not whole; nothing more comes. */
  rest(): Piece[];
}

/** For one pipe of one call. */
export function pieceMaker(): PieceMaker {
  let held: Uint8Array = new Uint8Array();
  let heldAt = 0;
  const rest = (): Piece[] => {
    if (held.length === 0) return [];
    const piece = { offset: heldAt, skippedBytes: 0, base64: base64(held) };
    held = new Uint8Array();
    return [piece];
  };
  return {
    rest,
    add(chunk, offset, skippedBytes) {
      const broken = held.length > 0 && heldAt + held.length !== offset ? rest() : [];
      const start = held.length > 0 ? heldAt : offset;
      const bytes = held.length > 0 ? Buffer.concat([held, chunk]) : chunk;
      const whole = bytes.length - unfinished(bytes);
      held = Uint8Array.from(bytes.subarray(whole));
      heldAt = start + whole;
      if (whole === 0) return broken;
      const body = bytes.subarray(0, whole);
      const text = decode(body);
      const piece = { offset: start, skippedBytes };
      return [...broken, text === null ? { ...piece, base64: base64(body) } : { ...piece, data: text }];
    },
  };
}

/** Both ends of a pipe's output. A character that the omission cut is counted with what is omitted. */
export function capturedText({ head, tail, bytes }: StreamResult): CapturedText {
  const omitted = bytes - head.length - tail.length;
  if (omitted <= 0) {
    const all = Buffer.concat([head, tail]);
    const text = decode(all);
    const whole = { tail: "", bytes, omitted: 0 };
    return text === null
      ? { head: base64(all), ...whole, encoding: "base64" }
      : { head: text, ...whole, encoding: "utf8" };
  }
  const first = head.subarray(0, head.length - unfinished(head));
  const last = tail.subarray(continuation(tail));
  const [headText, tailText] = [decode(first), decode(last)];
  if (headText === null || tailText === null)
    return { head: base64(head), tail: base64(tail), bytes, omitted, encoding: "base64" };
  return { head: headText, tail: tailText, bytes, omitted: bytes - first.length - last.length, encoding: "utf8" };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Uint8Array): string | null {
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

/** How many of the last bytes begin a character that is not whole yet: 0-3. */
function unfinished(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const length =
      byte >= 0xf0 && byte <= 0xf4 ? 4 : byte >= 0xe0 && byte < 0xf0 ? 3 : byte >= 0xc2 && byte < 0xe0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

/** How many of the first bytes end a character whose beginning is not there: 0-3. */
function continuation(bytes: Uint8Array): number {
  let count = 0;
  while (count < 3 && ((bytes[count] ?? 0) & 0xc0) === 0x80) count++;
  return count;
}
