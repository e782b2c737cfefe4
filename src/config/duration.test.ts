import { expect, test } from "bun:test";
import { AegisError } from "../errors.ts";
import { formatDuration, maxDurationMs, parseDuration } from "./duration.ts";

test("each unit means what it says", () => {
  expect(["500ms", "60s", "15m", "24h", "7d", "0s", " 5s "].map(parseDuration)).toEqual([
    ...[500, 60_000, 900_000, 86_400_000, 604_800_000, 0, 5_000],
  ]);
});

test("what is no duration is refused with the value and examples", () => {
  for (const text of [
    "",
    "60",
    "s",
    "-5s",
    "1.5h",
    "1h30m",
    "5 s",
    "5S",
    "1e3s",
    "Infinity",
    "99999999999999999d",
    "36526d",
  ]) {
    let thrown: unknown;
    try {
      parseDuration(text);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(AegisError);
    expect(thrown).toMatchObject({ code: "usage", message: expect.stringContaining(JSON.stringify(text)) });
    expect((thrown as AegisError).hint).toContain("60s, 15m, 24h");
  }
});

test("what is written is read back as the same time", () => {
  expect([0, 1, 999, 1_000, 90_000, 900_000, 3_600_000, 86_400_000, 604_800_000].map(formatDuration)).toEqual([
    ...["0s", "1ms", "999ms", "1s", "90s", "15m", "1h", "1d", "7d"],
  ]);
  for (const ms of [0, 1, 1_001, 61_000, 5_400_000, maxDurationMs]) expect(parseDuration(formatDuration(ms))).toBe(ms);
});
