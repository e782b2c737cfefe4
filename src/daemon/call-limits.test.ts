import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { callLimits } from "./call-limits.ts";

const rule = "ops.capabilities[0]";
const unlimited = { rateLimit: null, maxConcurrent: null };

test("so many calls in so long, and the next says when it may come", async () => {
  const clock = fakeClock();
  const limits = callLimits(clock);
  const limited = { ...unlimited, rateLimit: { calls: 2, perMs: 10_000 } };
  expect(limits.admit(rule, limited).kind).toBe("admitted");
  await clock.advance(4_000);
  expect(limits.admit(rule, limited).kind).toBe("admitted");
  expect(limits.admit(rule, limited)).toEqual({
    kind: "refused",
    errorKind: "policy_violation",
    message: "rate_limit of ops.capabilities[0] is 2 calls in 10 s; the next may come in 6 s",
  });
  await clock.advance(5_999);
  expect(limits.admit(rule, limited).kind).toBe("refused");
  await clock.advance(1);
  expect(limits.admit(rule, limited).kind).toBe("admitted");
  expect(limits.admit(rule, limited).kind).toBe("refused"); // no burst at the edge of a window
});

test("a refused call does not count, and a finished one still does", async () => {
  const clock = fakeClock();
  const limits = callLimits(clock);
  const limited = { ...unlimited, rateLimit: { calls: 1, perMs: 1_000 } };
  const first = limits.admit(rule, limited);
  if (first.kind === "admitted") first.release();
  for (let time = 0; time < 5; time++) expect(limits.admit(rule, limited).kind).toBe("refused");
  await clock.advance(1_000);
  expect(limits.admit(rule, limited).kind).toBe("admitted");
});

test("so many at once, and the next as soon as one has ended", () => {
  const limits = callLimits(fakeClock());
  const limited = { ...unlimited, maxConcurrent: 2 };
  const [first] = [limits.admit(rule, limited), limits.admit(rule, limited)];
  expect(limits.admit(rule, limited)).toEqual({
    kind: "refused",
    errorKind: "overloaded",
    message: "max_concurrent of ops.capabilities[0] is 2, and as many calls run",
  });
  if (first?.kind !== "admitted") throw new Error("the first was refused");
  first.release();
  first.release(); // twice is once
  expect(limits.admit(rule, limited).kind).toBe("admitted");
  expect(limits.admit(rule, limited).kind).toBe("refused");
});

test("each rule counts for itself", () => {
  const limits = callLimits(fakeClock());
  const limited = { rateLimit: { calls: 1, perMs: 1_000 }, maxConcurrent: 1 };
  expect(limits.admit(rule, limited).kind).toBe("admitted");
  expect(limits.admit("ops.capabilities[1]", limited).kind).toBe("admitted");
  expect(limits.admit("default.capabilities[0]", limited).kind).toBe("admitted");
  expect(limits.admit(rule, limited).kind).toBe("refused");
});

test("calls that ran before a limit was configured count as running, and not against its rate", () => {
  const limits = callLimits(fakeClock());
  expect(limits.admit(rule, unlimited).kind).toBe("admitted");
  expect(limits.admit(rule, { ...unlimited, maxConcurrent: 1 }).kind).toBe("refused");
  expect(limits.admit(rule, { ...unlimited, rateLimit: { calls: 1, perMs: 1_000 } }).kind).toBe("admitted");
});
