import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { endWithAge, sessionAge } from "./session-age.ts";

function stage({ carries = 0, random = 0 } = {}) {
  const clock = fakeClock();
  const left = new AbortController();
  const said: string[] = [];
  const session = { carries, goodbye: (_reason: number, detail: string) => void said.push(detail) };
  const over = endWithAge(session, { clock, signal: left.signal, random: () => random });
  return { clock, left, said, session, over };
}

test("a session ends before it is a week old, and hosts that came together do not leave together", async () => {
  const [first, last] = [stage(), stage({ random: 1 })];
  for (const { clock } of [first, last]) await clock.advance(sessionAge.calmMs);
  expect([first.said, last.said]).toEqual([["this session is a week old"], []]);
  await last.clock.advance(sessionAge.spreadMs);
  expect(last.said).toHaveLength(1);
});

test("while it carries a call it waits for a better moment, but not beyond the week", async () => {
  const one = stage({ carries: 1 });
  await one.clock.advance(sessionAge.calmMs + 3 * sessionAge.lookMs);
  expect(one.said).toEqual([]);
  one.session.carries = 0;
  await one.clock.advance(sessionAge.lookMs);
  expect(one.said).toHaveLength(1);

  const busy = stage({ carries: 1 });
  await busy.clock.advance(sessionAge.mostMs - sessionAge.lookMs);
  expect(busy.said).toEqual([]);
  await busy.clock.advance(2 * sessionAge.lookMs);
  expect(busy.said).toHaveLength(1);
});

test("one that has ended already hears nothing", async () => {
  const one = stage();
  one.left.abort();
  await one.over;
  await one.clock.advance(sessionAge.mostMs);
  expect(one.said).toEqual([]);
});
