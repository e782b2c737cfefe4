import { describe, expect, test } from "bun:test";
import { capturedText, pieceMaker } from "./output-text.ts";

const bytes = (text: string) => new Uint8Array(Buffer.from(text));

describe("live output", () => {
  const text = "naïve 漢字 🦀 end";

  test("wherever chunks are cut, the pieces are text and add up to what was printed", () => {
    const all = bytes(text);
    for (let first = 0; first <= all.length; first++)
      for (let second = first; second <= all.length; second++) {
        const maker = pieceMaker();
        const cuts = [all.slice(0, first), all.slice(first, second), all.slice(second)];
        let at = 0;
        const pieces = cuts.flatMap((cut) => {
          const made = maker.add(cut, at, 0);
          at += cut.length;
          return made;
        });
        pieces.push(...maker.rest());
        expect(pieces.map((piece) => piece.data).join("")).toBe(text);
        let offset = 0;
        for (const piece of pieces) {
          expect(piece.offset).toBe(offset);
          offset += Buffer.byteLength(piece.data ?? "");
        }
      }
  });

  test("bytes that are no UTF-8 come as base64", () => {
    expect(pieceMaker().add(new Uint8Array([0x61, 0xff, 0x62]), 0, 0)).toEqual([
      { offset: 0, skippedBytes: 0, base64: "Yf9i" },
    ]);
  });

  test("half a character at the end is told as bytes, and no earlier", () => {
    const maker = pieceMaker();
    expect(maker.add(bytes("ab🦀").slice(0, 5), 0, 0)).toEqual([{ offset: 0, skippedBytes: 0, data: "ab" }]);
    expect(maker.rest()).toEqual([
      { offset: 2, skippedBytes: 0, base64: Buffer.from([0xf0, 0x9f, 0xa6]).toString("base64") },
    ]);
    expect(maker.rest()).toEqual([]);
  });

  test("half a character before a gap is not glued to what comes after it", () => {
    const maker = pieceMaker();
    maker.add(bytes("é").slice(0, 1), 0, 0);
    expect(maker.add(bytes("x"), 100, 99)).toEqual([
      { offset: 0, skippedBytes: 0, base64: "ww==" },
      { offset: 100, skippedBytes: 99, data: "x" },
    ]);
  });

  test("a byte order mark stays", () => {
    expect(pieceMaker().add(bytes("\uFEFFx"), 0, 0)[0]?.data).toBe("\uFEFFx");
  });
});

describe("captured output", () => {
  test("whole output is one text, also where head and tail meet in a character", () => {
    const all = bytes("a🦀b");
    const captured = capturedText({ head: all.slice(0, 3), tail: all.slice(3), bytes: all.length });
    expect(captured).toEqual({ head: "a🦀b", tail: "", bytes: 6, omitted: 0, encoding: "utf8" });
  });

  test("characters that the omission cut are counted with it", () => {
    const head = bytes("ab🦀").slice(0, 4);
    const tail = bytes("🦀cd").slice(2);
    expect(capturedText({ head, tail, bytes: 1_000 })).toEqual({
      ...{ head: "ab", tail: "cd", bytes: 1_000, omitted: 996, encoding: "utf8" },
    });
  });

  test("binary output is base64 with every byte of both ends", () => {
    const captured = capturedText({ head: new Uint8Array([0xff]), tail: bytes("é"), bytes: 10 });
    expect(captured).toEqual({ head: "/w==", tail: "w6k=", bytes: 10, omitted: 7, encoding: "base64" });
  });
});
