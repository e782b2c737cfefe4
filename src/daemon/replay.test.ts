/** A command is run once within an hour, as far as the memory goes. */
import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { replayGuard, replayLimits } from "./replay.ts";

test("a command is new once within an hour, by the clock that no one can set", async () => {
  const clock = fakeClock();
  const guard = replayGuard(clock);
  expect([guard.firstSight("a"), guard.firstSight("a")]).toEqual([true, false]);
  clock.step(86_400_000);
  expect(guard.firstSight("a")).toBe(false);
  await clock.advance(replayLimits.ageMs);
  expect(guard.firstSight("a")).toBe(false);
  await clock.advance(1);
  expect(guard.firstSight("a")).toBe(true);
});

test("being refused does not make it younger", async () => {
  const clock = fakeClock();
  const guard = replayGuard(clock);
  guard.firstSight("a");
  await clock.advance(replayLimits.ageMs - 1);
  expect(guard.firstSight("a")).toBe(false);
  await clock.advance(2);
  expect(guard.firstSight("a")).toBe(true);
});

test("the memory holds 16 384 commands: the oldest goes first, and only to make room", () => {
  const guard = replayGuard(fakeClock());
  for (let n = 0; n < replayLimits.commands; n++) guard.firstSight(`command ${n}`);
  expect(guard.firstSight("command 1")).toBe(false);
  expect(guard.firstSight("one more")).toBe(true);
  expect(guard.firstSight(`command ${replayLimits.commands - 1}`)).toBe(false);
  expect(guard.firstSight("command 0")).toBe(true);
});
