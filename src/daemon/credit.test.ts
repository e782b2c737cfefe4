/** Credit goes up and never down, and whoever waits for it is woken when it comes or will not come. */
import { expect, test } from "bun:test";
import { createCredit } from "./credit.ts";

/** Whether a wait is over, once promises have had their turn. */
async function over(wait: Promise<void>): Promise<boolean> {
  let done = false;
  void wait.then(() => {
    done = true;
  });
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  return done;
}

test("a limit counts from the beginning: telling it twice, or a lower one late, changes nothing", async () => {
  const credit = createCredit(10);
  credit.spend(10);
  const wait = credit.wait();
  for (const limit of [10, 5, 0]) credit.raise(limit);
  expect([credit.available, await over(wait)]).toEqual([0, false]);
  credit.raise(25);
  credit.raise(25);
  expect([credit.available, await over(wait)]).toEqual([15, true]);
});

test("while there is some, nobody waits", async () => {
  expect(await over(createCredit(1).wait())).toBe(true);
});

test("all who wait are woken, also by the end", async () => {
  const credit = createCredit(0);
  const waits = [credit.wait(), credit.wait()];
  credit.close();
  expect(await Promise.all(waits.map(over))).toEqual([true, true]);
  expect([credit.closed, await over(credit.wait())]).toEqual([true, true]);
});
