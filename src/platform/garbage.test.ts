import { expect, test } from "bun:test";
import { collectEveryBytes, garbage } from "./garbage.ts";

const MiB = 1024 * 1024;

/** Passes this many MiB, one a millisecond; answers after how many each collection came. */
function collections(mebibytes: number, tookMs: number): number[] {
  let now = 0;
  let passed = 0;
  const at: number[] = [];
  const pile = garbage({
    monotonic: () => now,
    collect() {
      at.push(passed);
      now += tookMs;
    },
  });
  while (passed < mebibytes) {
    passed++;
    now++;
    pile.passed(MiB);
  }
  return at;
}

test("is collected every 32 MiB, and not before", () => {
  expect(collectEveryBytes).toBe(32 * MiB);
  expect(collections(100, 0)).toEqual([32, 64, 96]);
});

test("takes a tenth of the time at most, however long a collection takes", () => {
  expect(collections(500, 20)).toEqual([32, 212, 392]);
});

test("is really collected", () => {
  let isGone = false;
  const registry = new FinalizationRegistry(() => {
    isGone = true;
  });
  const pile = garbage({ monotonic: () => 0 });
  const make = () => registry.register(new Uint8Array(MiB), 0);
  for (let n = 0; n < 64; n++) make();
  return (async () => {
    for (let turn = 0; turn < 50 && !isGone; turn++) {
      pile.passed(collectEveryBytes);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(isGone).toBe(true);
  })();
});
