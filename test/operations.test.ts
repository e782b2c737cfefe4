/** What operators do to hosts that really run: revoke, push, drain, remove a tenant, restore a backup, prove what happened. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { createApiClient } from "../src/api/client.ts";
import type { CommandResult, FleetEvent } from "../src/api/events.ts";
import { verifyDataDir } from "../src/controller/audit-verify.ts";
import { backupController, restoreController } from "../src/controller/backup.ts";
import { createOperatorToken } from "../src/controller/operator-tokens.ts";
import { startController } from "../src/controller/run.ts";
import { removeTenant } from "../src/controller/tenants.ts";
import { systemClock as clock } from "../src/platform/clock.ts";
import { silentLog } from "../src/platform/log.ts";
import { eventually } from "./support/aegis.ts";
import { type BareHost, bareHost, type Enrolling, enrolling } from "./support/enrolling.ts";

let controller: Enrolling;
const hosts: BareHost[] = [];
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(async () => {
  controller = await enrolling();
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
  await controller.remove();
  for (const host of hosts.splice(0)) host.remove();
});

/** A host that is enrolled, runs and is connected. */
async function running(name: string, { fullAccess = false } = {}) {
  const host = bareHost();
  hosts.push(host);
  const { nodeId } = await host.enroll(await controller.issue({ name }), { fullAccess });
  const states: string[] = [];
  const daemon = await host.run({ onState: (state) => void states.push(state) });
  cleanUp.push(() => daemon.stop());
  await eventually(`${name} is connected`, async () => (await controller.api.host(nodeId)).status === "connected");
  return { host, nodeId, daemon, states };
}

async function invoke(target: string, args: Record<string, unknown>, api = controller.api): Promise<CommandResult[]> {
  const results: CommandResult[] = [];
  const request = { target: { Node: target }, tool: "cmd.run", args };
  for await (const event of api.invoke(request, { signal: new AbortController().signal }))
    if (event.event === "command_result") results.push(event.data);
  return results;
}

/** How long `change` takes to be noticed by a daemon, in milliseconds. */
async function untilRevoked(
  daemon: Awaited<ReturnType<BareHost["run"]>>,
  change: () => Promise<unknown>,
): Promise<number> {
  await change();
  const start = performance.now();
  await eventually("the daemon is told that it is revoked", () =>
    daemon.log.lines.some((line) => JSON.stringify(line).includes("revoked")),
  );
  return performance.now() - start;
}

test("a revoked host's stream is cut within a second, it is gone from the list and comes in no more", async () => {
  const { host, nodeId, daemon } = await running("web-1");
  expect((await invoke("web-1", { command: "uname" }))[0]).toMatchObject({ ok: true, receipt: "verified" });
  expect(await untilRevoked(daemon, () => controller.api.revokeHost("web-1"))).toBeLessThan(1_000);
  expect(await controller.api.allHosts()).toEqual([]);
  expect((await controller.api.allHosts({ all: true })).map(({ status }) => status)).toEqual(["revoked"]);
  await daemon.stop();
  const again = await host.run({}, () => Promise.resolve());
  await eventually("a new stream is refused, by a word that the daemon believes", () =>
    again.log.lines.some((line) => JSON.stringify(line).includes("revoked")),
  );
  await again.stop();
  expect((await controller.store.node(nodeId))?.revokedAt).not.toBeNull();
});

describe("while a call streams", () => {
  const ways: [what: string, end: () => Promise<unknown>][] = [
    ["its host is revoked", () => controller.api.revokeHost("web-1")],
    ["its tenant is removed", () => removeTenant({ dataDir: controller.dataDir, tenantId: "acme", clock })],
  ];
  for (const [what, end] of ways)
    test(`${what}: the call has ended for its caller within a second, and nothing more of it comes`, async () => {
      const { daemon } = await running("web-1", { fullAccess: true });
      const { token } = await createOperatorToken({
        ...{ dataDir: controller.dataDir, name: "ann", tenantId: "acme", scopes: ["aegis.admin"] },
        ...{ contexts: ["operator"], expiresAt: null, clock },
      });
      const api = createApiClient({ url: controller.httpUrl, token, caPem: controller.caPem || null });
      const args = { command: "sh", args: ["-c", "for i in $(seq 100); do echo on; sleep 0.02; done"] };
      const request = { target: { Node: "web-1" }, tool: "cmd.run", args, context: "operator" };
      const heard: FleetEvent[] = [];
      const over = (async () => {
        for await (const event of api.invoke(request, { signal: new AbortController().signal })) heard.push(event);
      })().catch((error: unknown) => error);
      await eventually("it streams", () => heard.filter(({ event }) => event === "command_progress").length > 2);
      expect(await untilRevoked(daemon, end)).toBeLessThan(1_000);
      const since = performance.now();
      await over;
      expect(performance.now() - since).toBeLessThan(1_000);
      const results = heard.flatMap((event) => (event.event === "command_result" ? [event.data] : []));
      expect(results.map(({ ok }) => ok)).not.toContain(true);
      if (results.length > 0) expect(results).toMatchObject([{ error_kind: "edge_disconnected" }]);
    });
});

