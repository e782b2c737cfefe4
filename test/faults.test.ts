/** The faults that are quick to strike; `npm run faults` has all of them. */
import { expect, setDefaultTimeout } from "bun:test";
import { violations } from "./faults/fault.ts";
import { allFaults } from "./faults/faults.ts";
import { needs } from "./support/needs.ts";

setDefaultTimeout(60_000);

for (const fault of allFaults.filter(({ smoke }) => smoke))
  needs(...fault.needs)(
    `${fault.name}: nothing runs twice, nothing is reported that was not, and all recover`,
    async () => {
      expect(violations(await fault.run(), fault)).toEqual([]);
    },
  );
