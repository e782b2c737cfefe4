import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startOfTime, testNodes, uuidOf } from "../../test/support/controller-rows.ts";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { silentLog } from "../platform/log.ts";
import { openStore } from "../store/open.ts";
import { databasePath } from "./database.ts";
import { createRevocations } from "./revocations.ts";
import { removeTenant } from "./tenants.ts";

let dataDir: string;
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "aegis-revocations-"));
});
afterEach(() => rm(dataDir, { recursive: true }));

test("a tenant removed by a command line beside the controller loses its streams within a second", async () => {
  const store = await openStore(databasePath(dataDir));
  const nodes = testNodes();
  await nodes.add(store, "a");
  await nodes.add(store, "b", { tenantId: "other" });
  const clock = fakeClock();
  const stop = new AbortController();
  const watching = createRevocations({ store, sessions: nodes, clock, log: silentLog }).watch(stop.signal);
  const settled = async () => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  };
  await settled();
  await clock.advance(1_000);
  expect(nodes.ended).toEqual([]);
  expect((await store.tenants()).map(({ tenantId }) => tenantId)).toEqual(["acme", "other"]);
  expect(await removeTenant({ dataDir, tenantId: "acme", clock })).toBe(true);
  expect(await removeTenant({ dataDir, tenantId: "acme", clock })).toBe(false);
  await clock.advance(1_000);
  await settled();
  expect(nodes.ended).toEqual([{ nodeId: uuidOf("acme a"), reason: 4 }]);
  expect((await store.node(uuidOf("acme a")))?.revokedAt).toBe(startOfTime + 1_000);
  stop.abort();
  await watching;
  await store.close();
});
