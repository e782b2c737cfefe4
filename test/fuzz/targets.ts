/** Everything that reads what others wrote. */
import { envelopeTargets } from "./envelope-targets.ts";
import type { FuzzTarget } from "./fuzz.ts";
import { operatorTargets } from "./operator-targets.ts";
import { textTargets } from "./text-targets.ts";

export const targets: readonly FuzzTarget[] = [...envelopeTargets, ...operatorTargets, ...textTargets];
