import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import type { LiveRun, RunEnd } from "./fleet-run.ts";
import { keptRuns, keptRunsLimits } from "./kept-runs.ts";

const summary = { ok: 1, err: 0, timed_out: 0, cancelled: 0, edge_disconnected: 0, skipped: 0, not_started: 0 };
const end: RunEnd = { outcome: "complete", summary, endedAt: 0 };

/** One that has ended and whose events have so many characters. */
const ran = (runId: string, size = 0): LiveRun => ({
  ...{ runId, abortOnDisconnect: false, end, done: Promise.resolve(end), sign: () => false },
  principal: { name: "ann", tenantId: "acme", scopes: ["s"], contexts: ["default"] },
  events: { size, add() {}, whenRead() {}, end() {}, async *read() {} },
  cancel: () => ({ cancelled: 0, alreadyTerminal: 3 }),
});

test("the newest thousand are kept, for ten minutes", async () => {
  const clock = fakeClock();
  const kept = keptRuns(clock);
  const last = keptRunsLimits.count;
  for (let n = 0; n <= last; n++) kept.add(ran(`${n}`), end);
  expect(kept.get("0")).toBeNull();
  expect(kept.get("1")).toMatchObject({ runId: "1", end, principal: { name: "ann", tenantId: "acme" } });
  expect(kept.get("1")?.cancel("caller")).toEqual({ cancelled: 0, alreadyTerminal: 3 });
  await clock.advance(keptRunsLimits.forMs);
  expect(kept.get(`${last}`)).not.toBeNull();
  await clock.advance(1);
  expect(kept.get(`${last}`)).toBeNull();
  expect(kept.size).toBe(0);
});

test("their events are bounded in all: the oldest go first, the newest stays", () => {
  const kept = keptRuns(fakeClock());
  const third = Math.floor(keptRunsLimits.chars / 3);
  for (const runId of ["a", "b", "c"]) kept.add(ran(runId, third), end);
  expect(kept.size).toBeLessThanOrEqual(keptRunsLimits.chars);
  expect([kept.get("a"), kept.get("b")?.runId, kept.get("c")?.runId]).toEqual([null, "b", "c"]);
  kept.add(ran("huge", 3 * keptRunsLimits.chars), end);
  expect([kept.get("c"), kept.get("huge")?.runId]).toEqual([null, "huge"]);
});
