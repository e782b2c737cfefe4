import { expect, test } from "bun:test";
import { capOutput } from "./output-cap.ts";

function feed(maxBytes: number, pieces: readonly (string | Uint8Array)[]) {
  const cap = capOutput(maxBytes);
  for (const piece of pieces) cap.add(typeof piece === "string" ? Buffer.from(piece) : piece);
  const { head, tail, bytes } = cap.captured();
  const text = (part: Uint8Array) => Buffer.from(part).toString();
  return { head: text(head), tail: text(tail), bytes, kept: head.length + tail.length };
}

test("up to the limit nothing is left out, one byte more and the middle is", () => {
  expect(feed(10, ["01234", "56789"])).toEqual({ head: "01234", tail: "56789", bytes: 10, kept: 10 });
  expect(feed(10, ["012345678", "9a"])).toEqual({ head: "01234", tail: "6789a", bytes: 11, kept: 10 });
  expect(feed(7, ["0123456789"])).toEqual({ head: "0123", tail: "789", bytes: 10, kept: 7 });
});

test("whatever the pieces, the first and the last bytes are kept in order", () => {
  const whole = Array.from({ length: 5_000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join("");
  for (const size of [1, 3, 7, 64, 999, 5_000]) {
    const pieces = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
      whole.slice(i * size, (i + 1) * size),
    );
    expect(feed(1_000, pieces)).toEqual({
      head: whole.slice(0, 500),
      tail: whole.slice(-500),
      bytes: 5_000,
      kept: 1_000,
    });
  }
});

test("a limit of nothing keeps nothing and still counts", () => {
  expect(feed(0, ["abc"])).toEqual({ head: "", tail: "", bytes: 3, kept: 0 });
  expect(feed(1, ["abc"])).toEqual({ head: "a", tail: "", bytes: 3, kept: 1 });
});

test("no character is cut in two", () => {
  expect(feed(9, ["aäöü€", "x".repeat(20), "€äöz"])).toMatchObject({ head: "aäö", tail: "öz" });
  expect(feed(8, ["a€€", "x".repeat(20), "€€z"])).toMatchObject({ head: "a€", tail: "€z" });
});

test("bytes that are no text are kept as they are", () => {
  const bytes = new Uint8Array(100).fill(0x80);
  expect(capOutputOf(bytes, 10)).toEqual([5, 5, 100]);
});

function capOutputOf(bytes: Uint8Array, maxBytes: number) {
  const cap = capOutput(maxBytes);
  cap.add(bytes);
  const { head, tail, bytes: count } = cap.captured();
  return [head.length, tail.length, count];
}
