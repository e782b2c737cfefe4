/** The controller's runs without sockets or hosts: a database in memory, a clock and a dispatcher that do as they are told. */
import { createFleet, type FleetRuns } from "../../src/controller/fleet.ts";
import { createTargets, type Targets } from "../../src/controller/targets.ts";
import { silentLog } from "../../src/platform/log.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/store.ts";
import { type TestNodes, testNodes } from "./controller-rows.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { type ScriptedCall, type ScriptedDispatcher, scriptedDispatcher } from "./scripted-dispatcher.ts";

export interface TestFleet {
  store: Store;
  nodes: TestNodes;
  clock: FakeClock;
  targets: Targets;
  dispatcher: ScriptedDispatcher;
  fleet: FleetRuns;
}

/** `react`: what a dispatched call does at once. */
export async function testFleet(react: (call: ScriptedCall) => void): Promise<TestFleet> {
  const store = await openStore(":memory:");
  const nodes = testNodes();
  const clock = fakeClock();
  const targets = createTargets({ store, nodes });
  const dispatcher = scriptedDispatcher(react);
  const fleet = createFleet({ store, nodes, targets, dispatcher, clock, time: clock.now, log: silentLog });
  return { store, nodes, clock, targets, dispatcher, fleet };
}
