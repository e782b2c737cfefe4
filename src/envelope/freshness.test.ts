/** The estimate of the controller's time, and what it admits. */
import { describe, expect, test } from "bun:test";
import { freshness, maxCommandAgeMs, maxSuspendMs, maxTickDelayMs, tickMs } from "./freshness.ts";

const serverTimeMs = 1_767_225_600_000;
const start = { serverTimeMs, helloWrittenAt: 1_000, acceptReceivedAt: 1_000, bootAt: 50_000 };

describe("the age of a command", () => {
  test("up to 30 s is admitted, and more is not", () => {
    const fresh = freshness(start);
    expect(fresh.admits(serverTimeMs, 1_000 + maxCommandAgeMs)).toBe(true);
    expect(fresh.admits(serverTimeMs, 1_000 + maxCommandAgeMs + 1)).toBe(false);
  });

  test("what the handshake took is part of the 30 s", () => {
    const fresh = freshness({ ...start, acceptReceivedAt: 10_000 });
    expect(fresh.admits(serverTimeMs, 1_000 + maxCommandAgeMs - 9_000)).toBe(true);
    expect(fresh.admits(serverTimeMs, 1_000 + maxCommandAgeMs - 9_000 + 1)).toBe(false);
  });

  test("an ACCEPT that came late does not turn the estimate back", () => {
    expect(freshness({ ...start, acceptReceivedAt: 9_000 }).estimateMs(9_000)).toBe(serverTimeMs + 8_000);
  });

  test("a stamp ahead of the estimate is admitted and moves it, a stamp behind moves nothing", () => {
    const fresh = freshness(start);
    expect(fresh.admits(serverTimeMs + 20_000, 1_000)).toBe(true);
    expect(fresh.estimateMs(1_000)).toBe(serverTimeMs + 20_000);
    expect(fresh.admits(serverTimeMs, 1_000)).toBe(true);
    expect(fresh.estimateMs(1_000)).toBe(serverTimeMs + 20_000);
    expect(fresh.admits(serverTimeMs - 10_001, 1_000)).toBe(false);
  });
});

describe("standing still", () => {
  test("a sleep of more than 5 s is noticed, whenever it was", () => {
    const fresh = freshness(start);
    expect(fresh.stoodStill(2_000, 51_000 + maxSuspendMs)).toBe(false);
    expect(fresh.stoodStill(2_000, 51_000 + maxSuspendMs + 1)).toBe(true);
    fresh.tick(2_000);
    expect(fresh.stoodStill(2_000, 51_000 + maxSuspendMs + 1)).toBe(true);
  });

  test("a sleep between Hello and ACCEPT counts", () => {
    const fresh = freshness({ ...start, acceptReceivedAt: 1_100 });
    expect(fresh.stoodStill(1_100, 50_100 + 6_000)).toBe(true);
  });

  test("a tick that is more than 15 s late is noticed", () => {
    const fresh = freshness(start);
    const late = 1_000 + tickMs + maxTickDelayMs;
    expect(fresh.stoodStill(late, 49_000 + late)).toBe(false);
    expect(fresh.stoodStill(late + 1, 49_000 + late + 1)).toBe(true);
    fresh.tick(late);
    expect(fresh.stoodStill(late + 1, 49_000 + late + 1)).toBe(false);
  });

  test("a boot clock that falls behind is no sleep", () => {
    expect(freshness(start).stoodStill(2_000, 40_000)).toBe(false);
  });
});
