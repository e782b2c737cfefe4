/** Ten thousand changed inputs, a new ten thousand in every run; `npm run fuzz` makes more. */
import { afterAll, describe, expect, test } from "bun:test";
import { envelopeTargets } from "./fuzz/envelope-targets.ts";
import { type FuzzTarget, fuzz } from "./fuzz/fuzz.ts";
import { operatorTargets } from "./fuzz/operator-targets.ts";
import { mutated, random } from "./fuzz/random.ts";
import { removeScratch, textTargets } from "./fuzz/text-targets.ts";

afterAll(removeScratch);

describe("fuzz", () => {
  const seed = Date.now() % 2 ** 32;
  test(`10 000 cases find nothing (seed ${seed})`, async () => {
    const report = await fuzz([...envelopeTargets, ...operatorTargets, ...textTargets], 10_000, seed);
    expect(report.findings).toEqual([]);
    expect(report.cases).toBeGreaterThanOrEqual(10_000);
  }, 120_000);

  test("a broken check, a crash and a hang would be found, and the seed repeats them", async () => {
    const broken: FuzzTarget = {
      name: "accepts one in a hundred",
      run(by) {
        if (by.below(100) === 0) throw new Error("accepted");
      },
    };
    const slow: FuzzTarget = { name: "hangs", run: () => Bun.sleep(1_050) };
    const { findings } = await fuzz([broken, slow], 2_000, 7);
    expect(findings.map(({ target }) => target)).toEqual(["accepts one in a hundred", "hangs"]);
    expect(() => broken.run(random(findings[0]?.seed ?? 0))).toThrow("accepted");
  });

  test("a mutation is never the same bytes", () => {
    const by = random(1);
    const bytes = Uint8Array.from({ length: 64 }, (_, index) => index);
    for (let index = 0; index < 5_000; index++) expect(Buffer.from(mutated(bytes, by)).equals(bytes)).toBe(false);
  });
});
