import { expect, test } from "bun:test";
import { slopeOf } from "./slope.ts";

test("growth per hour is told as a share of where it began, and noise as what it may hide", () => {
  const steady = Array.from({ length: 11 }, (_, index) => [index * 360, 100 + index] as const);
  expect(slopeOf(steady).perHour).toBeCloseTo(0.1, 6);
  expect(slopeOf(steady).noise).toBeCloseTo(0, 6);
  const noisy = steady.map(([at, value], index) => [at, value + (index % 2 === 0 ? 5 : -5)] as const);
  expect(slopeOf(noisy).noise).toBeGreaterThan(0.05);
  expect(Math.abs(slopeOf(noisy).perHour - 0.1)).toBeLessThan(slopeOf(noisy).noise);
});

test("too few samples say nothing", () => {
  expect(slopeOf([[0, 1]])).toEqual({ perHour: 0, noise: Number.POSITIVE_INFINITY });
});
