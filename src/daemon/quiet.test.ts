import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { settleMs, watchQuiet } from "./quiet.ts";

function watched() {
  const clock = fakeClock();
  const calls = { active: 0, answered: 0 };
  const stop = new AbortController();
  const seen = { quiet: 0 };
  const quiet = watchQuiet({ clock, signal: stop.signal, calls: () => calls, onQuiet: () => seen.quiet++ });
  return { clock, calls, stop, seen, quiet };
}

test("a start is over a while after the first connection, and only after the first", async () => {
  const { clock, seen, quiet } = watched();
  quiet.connected();
  await clock.advance(settleMs - 1);
  expect(seen.quiet).toBe(0);
  await clock.advance(1);
  expect(seen.quiet).toBe(1);
  quiet.connected();
  await clock.advance(settleMs);
  expect(seen.quiet).toBe(1);
});

test("calls are over when none runs and some have ended since the last look", () => {
  const { calls, seen, quiet } = watched();
  quiet.look();
  calls.active = 1;
  calls.answered = 4;
  quiet.look();
  expect(seen.quiet).toBe(0);
  calls.active = 0;
  quiet.look();
  quiet.look();
  expect(seen.quiet).toBe(1);
});

test("a daemon that ends meanwhile gives nothing back any more", async () => {
  const { clock, stop, seen, quiet } = watched();
  quiet.connected();
  stop.abort();
  await clock.advance(settleMs);
  expect(seen.quiet).toBe(0);
});
