/** Enrollment challenges: used once, for a while, and few for whoever does not redeem them. */
import { describe, expect, test } from "bun:test";
import { randomBytes, randomUUID } from "node:crypto";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { newKey } from "../../test/support/strict-keys.ts";
import { limits } from "../platform/limits.ts";
import { challengeLimits, createChallenges, type OpenChallenge } from "./challenges.ts";

const key = newKey();
const challenge = (): OpenChallenge => ({ nodeId: randomUUID(), key, nonce: randomBytes(32), strict: true });
const perAddress = limits.enrollmentAttemptsPerMinute;

function stage() {
  const clock = fakeClock();
  return { clock, challenges: createChallenges(clock) };
}

describe("a challenge", () => {
  test("66 is used up by being taken, whatever comes of it", () => {
    const { challenges } = stage();
    const one = challenge();
    const id = challenges.open("a", () => one);
    expect(challenges.take(id)).toBe(one);
    expect(challenges.take(id)).toBeNull();
    expect(challenges.take(randomUUID())).toBeNull();
  });

  test("lives five minutes by the clock that no one can set", async () => {
    const { challenges, clock } = stage();
    const [early, late] = [challenges.open("a", challenge), challenges.open("a", challenge)];
    clock.step(-86_400_000);
    await clock.advance(challengeLimits.lifeMs);
    expect(challenges.take(early)).not.toBeNull();
    await clock.advance(1);
    expect(challenges.take(late)).toBeNull();
  });
});

describe("attempts", () => {
  const fill = (challenges: ReturnType<typeof createChallenges>, address: string) =>
    Array.from({ length: perAddress }, () => challenges.take(challenges.open(address, challenge)));

  test("30 a minute from one address, used or not; another address has its own", async () => {
    const { challenges, clock } = stage();
    fill(challenges, "a");
    expect(() => challenges.open("a", challenge)).toThrow(/more than 30 enrollment attempts a minute/);
    challenges.open("b", challenge);
    await clock.advance(59_999);
    expect(() => challenges.open("a", challenge)).toThrow();
    await clock.advance(1);
    challenges.open("a", challenge);
  });

  test("that led to a host do not count, so a fleet behind one address can enroll", () => {
    const { challenges } = stage();
    for (let n = 0; n < 200; n++) {
      const one = challenges.take(challenges.open("a", challenge));
      if (one) challenges.redeemed(one);
    }
    challenges.open("a", challenge);
  });

  test("redeeming twice, or what was forgotten, gives no place away", async () => {
    const { challenges, clock } = stage();
    const [first] = fill(challenges, "a");
    if (first) for (let n = 0; n < 5; n++) challenges.redeemed(first);
    challenges.open("a", challenge);
    expect(() => challenges.open("a", challenge)).toThrow();
    await clock.advance(60_000);
    if (first) challenges.redeemed(first);
    fill(challenges, "a");
    expect(() => challenges.open("a", challenge)).toThrow();
  });

  test("that fail count too, and over the limit nothing is looked at any more", () => {
    const { challenges } = stage();
    let looked = 0;
    const weak = (): never => {
      looked++;
      throw new Error("no key");
    };
    for (let n = 0; n < 50; n++) expect(() => challenges.open("a", weak)).toThrow();
    expect(looked).toBe(perAddress);
  });

  test("10 000 in all, from however many addresses, also when each is used up at once", async () => {
    const { challenges, clock } = stage();
    for (let n = 0; n < challengeLimits.open; n++) challenges.take(challenges.open(`address ${n}`, challenge));
    expect(() => challenges.open("one more", challenge)).toThrow(/under way/);
    await clock.advance(60_000);
    challenges.open("one more", challenge);
  });
});
