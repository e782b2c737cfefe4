import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { type Quietness, restMs, settleMs, watchQuiet } from "./quiet.ts";

function watched() {
  const clock = fakeClock();
  const calls = { active: 0, answered: 0 };
  const stop = new AbortController();
  const seen: Quietness[] = [];
  const onQuiet = (after: Quietness) => void seen.push(after);
  const quiet = watchQuiet({ clock, signal: stop.signal, calls: () => calls, onQuiet });
  return { clock, calls, stop, seen, quiet };
}

test("a start is over a while after the first connection, and only after the first", async () => {
  const { clock, seen, quiet } = watched();
  quiet.look(); // of a connection that never came up
  quiet.connected();
  await clock.advance(settleMs - 1);
  expect(seen).toEqual([]);
  await clock.advance(1);
  expect(seen).toEqual(["work"]);
  quiet.connected();
  await clock.advance(settleMs);
  expect(seen).toEqual(["work"]);
});

test("while a call runs it is not quiet; then it is over once, and later there was nothing, now and then", async () => {
  const { clock, calls, seen, quiet } = watched();
  quiet.connected();
  await clock.advance(settleMs);
  seen.length = 0;
  calls.active = 1;
  calls.answered = 4;
  quiet.look();
  expect(seen).toEqual([]);
  calls.active = 0;
  quiet.look();
  quiet.look();
  await clock.advance(restMs - 1);
  quiet.look();
  expect(seen).toEqual(["work"]);
  await clock.advance(1);
  quiet.look();
  quiet.look();
  expect(seen).toEqual(["work", "nothing"]);
});

test("a daemon that ends meanwhile gives nothing back any more", async () => {
  const { clock, stop, seen, quiet } = watched();
  quiet.connected();
  stop.abort();
  await clock.advance(settleMs);
  expect(seen).toEqual([]);
});
