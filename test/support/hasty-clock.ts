/** The system's clock, but for the waits between two looks at a certificate, which are none of a test's. */
import { renewalLookMs, waitingLookMs } from "../../src/controller/tls-renewal.ts";
import { type Clock, systemClock } from "../../src/platform/clock.ts";

export const hastyClock: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms === renewalLookMs || ms === waitingLookMs ? 20 : ms, signal),
};
