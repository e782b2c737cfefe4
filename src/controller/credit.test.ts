/** Live output is bounded by what somebody has taken, for each call and for all of a session. */
import { expect, test } from "bun:test";
import { limits } from "../platform/limits.ts";
import { creditBook } from "./credit.ts";

const { firstCreditBytes: first, creditPerCommandBytes: most, creditPerSessionBytes: all } = limits;

test("what arrives may reach the limit and not pass it", () => {
  const credit = creditBook().open(10);
  expect([credit.arrived(4), credit.arrived(6), credit.arrived(1)]).toEqual([true, true, false]);
});

test("more is granted when it is taken, not when it arrives, and not for every byte", () => {
  const credit = creditBook().open(first);
  credit.arrived(first);
  expect(credit.granted).toBe(first);
  // From the first take on the window is as wide as it may be.
  expect(credit.taken(1)).toBe(1 + most);
  expect(credit.taken(most / 4 - 1)).toBeNull();
  expect(credit.taken(1)).toBe(most / 4 + 1 + most);
});

test("many calls of a session share what it may be ahead, and each keeps what it began with", () => {
  const book = creditBook();
  const calls = Array.from({ length: 40 }, () => book.open(first));
  const ahead = () => calls.reduce((sum, { granted }) => sum + granted, 0);
  for (const call of calls) call.taken(0);
  expect(ahead()).toBeLessThanOrEqual(all);
  const widest = Math.max(...calls.map(({ granted }) => granted));
  expect(widest).toBeGreaterThan(first);
  expect(Math.min(...calls.map(({ granted }) => granted))).toBe(first);
  // What the wide ones give back goes to those that go on.
  for (const call of calls.filter(({ granted }) => granted > first)) call.end();
  const [narrow] = calls.filter(({ granted }) => granted === first);
  expect(narrow?.taken(first)).toBe(first + most);
});

test("an end gives back once, and what is taken after it counts for nobody", () => {
  const book = creditBook();
  const gone = book.open(most);
  gone.end();
  gone.end();
  expect(gone.taken(5)).toBeNull();
  const others = Array.from({ length: all / most }, () => book.open(first));
  expect(others.map((call) => call.taken(0))).toEqual(others.map(() => most));
});
