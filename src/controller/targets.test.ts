import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  cmdRunDescriptor,
  startOfTime,
  type TestNodes,
  testNodes,
  uuidOf,
} from "../../test/support/controller-rows.ts";
import { parseTarget } from "../api/target-text.ts";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/store.ts";
import { createTargets, type Targets } from "./targets.ts";

describe("targets", () => {
  let store: Store;
  let nodes: TestNodes;
  let targets: Targets;
  beforeEach(async () => {
    store = await openStore(":memory:");
    nodes = testNodes();
    targets = createTargets({ store, nodes });
    await nodes.add(store, "web-2", { tags: ["prod", "web"], labels: { region: "eu" } });
    await nodes.add(store, "web-1", { tags: ["web"], arch: "aarch64" });
    await nodes.add(store, "db-1", { tags: ["prod"], localTools: ["shell", "docker"], status: "disconnected" });
    await nodes.add(store, "old", { revokedAt: startOfTime });
    await nodes.add(store, "web-1", { tenantId: "other", tags: ["prod"] });
  });
  afterEach(() => store.close());

  const resolve = async (text: string, tool?: string) => {
    const { resolved, skipped } = await targets.resolve("acme", parseTarget(text), tool);
    return {
      resolved: resolved.map(({ name }) => name),
      skipped: skipped.map(({ name, reason }) => `${name} ${reason}`),
    };
  };

  test("all means every host of the tenant that is not revoked, and says who cannot be asked", async () => {
    expect(await resolve("all")).toEqual({ resolved: ["web-1", "web-2"], skipped: ["db-1 disconnected"] });
  });

  test("a host is found by id, name and start of id; never another tenant's", async () => {
    const id = uuidOf("acme web-1");
    expect(await resolve(`@${id}`)).toEqual({ resolved: ["web-1"], skipped: [] });
    expect(await resolve("@web-1")).toEqual({ resolved: ["web-1"], skipped: [] });
    expect(await resolve(`@${id.slice(0, 6)}`)).toEqual({ resolved: ["web-1"], skipped: [] });
    for (const name of [id.slice(0, 5), uuidOf("other web-1"), "mail", "old"])
      await expect(resolve(`@${name}`)).rejects.toMatchObject({
        code: "not_found",
        message: `no host "${name}" in this tenant`,
      });
    expect(await resolve(`@${uuidOf("acme old")}`)).toEqual({ resolved: [], skipped: ["old revoked"] });
  });

  test("a name that two hosts have is refused with both ids", async () => {
    await nodes.add(store, "twin", {});
    const row = await nodes.add(store, "twin-b", {});
    await store.describeNode(row.nodeId, { displayName: "twin", tags: [] });
    await expect(resolve("@twin")).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining(row.nodeId),
    });
  });

  test("a selector looks at what hosts say and how they are tagged", async () => {
    expect(await resolve("tags=prod")).toEqual({ resolved: ["web-2"], skipped: ["db-1 disconnected"] });
    expect(await resolve("arch=aarch64")).toEqual({ resolved: ["web-1"], skipped: [] });
    expect(await resolve("labels=region=eu")).toEqual({ resolved: ["web-2"], skipped: [] });
    expect(await resolve("tools=docker")).toEqual({ resolved: [], skipped: ["db-1 disconnected"] });
  });

  test("a group has its pinned members and what its selector finds", async () => {
    const pinned = [uuidOf("acme web-1"), uuidOf("other web-1"), uuidOf("acme old")];
    const group = {
      ...{ groupId: uuidOf("group"), tenantId: "acme", name: "mixed", selector: '{"tags":[{"Has":"prod"}]}' },
      ...{ pinnedMembers: pinned, createdBy: "ann", createdAt: startOfTime, version: 1 },
    };
    await store.insertGroup(group);
    await store.insertGroup({ ...group, groupId: uuidOf("empty"), name: "pinned", selector: "{}" });
    expect(await resolve("group:mixed")).toEqual({ resolved: ["web-1", "web-2"], skipped: ["db-1 disconnected"] });
    expect(await resolve("group:pinned")).toEqual({ resolved: ["web-1"], skipped: [] });
    await expect(targets.resolve("other", { Group: "mixed" })).rejects.toMatchObject({ code: "not_found" });
  });

  test("hosts that cannot do it are passed over, one host alone answers for itself", async () => {
    await nodes.add(store, "lazy", { tools: [{ ...cmdRunDescriptor, fleetCapable: false }] });
    await nodes.add(store, "other-tools", { tools: [{ ...cmdRunDescriptor, name: "fs.read" }] });
    await nodes.add(store, "silent", { tools: [] });
    await nodes.add(store, "paused", { paused: true });
    await nodes.add(store, "sick", { status: "unhealthy" });
    await nodes.add(store, "leaving", { status: "draining" });
    expect(await resolve("all", "cmd.run")).toEqual({
      resolved: ["silent", "web-1", "web-2"],
      skipped: [
        "db-1 disconnected",
        "lazy not_fleet_capable",
        "leaving draining",
        "other-tools tool_missing",
        "paused paused",
        "sick unhealthy",
      ],
    });
    expect(await resolve("@other-tools", "cmd.run")).toEqual({ resolved: ["other-tools"], skipped: [] });
    expect(await resolve("@lazy", "cmd.run")).toEqual({ resolved: ["lazy"], skipped: [] });
  });

  test("a host named twice is asked once", async () => {
    expect(await resolve(`@web-1,${uuidOf("acme web-1")}`)).toEqual({ resolved: ["web-1"], skipped: [] });
  });
});
