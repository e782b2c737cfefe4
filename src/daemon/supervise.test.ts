/** One session after another: patience grows with failures, and only a healthy session resets it. */
import { describe, expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { type RunSession, type SessionEnd, supervise } from "./supervise.ts";

const healthyAfterMs = 60_000;
const scheduleMs = [1_000, 2_000, 5_000, 30_000];

/** Runs sessions of these lengths and ends, then a shutdown; yields the waits between them. */
async function waits(sessions: Array<{ livedMs?: number; end?: Partial<SessionEnd>; fails?: unknown }>, random = 1) {
  const clock = fakeClock({ auto: true });
  const retries: Array<{ failures: number; delayMs: number }> = [];
  let at = 0;
  const run: RunSession = async (signal) => {
    const session = sessions[at++];
    if (!session) return { kind: "shutdown" };
    await clock.sleep(session.livedMs ?? 0, signal);
    if (session.fails) throw session.fails;
    return { kind: "lost", cause: new Error("gone"), ...session.end } as SessionEnd;
  };
  await supervise(run, {
    clock,
    backoff: { scheduleMs, random: () => random },
    healthyAfterMs,
    signal: new AbortController().signal,
    onRetry: ({ failures, delayMs }) => void retries.push({ failures, delayMs }),
  });
  return retries;
}

describe("waiting between sessions", () => {
  test("grows along the schedule and stays at its end", async () => {
    const retries = await waits(Array.from({ length: 6 }, () => ({})));
    expect(retries.map(({ delayMs }) => delayMs)).toEqual([1_000, 2_000, 5_000, 30_000, 30_000, 30_000]);
    expect(retries.map(({ failures }) => failures)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test("is drawn between nothing and the bound", async () => {
    expect((await waits([{}, {}, {}], 0.5)).map(({ delayMs }) => delayMs)).toEqual([500, 1_000, 2_500]);
    expect((await waits([{}, {}], 0)).map(({ delayMs }) => delayMs)).toEqual([0, 0]);
  });

  test("starts over after a session that lived long enough, and not a moment sooner", async () => {
    const retries = await waits([{}, {}, { livedMs: healthyAfterMs - 1 }, {}, { livedMs: healthyAfterMs }, {}]);
    expect(retries.map(({ failures }) => failures)).toEqual([1, 2, 3, 4, 1, 2]);
  });

  test("that connects and is dropped at once does not start it over", async () => {
    const retries = await waits(Array.from({ length: 5 }, () => ({ livedMs: 5 })));
    expect(retries.at(-1)).toEqual({ failures: 5, delayMs: 30_000 });
  });

  test("is as long as the controller asked, and no shorter than our own", async () => {
    const retries = await waits([{ end: { retryAfterMs: 900_000 } }, { end: { retryAfterMs: 10 } }]);
    expect(retries.map(({ delayMs }) => delayMs)).toEqual([900_000, 2_000]);
  });

  test("comes after a session that threw, as after one that was lost", async () => {
    expect(await waits([{ fails: new Error("no route") }])).toEqual([{ failures: 1, delayMs: 1_000 }]);
  });
});

describe("stopping", () => {
  test("a shutdown ends it without another try", async () => {
    expect(await waits([])).toEqual([]);
  });

  test("an abort ends the wait, and nothing is tried again", async () => {
    const clock = fakeClock();
    const stop = new AbortController();
    let sessions = 0;
    const done = supervise(
      async () => {
        sessions++;
        return { kind: "lost", cause: null };
      },
      { clock, backoff: { scheduleMs, random: () => 1 }, healthyAfterMs, signal: stop.signal },
    );
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    expect(clock.sleeping).toBe(1);
    stop.abort();
    await done;
    expect([sessions, clock.sleeping]).toEqual([1, 0]);
  });

  test("an abort during a session is not told as a retry", async () => {
    const stop = new AbortController();
    let retries = 0;
    await supervise(
      async () => {
        stop.abort();
        return { kind: "lost", cause: null };
      },
      {
        clock: fakeClock(),
        backoff: { scheduleMs, random: () => 1 },
        healthyAfterMs,
        signal: stop.signal,
        onRetry: () => retries++,
      },
    );
    expect(retries).toBe(0);
  });

  test("nothing is tried when it was aborted before", async () => {
    const signal = AbortSignal.abort();
    const run = () => Promise.reject(new Error("tried"));
    await supervise(run, { clock: fakeClock(), backoff: { scheduleMs, random: () => 1 }, healthyAfterMs, signal });
  });
});