test("a tenant removed on the controller's command line takes its streams with it within a second", async () => {
  const { daemon } = await running("web-1");
  const remove = () => removeTenant({ dataDir: controller.dataDir, tenantId: "acme", clock });
  expect(await untilRevoked(daemon, remove)).toBeLessThan(1_000);
  await expect(controller.api.whoami()).rejects.toMatchObject({ code: "unauthenticated" });
});

test("another tenant's operator reaches none of it", async () => {
  const { nodeId } = await running("web-1");
  const made = await createOperatorToken({
    ...{ dataDir: controller.dataDir, name: "eve", tenantId: "other", scopes: ["aegis.admin"] },
    ...{ contexts: ["default"], expiresAt: null, clock },
  });
  const url = `http://localhost:${new URL(controller.httpUrl).port}`;
  const eve = createApiClient({ url, token: made.token, caPem: null });
  expect(await eve.allHosts({ all: true })).toEqual([]);
  await expect(eve.host(nodeId)).rejects.toMatchObject({ code: "not_found" });
  await expect(invoke(nodeId, { command: "uname" }, eve)).rejects.toMatchObject({ code: "not_found" });
  await expect(eve.revokeHost(nodeId)).rejects.toMatchObject({ code: "not_found" });
  expect((await invoke(nodeId, { command: "uname" }))[0]?.ok).toBe(true);
});

test("settings reach a host, and a drained one takes no more calls", async () => {
  const { nodeId, daemon } = await running("web-1");
  await controller.api.pushConfig("web-1", { custom_labels: { rack: "7" }, heartbeat_interval_secs: 1 });
  await eventually("the pushed label is announced", async () => {
    const { capabilities } = await controller.api.host(nodeId);
    return capabilities.labels.rack === "7";
  });
  await controller.api.drain("web-1");
  await eventually("the host drains", async () => (await controller.api.host(nodeId)).status === "draining");
  await eventually("the daemon says so", () => daemon.log.find("draining") !== undefined);
  expect(await controller.api.preview("All")).toMatchObject({ resolved: [], skipped: [{ reason: "draining" }] });
});

test("a restored backup keeps hosts connected and operators signed in, and its audit unbroken", async () => {
  const { nodeId } = await running("web-1");
  await invoke("web-1", { command: "uname" });
  const file = join(controller.dataDir, "..", "backup");
  const dataDir = join(controller.dataDir, "..", "restored");
  await backupController({ dataDir: controller.dataDir, file, clock });
  await controller.stop();
  await restoreController({ dataDir, file, clock });
  const restored = await startController({ dataDir, httpPort: 0, clock, log: silentLog });
  cleanUp.push(() => restored.close());
  const api = createApiClient({ url: restored.httpUrl, token: controller.token, caPem: null });
  await eventually("the host is back", async () => (await api.host(nodeId)).status === "connected", 20_000);
  expect((await invoke("web-1", { command: "uname" }, api))[0]).toMatchObject({ ok: true, receipt: "verified" });
  const report = await verifyDataDir({ dataDir, controllerId: restored.controllerId });
  expect(report).toMatchObject({ receipts: { verified: 2, invalid: 0, unknown_key: 0 }, problems: [] });
}, 40_000);

test("the audit proves what ran, and shows a result that was changed in the database", async () => {
  const { nodeId } = await running("web-1");
  const [result] = await invoke("web-1", { command: "uname" });
  await controller.stop();
  const check = () => verifyDataDir({ dataDir: controller.dataDir, controllerId: controller.controllerId });
  expect(await check()).toMatchObject({ receipts: { verified: 1 }, unanswered: 0, problems: [] });
  const page = await controller.store.audit({ after: 0 }, 100);
  expect(page.map(({ kind }) => kind)).toEqual([
    ...["token_created", "controller_started", "enrollment_token_issued", "host_enrolled"],
    ...["dispatch", "result", "controller_stopped"],
  ]);
  expect(page[3]).toMatchObject({ nodeId, tenantId: "acme" });
  const db = new Database(join(controller.dataDir, "controller.db"));
  db.run("UPDATE commands SET result = CAST(result || x'00' AS BLOB) WHERE command_id = ?", [result?.command_id ?? ""]);
  db.close();
  expect((await check()).problems.map(({ message }) => message)).toEqual([
    `the result of ${result?.command_id} was changed in the database`,
  ]);
});
