import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { collectMs, maxPieceBytes, pump } from "./output-pump.ts";

function pipe() {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  return { stream: readable, print: (text: string) => void writer.write(Buffer.from(text)), end: () => writer.close() };
}

const settle = async () => {
  for (let turn = 0; turn < 30; turn++) await Promise.resolve();
};

function setup() {
  const clock = fakeClock();
  const from = pipe();
  const taken: string[] = [];
  const to = pump(from.stream, async (piece) => void taken.push(Buffer.from(piece).toString()), clock);
  return { ...from, clock, taken, to };
}

test("the first words after a silence are handed on at once, the next ones together", async () => {
  const { print, clock, taken, to, end } = setup();
  print("first");
  await settle();
  expect(taken).toEqual(["first"]);
  for (const word of ["a", "b", "c"]) print(word);
  await settle();
  expect(taken).toEqual(["first"]);
  await clock.advance(collectMs);
  await settle();
  expect(taken).toEqual(["first", "abc"]);
  await clock.advance(1_000);
  print("later");
  await settle();
  expect(taken).toEqual(["first", "abc", "later"]);
  print("!");
  await settle();
  await end();
  await to.done;
  expect(taken.at(-1)).toBe("!");
});

test("a full piece does not wait, and a longer one is cut", async () => {
  const { print, taken, end, to } = setup();
  print("x".repeat(maxPieceBytes + 1));
  await settle();
  expect(taken.map((piece) => piece.length)).toEqual([maxPieceBytes, 1]);
  print("y".repeat(maxPieceBytes));
  await settle();
  expect(taken.length).toBe(3);
  await end();
  await to.done;
});

test("a pump that is cut hands on what it has and waits no longer", async () => {
  const { print, taken, to } = setup();
  print("something");
  await settle();
  expect(to.hungry).toBe(true);
  to.cut();
  await to.done;
  expect(taken).toEqual(["something"]);
});
