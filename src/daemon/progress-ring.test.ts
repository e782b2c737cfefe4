import { expect, test } from "bun:test";
import type { Pipe } from "../tools/tool.ts";
import { type ProgressRing, progressRing } from "./progress-ring.ts";

const piece = (text: string, offset: number, pipe: Pipe = "stdout") => ({ pipe, offset, bytes: Buffer.from(text) });
const next = (ring: ProgressRing, most = 100) => {
  const held = ring.take(most);
  return held && [held.pipe, held.offset, Buffer.from(held.bytes).toString()];
};

test("what is held comes out in order, in parts as large as wanted", () => {
  const ring = progressRing(100);
  ring.add(piece("abcdef", 10));
  ring.add(piece("XY", 0, "stderr"));
  expect(ring.size).toBe(8);
  expect([next(ring, 4), next(ring), next(ring), next(ring)]).toEqual([
    ["stdout", 10, "abcd"],
    ["stdout", 14, "ef"],
    ["stderr", 0, "XY"],
    null,
  ]);
  expect(ring.size).toBe(0);
});

test("over the limit the oldest goes, to the byte, and is counted", () => {
  const ring = progressRing(6);
  expect(ring.add(piece("abcd", 0))).toBe(0);
  expect(ring.add(piece("XY", 0, "stderr"))).toBe(0);
  expect(ring.add(piece("e", 4))).toBe(1);
  expect(ring.add(piece("0123456789", 5))).toBe(10);
  expect([ring.size, next(ring), next(ring)]).toEqual([6, ["stdout", 9, "456789"], null]);
});

test("small pieces that follow each other become one; others stay apart", () => {
  const ring = progressRing(100);
  for (const [at, letter] of [..."hello"].entries()) ring.add(piece(letter, at));
  ring.add(piece("!", 9));
  expect([next(ring), next(ring)]).toEqual([
    ["stdout", 0, "hello"],
    ["stdout", 9, "!"],
  ]);
});

test("what is handed in may be used again by whoever handed it in", () => {
  const ring = progressRing(100);
  const buffer = Buffer.from("first");
  ring.add({ pipe: "stdout", offset: 0, bytes: buffer });
  buffer.fill("x");
  expect(next(ring)).toEqual(["stdout", 0, "first"]);
});
