import { describe, expect, test } from "bun:test";
import { okResult } from "../../test/support/scripted-dispatcher.ts";
import type { CommandResult, FleetEvent, NewFleetEvent } from "../api/events.ts";
import { commandResult } from "./call-result.ts";
import { createRunLog, runLogLimits } from "./run-log.ts";

const never = new AbortController().signal;

const progress = (offset: number, data: string, commandId = "c1"): NewFleetEvent => ({
  event: "command_progress",
  data: { node_id: "n1", command_id: commandId, stream: "stdout", seq: 0, offset, data, skipped_bytes: 0 },
});
const result = (commandId: string, head = ""): CommandResult => ({
  ...commandResult({ nodeId: "n1", name: "web-1" }, commandId, okResult),
  stdout: { head, tail: "", bytes: head.length, omitted: 0, encoding: "utf8" },
});

async function readAll(log: ReturnType<typeof createRunLog>, after = 0): Promise<FleetEvent[]> {
  const events: FleetEvent[] = [];
  for await (const event of log.read(after, never)) events.push(event);
  return events;
}

describe("the log of a run", () => {
  test("a reader gets what was, what comes, and the end; a second one from where it left off", async () => {
    const log = createRunLog(async () => null);
    log.add(progress(0, "a"));
    const reading = readAll(log);
    await Promise.resolve();
    log.add(progress(1, "b"));
    log.add({ event: "command_result", data: result("c1") });
    log.end();
    expect((await reading).map(({ id, event }) => [id, event])).toEqual([
      [1, "command_progress"],
      [2, "command_progress"],
      [3, "command_result"],
    ]);
    expect((await readAll(log, 1)).map(({ id }) => id)).toEqual([2, 3]);
    expect(await readAll(log, 3)).toEqual([]);
    expect(await readAll(log, 99)).toEqual([]);
  });

  test("a reader that goes away is let go at once", async () => {
    const log = createRunLog(async () => null);
    const gone = new AbortController();
    const reading = log.read(0, gone.signal).next();
    gone.abort();
    expect(await reading).toEqual({ done: true, value: undefined });
  });

  test("live output is bounded: the oldest goes, and a reader is told how much it missed", async () => {
    const log = createRunLog(async () => null);
    const chunk = "x".repeat(32 * 1024);
    const count = 400;
    for (let at = 0; at < count; at++) log.add(progress(at * chunk.length, chunk));
    log.add({ event: "command_result", data: result("c1") });
    log.end();
    expect(log.size).toBeLessThanOrEqual(runLogLimits.progressChars + 2_000);
    const late = await readAll(log);
    expect(late.length).toBeLessThan(count);
    expect(late.at(-1)?.event).toBe("command_result");

    const slow = createRunLog(async () => null);
    slow.add(progress(0, chunk));
    const reader = slow.read(0, never);
    await reader.next();
    for (let at = 1; at < count; at++) slow.add(progress(at * chunk.length, chunk));
    const next = (await reader.next()).value as Extract<FleetEvent, { event: "command_progress" }>;
    expect(next.data.offset).toBeGreaterThan(chunk.length);
    expect(next.data.skipped_bytes).toBe(next.data.offset - chunk.length);
    const after = (await reader.next()).value as Extract<FleetEvent, { event: "command_progress" }>;
    expect(after.data.skipped_bytes).toBe(0);
  });

  describe("whoever makes the output", () => {
    const piece = "x".repeat(64 * 1024);
    const pieces = runLogLimits.behindChars / piece.length;
    /** More pieces than a reader may be behind, and whether more was asked for since. */
    const ahead = () => {
      const log = createRunLog(async () => null);
      let at = 0;
      const asked: number[] = [];
      const add = (count: number) => {
        for (let n = 0; n < count; n++, at++) {
          const index = at;
          log.add(progress(index * piece.length, piece));
          log.whenRead(() => asked.push(index));
        }
      };
      return { log, add, asked };
    };

    test("is not held up where nobody reads", () => {
      const { add, asked } = ahead();
      add(100);
      expect(asked).toHaveLength(100);
    });

    test("waits for the slowest of those who read, and goes on in order as they do", async () => {
      const { log, add, asked } = ahead();
      const [slow, fast] = [log.read(0, never), log.read(0, never)];
      const first = [slow.next(), fast.next()];
      add(pieces + 5);
      await Promise.all(first);
      for (let n = 1; n < pieces + 5; n++) await fast.next();
      const before = asked.length;
      expect(before).toBeLessThan(pieces + 5);
      for (let n = 0; n < 8; n++) await slow.next();
      expect(asked).toEqual(Array.from({ length: pieces + 5 }, (_, index) => index));
    });

    test("is let go when a reader leaves, and when the run ends", async () => {
      for (const how of ["leaves", "ends"] as const) {
        const { log, add, asked } = ahead();
        const gone = new AbortController();
        void log.read(0, gone.signal).next();
        add(pieces + 5);
        expect(asked.length).toBeLessThan(pieces + 5);
        if (how === "leaves") gone.abort();
        else log.end();
        expect(asked).toHaveLength(pieces + 5);
      }
    });

    test("waits for one that comes later too, but not for what it can no longer read", async () => {
      const { log, add, asked } = ahead();
      add(300);
      const late = log.read(0, never);
      await late.next();
      add(1);
      expect(asked).toHaveLength(300);
      const afterAll = createRunLog(async () => null);
      for (let n = 0; n < 300; n++) afterAll.add(progress(n * piece.length, piece));
      const fresh = afterAll.read(300, never);
      void fresh.next();
      let isAsked = false;
      afterAll.whenRead(() => {
        isAsked = true;
      });
      expect(isAsked).toBe(true);
    });
  });

  test("large results are let go too, and read again from where they are stored", async () => {
    const big = "y".repeat(3 * 1024 * 1024);
    const log = createRunLog(async (commandId) => result(commandId, big));
    for (let at = 0; at < 20; at++) log.add({ event: "command_result", data: result(`c${at}`, big) });
    log.end();
    expect(log.size).toBeLessThanOrEqual(runLogLimits.resultChars + big.length);
    const events = await readAll(log);
    expect(events.map(({ data }) => (data as CommandResult).command_id)).toEqual(
      Array.from({ length: 20 }, (_, at) => `c${at}`),
    );
    expect(events.every(({ data }) => (data as CommandResult).stdout.head === big)).toBe(true);
  });
});
