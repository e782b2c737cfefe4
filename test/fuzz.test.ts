/** Ten thousand changed inputs, a new ten thousand in every run; `npm run fuzz` makes more. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type FuzzTarget, fuzz } from "./fuzz/fuzz.ts";
import { mutated, random } from "./fuzz/random.ts";
import { watched } from "./fuzz/watched.ts";

describe("fuzz", () => {
  const seed = Date.now() % 2 ** 32;
  test(`10 000 cases find nothing (seed ${seed})`, async () => {
    const report = await watched({ cases: 10_000, seed });
    expect(report.findings).toEqual([]);
    expect(report.cases).toBeGreaterThanOrEqual(10_000);
    // What takes everything or nothing was never reached by what it is there for.
    expect(report.targets.filter(({ taken, refused }) => taken === 0 || refused === 0)).toEqual([]);
  }, 120_000);

  test("a broken check, a crash and slowness would be found, and the seed repeats them", async () => {
    const broken: FuzzTarget = {
      name: "accepts one in a hundred",
      run(by) {
        if (by.below(100) === 0) throw new Error("accepted");
        return "refused";
      },
    };
    const slow: FuzzTarget = { name: "is slow", run: () => Bun.sleep(1_050).then(() => "taken") };
    const { findings } = await fuzz([broken, slow], 2_000, 7);
    expect(findings.map(({ target }) => target)).toEqual(["accepts one in a hundred", "is slow"]);
    expect(() => broken.run(random(findings[0]?.seed ?? 0))).toThrow("accepted");
  });

  test("a loop without an end is found too, and named with its seed", async () => {
    const module = join(import.meta.dir, "fixtures/hanging-targets.ts");
    const { findings } = await watched({ module, cases: 4_000, seed: 7, patienceMs: 1_000 });
    expect(findings).toEqual([{ target: "loops for ever", seed: expect.any(Number), what: "did not end within 1 s" }]);
    expect(random(findings[0]?.seed ?? 0).below(200)).toBe(0);
  }, 30_000);

  test("a mutation is never the same bytes", () => {
    const by = random(1);
    const bytes = Uint8Array.from({ length: 64 }, (_, index) => index);
    for (let index = 0; index < 5_000; index++) expect(Buffer.from(mutated(bytes, by)).equals(bytes)).toBe(false);
  });
});
