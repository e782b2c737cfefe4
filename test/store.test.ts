/** What every Store must do, whatever database is behind it. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openStore } from "../src/store/open.ts";
import type { ApiTokenRow, CommandRow, GroupRow, NodeRow, RotationRow, RunRow, Store } from "../src/store/store.ts";

/** A fresh database for each test, which can be opened again as often as one likes. */
interface Implementation {
  name: string;
  fresh(): Promise<{ open(): Promise<Store>; remove(): Promise<void> }>;
}

const implementations: Implementation[] = [
  {
    name: "sqlite",
    async fresh() {
      const directory = await mkdtemp(join(tmpdir(), "aegis-store-"));
      return {
        open: () => openStore(join(directory, "controller.db")),
        remove: () => rm(directory, { recursive: true }),
      };
    },
  },
];

const at = 1_767_225_600_000;
const bytes = (text: string) => new Uint8Array(createHash("sha256").update(text).digest());
const keyId = (key: Uint8Array) => createHash("sha256").update(key).digest();

const node = (nodeId: string, change: Partial<NodeRow> = {}): NodeRow => ({
  nodeId,
  tenantId: "acme",
  publicKey: bytes(`key of ${nodeId}`),
  seal: "strict",
  hostName: `host-${nodeId}`,
  displayName: null,
  tags: ["prod", 'naïve, "quoted"'],
  capabilities: new Uint8Array([0, 255, 1]),
  softwareVersion: "1.2.3",
  enrolledAt: at,
  connectedSince: null,
  lastHeartbeatAt: null,
  tokenJti: "jti-1",
  tokenExpiresAt: at + 1,
  revokedAt: null,
  ...change,
});

const apiToken = (tokenId: string, change: Partial<ApiTokenRow> = {}): ApiTokenRow => ({
  tokenId,
  hash: bytes(tokenId),
  name: "ci",
  tenantId: "acme",
  scopes: ["aegis.edge.hosts.read"],
  contexts: ["default"],
  createdAt: at,
  expiresAt: null,
  lastUsedAt: null,
  revokedAt: null,
  ...change,
});

const run = (runId: string, change: Partial<RunRow> = {}): RunRow => ({
  runId,
  tenantId: "acme",
  tool: "cmd.run",
  context: "default",
  target: '"all"',
  policy: "{}",
  principal: "ci",
  startedAt: at,
  endedAt: null,
  outcome: null,
  summary: null,
  resolved: [{ nodeId: "n1", name: "web-1" }],
  skipped: [],
  ...change,
});

const group = (groupId: string, change: Partial<GroupRow> = {}): GroupRow => ({
  groupId,
  tenantId: "acme",
  name: `web ${groupId}`,
  selector: '{"tags":[{"Has":"web"}]}',
  pinnedMembers: ["n1"],
  createdBy: "ann",
  createdAt: at,
  version: 1,
  ...change,
});

const command = (commandId: string, change: Partial<CommandRow> = {}): CommandRow => ({
  commandId,
  runId: "r1",
  nodeId: "n1",
  tenantId: "acme",
  tool: "cmd.run",
  context: "default",
  principal: "ci",
  commandDigest: bytes("body"),
  commandBody: new Uint8Array(),
  dispatchedAt: at,
  endedAt: null,
  outcome: null,
  result: null,
  receiptSignature: null,
  receiptKeyId: null,
  receipt: null,
  outputComplete: false,
  ...change,
});

const ended = {
  endedAt: at + 5,
  outcome: "ok",
  result: bytes("result"),
  receiptSignature: bytes("signature"),
  receiptKeyId: bytes("key"),
  receipt: "verified",
  outputComplete: true,
} as const;

const failure = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => "no error",
    (thrown: unknown) => thrown,
  );

for (const implementation of implementations) {
  describe(`store on ${implementation.name}`, () => {
    let place: Awaited<ReturnType<Implementation["fresh"]>>;
    let store: Store;
    beforeEach(async () => {
      place = await implementation.fresh();
      store = await place.open();
      await store.ensureTenant("acme", at);
    });
    afterEach(async () => {
      await store.close();
      await place.remove();
    });

    test("a tenant is made once and keeps its first date", async () => {
      await store.ensureTenant("acme", at + 99);
      expect(await store.tenant("acme")).toEqual({ tenantId: "acme", createdAt: at });
      expect(await store.tenant("other")).toBeNull();
    });

    test("an operator's token comes back as it was put, by its hash and by its tenant", async () => {
      await store.ensureTenant("other", at);
      const expiring = apiToken("t2", { createdAt: at + 1, expiresAt: at + 9, scopes: [] });
      await store.insertApiToken(expiring);
      await store.insertApiToken(apiToken("t1"));
      await store.insertApiToken(apiToken("t3", { tenantId: "other" }));
      expect(await store.apiTokens("acme")).toEqual([apiToken("t1"), expiring]);
      await store.touchApiToken("t1", at + 7);
      expect(await store.apiTokenByHash(bytes("t1"))).toEqual(apiToken("t1", { lastUsedAt: at + 7 }));
      expect(await store.apiTokenByHash(bytes("nobody"))).toBeNull();
    });

    test("two tokens with one hash are a conflict", async () => {
      await store.insertApiToken(apiToken("t1"));
      const outcome = await failure(store.insertApiToken(apiToken("t2", { hash: bytes("t1") })));
      expect(outcome).toMatchObject({ name: "AegisError", code: "conflict" });
    });

    test("an enrollment token is redeemed once, whoever asks first", async () => {
      const answers = await Promise.all(["n1", "n2", "n1"].map((id) => store.redeemEnrollment("jti", id, at + 9, at)));
      expect(answers).toEqual([true, false, false]);
    });

    test("redemptions are forgotten when told to, and no earlier", async () => {
      await store.redeemEnrollment("old", "n1", at, at);
      await store.redeemEnrollment("new", "n1", at + 10, at);
      await store.pruneRedemptions(at + 10);
      expect(await store.redeemEnrollment("new", "n1", at + 10, at)).toBe(false);
      expect(await store.redeemEnrollment("old", "n1", at, at)).toBe(true);
    });

    test("a node comes back as it was put; a second put replaces all but its enrollment date", async () => {
      await store.putNode(node("n1"));
      expect(await store.node("n1")).toEqual(node("n1"));
      const again = node("n1", {
        publicKey: bytes("second key"),
        seal: "compat",
        hostName: "renamed",
        displayName: "desk",
        tags: [],
        tokenJti: "jti-2",
        enrolledAt: at + 50,
      });
      await store.putNode(again);
      expect(await store.node("n1")).toEqual({ ...again, enrolledAt: at });
      expect(await store.node("n2")).toBeNull();
    });

    test("every key a node ever had leads to it, also after it was revoked", async () => {
      const first = node("n1");
      await store.putNode(first);
      await store.putNode(node("n1", { publicKey: bytes("second key") }));
      await store.revokeNode("n1", at + 3);
      expect(await store.nodeIdByKeyId(keyId(first.publicKey))).toBe("n1");
      expect(await store.nodeIdByKeyId(keyId(bytes("second key")))).toBe("n1");
      expect(await store.nodeIdByKeyId(keyId(bytes("unseen")))).toBeNull();
    });

    test("a key that is or was another node's is refused, and nothing is kept of the attempt", async () => {
      await store.putNode(node("n1"));
      await store.putNode(node("n1", { publicKey: bytes("second key") }));
      const outcome = await failure(store.putNode(node("n2", { publicKey: node("n1").publicKey })));
      expect(outcome).toMatchObject({ code: "conflict" });
      expect(await store.node("n2")).toBeNull();
    });

    test("nodes are listed by tenant and name, revoked ones included", async () => {
      await store.ensureTenant("other", at);
      await store.putNode(node("n1", { hostName: "b" }));
      await store.putNode(node("n2", { hostName: "a" }));
      await store.putNode(node("n3", { tenantId: "other" }));
      await store.revokeNode("n2", at);
      expect((await store.nodes("acme")).map((row) => row.nodeId)).toEqual(["n2", "n1"]);
    });

    test("nodes are found by whatever they can be called, within their tenant", async () => {
      await store.ensureTenant("other", at);
      await store.putNode(node("aa-1", { hostName: "enrolled" }));
      await store.putNode(node("bb-2", { capabilities: Buffer.from("\u0001calls-itself\u0002") }));
      await store.putNode(node("cc-3"));
      await store.describeNode("cc-3", { displayName: "given", tags: [] });
      await store.putNode(node("dd-4", { tenantId: "other", hostName: "enrolled" }));
      const found = async (name: string) => (await store.nodesNamed("acme", name)).map(({ nodeId }) => nodeId);
      expect(await found("enrolled")).toEqual(["aa-1"]);
      expect(await found("calls-itself")).toEqual(["bb-2"]);
      expect(await found("given")).toEqual(["cc-3"]);
      expect(await found("BB")).toEqual(["bb-2"]);
      expect(await found("edge-cc-3")).toEqual(["cc-3"]);
      expect(await found("nobody")).toEqual([]);
    });

    test("connection, heartbeat, capabilities, disconnection and revocation change their own columns only", async () => {
      await store.putNode(node("n1"));
      await store.putNode(node("n2"));
      await store.nodeConnected("n1", at + 1, bytes("caps"), "2.0");
      let expected = node("n1", {
        ...{ connectedSince: at + 1, lastHeartbeatAt: at + 1 },
        ...{ capabilities: bytes("caps"), softwareVersion: "2.0" },
      });
      expect(await store.node("n1")).toEqual(expected);
      await store.nodeHeartbeats(new Map([["n1", at + 2]]));
      await store.nodeCapabilities("n1", bytes("more"));
      expected = { ...expected, lastHeartbeatAt: at + 2, capabilities: bytes("more") };
      expect(await store.node("n1")).toEqual(expected);
      await store.nodeDisconnected("n1");
      await store.revokeNode("n1", at + 3);
      await store.revokeNode("n1", at + 4);
      expect(await store.node("n1")).toEqual({ ...expected, connectedSince: null, revokedAt: at + 3 });
      expect(await store.node("n2")).toEqual(node("n2"));
    });

    test("nodes come page by page in the order of enrollment, whatever is enrolled meanwhile", async () => {
      for (const step of [3, 1, 2]) await store.putNode(node(`n${step}`, { enrolledAt: at + step }));
      await store.putNode(node("n2b", { enrolledAt: at + 2 }));
      const first = await store.nodesPage("acme", null, 2);
      expect(first.map(({ nodeId }) => nodeId)).toEqual(["n1", "n2"]);
      await store.putNode(node("n0", { enrolledAt: at }));
      const rest = await store.nodesPage("acme", { enrolledAt: at + 2, nodeId: "n2" }, 9);
      expect(rest.map(({ nodeId }) => nodeId)).toEqual(["n2b", "n3"]);
      expect(await store.nodesPage("other", null, 9)).toEqual([]);
    });

    test("a revoked node connects no more, and is revoked once", async () => {
      await store.putNode(node("n1"));
      expect(await store.nodeConnected("n1", at + 1, bytes("caps"), "2.0")).toBe(true);
      expect(await store.revokeNode("n1", at + 2)).toBe(true);
      expect(await store.revokeNode("n1", at + 3)).toBe(false);
      expect(await store.nodeConnected("n1", at + 4, bytes("caps"), "3.0")).toBe(false);
      expect(await store.node("n1")).toMatchObject({ softwareVersion: "2.0", revokedAt: at + 2 });
    });

    test("what operators call a node changes nothing else", async () => {
      await store.putNode(node("n1"));
      await store.describeNode("n1", { displayName: "desk", tags: ["x"] });
      expect(await store.node("n1")).toEqual(node("n1", { displayName: "desk", tags: ["x"] }));
    });

    test("an operator's token is revoked by its own tenant, once", async () => {
      await store.insertApiToken(apiToken("t1"));
      expect(await store.revokeApiToken("other", "t1", at + 1)).toBe(false);
      expect(await store.revokeApiToken("acme", "t1", at + 2)).toBe(true);
      expect(await store.revokeApiToken("acme", "t1", at + 3)).toBe(false);
      expect(await store.apiTokenByHash(bytes("t1"))).toMatchObject({ revokedAt: at + 2 });
    });

    test("a removed tenant takes its hosts and tokens with it, its name is not given again", async () => {
      await store.ensureTenant("other", at);
      await store.putNode(node("n1"));
      await store.putNode(node("n2", { revokedAt: at + 1 }));
      await store.putNode(node("n3", { tenantId: "other" }));
      await store.insertApiToken(apiToken("t1"));
      await store.insertGroup(group("g1"));
      expect((await store.tenants()).map(({ tenantId }) => tenantId)).toEqual(["acme", "other"]);
      expect(await store.removeTenant("acme", at + 5)).toBe(true);
      expect(await store.removeTenant("acme", at + 6)).toBe(false);
      expect(await store.removeTenant("nobody", at + 6)).toBe(false);
      expect((await store.tenants()).map(({ tenantId }) => tenantId)).toEqual(["other"]);
      expect(await store.tenant("acme")).toBeNull();
      const revoked = await Promise.all(["n1", "n2", "n3"].map(async (id) => (await store.node(id))?.revokedAt));
      expect(revoked).toEqual([at + 5, at + 1, null]);
      expect(await store.apiTokenByHash(bytes("t1"))).toMatchObject({ revokedAt: at + 5 });
      expect(await store.group("acme", "g1")).toBeNull();
      expect(await failure(store.ensureTenant("acme", at + 7))).toMatchObject({ code: "conflict" });
    });

    test("a group is found by id and name, changed by whoever saw its last version, and has its name alone", async () => {
      await store.insertGroup(group("g1"));
      await store.insertGroup(group("g2", { name: "g1 too", createdAt: at + 1 }));
      expect(await store.group("acme", "g1")).toEqual(group("g1"));
      expect(await store.group("acme", "web g1")).toEqual(group("g1"));
      expect(await store.group("other", "g1")).toBeNull();
      expect(await failure(store.insertGroup(group("g3", { name: "web g1" })))).toMatchObject({ code: "conflict" });
      const changed = group("g1", { name: "new", selector: '{"os":"linux"}', pinnedMembers: [] });
      expect(await store.updateGroup(changed)).toBe(true);
      expect(await store.updateGroup(changed)).toBe(false);
      expect(await store.group("acme", "new")).toEqual({ ...changed, version: 2 });
      expect(await failure(store.updateGroup({ ...changed, version: 2, name: "g1 too" }))).toMatchObject({
        code: "conflict",
      });
      expect((await store.groups("acme", null, 1)).map(({ groupId }) => groupId)).toEqual(["g1"]);
      const rest = await store.groups("acme", { createdAt: at, groupId: "g1" }, 9);
      expect(rest.map(({ groupId }) => groupId)).toEqual(["g2"]);
      expect(await store.deleteGroup("g1")).toBe(true);
      expect(await store.deleteGroup("g1")).toBe(false);
    });

    test("a name that is another group's id leads to the group of that id", async () => {
      await store.insertGroup(group("g1", { name: "g2" }));
      await store.insertGroup(group("g2"));
      expect(await store.group("acme", "g2")).toEqual(group("g2"));
    });

    test("runs are listed the newest first, by tool and outcome, page by page", async () => {
      for (const step of [1, 2, 3]) await store.insertRun(run(`r${step}`, { startedAt: at + step }));
      await store.insertRun(run("r4", { startedAt: at + 4, tool: "fs.read", outcome: "halted", endedAt: at + 5 }));
      await store.ensureTenant("other", at);
      await store.insertRun(run("r5", { tenantId: "other" }));
      const ids = async (filter: Parameters<Store["runs"]>[1], limit = 9) =>
        (await store.runs("acme", filter, limit)).map(({ runId }) => runId);
      expect(await ids({})).toEqual(["r4", "r3", "r2", "r1"]);
      expect(await ids({}, 2)).toEqual(["r4", "r3"]);
      expect(await ids({ before: { startedAt: at + 3, runId: "r3" } })).toEqual(["r2", "r1"]);
      expect(await ids({ tool: "cmd.run" })).toEqual(["r3", "r2", "r1"]);
      expect(await ids({ outcome: "halted" })).toEqual(["r4"]);
    });

    test("an idempotency key leads to its first run until it is forgotten", async () => {
      const claim = { tenantId: "acme", principal: "ci", key: "k", bodyHash: bytes("b"), runId: "r1", createdAt: at };
      expect(await store.claimIdempotencyKey(claim)).toBeNull();
      expect(await store.claimIdempotencyKey({ ...claim, runId: "r2" })).toEqual(claim);
      expect(await store.claimIdempotencyKey({ ...claim, principal: "ann", runId: "r3" })).toBeNull();
      await store.pruneIdempotencyKeys(at);
      expect(await store.claimIdempotencyKey({ ...claim, runId: "r4" })).toEqual(claim);
      await store.pruneIdempotencyKeys(at + 1);
      expect(await store.claimIdempotencyKey({ ...claim, runId: "r5" })).toBeNull();
    });

    test("a rotation is kept once for each nonce of a node, and the newest comes first", async () => {
      for (const nodeId of ["one", "two"]) await store.putNode(node(nodeId));
      const rotation = (nodeId: string, nonce: string, rotatedAt: number): RotationRow => ({
        ...{ nodeId, nonce: bytes(nonce), rotatedAt, oldKey: bytes("old"), newKey: bytes("new") },
        ...{ request: bytes("request"), oldSignature: bytes("a"), newSignature: bytes("b"), overlapUntil: at + 60_000 },
      });
      expect(await store.insertRotation(rotation("one", "first", at))).toBe(true);
      expect(await store.insertRotation(rotation("one", "second", at + 1))).toBe(true);
      expect(await store.insertRotation(rotation("one", "first", at + 2))).toBe(false);
      expect(await store.insertRotation(rotation("two", "first", at + 3))).toBe(true);
      expect(await store.rotations("one", at)).toEqual([
        rotation("one", "second", at + 1),
        rotation("one", "first", at),
      ]);
      expect(await store.rotations("one", at + 1)).toEqual([rotation("one", "second", at + 1)]);
      expect(await failure(store.insertRotation(rotation("nobody", "first", at)))).toMatchObject({ code: "conflict" });
    });

    test("keysets come oldest first, after a version, and the newest alone", async () => {
      expect(await store.newestKeyset()).toBeNull();
      const keyset = (version: number) => ({
        version,
        signed: bytes(`v${version}`),
        rootKey: bytes("root"),
        createdAt: at,
      });
      for (const version of [1, 3, 2]) await store.insertKeyset(keyset(version));
      expect(await store.keysetsAfter(1)).toEqual([keyset(2), keyset(3)]);
      expect(await store.keysetsAfter(3)).toEqual([]);
      expect(await store.newestKeyset()).toEqual(keyset(3));
      expect(await failure(store.insertKeyset(keyset(3)))).toMatchObject({ code: "conflict" });
    });

    test("one keyset is planned at most, and who knows which is asked of strict hosts that are not revoked", async () => {
      const keyset = (version: number) => ({ version, signed: bytes("s"), rootKey: bytes("root"), createdAt: at });
      expect(await store.plannedKeyset()).toBeNull();
      for (const version of [2, 3]) await store.planKeyset(keyset(version));
      expect(await store.plannedKeyset()).toEqual(keyset(3));
      await store.planKeyset(null);
      expect(await store.plannedKeyset()).toBeNull();
      for (const nodeId of ["n1", "n2", "n3"]) await store.putNode(node(nodeId));
      await store.putNode(node("n4", { seal: "compat" }));
      await store.nodeKnowsKeyset("n1", 2);
      await store.nodeKnowsKeyset("n1", 1);
      await store.nodeKnowsKeyset("nobody", 2);
      await store.revokeNode("n3", at);
      const behind = async (version: number) => (await store.nodesBehind(version)).map(({ nodeId }) => nodeId);
      expect([await behind(2), await behind(3)]).toEqual([["n2"], ["n1", "n2"]]);
    });

    test("a run ends with its outcome and counts", async () => {
      await store.insertRun(run("r1"));
      expect(await store.run("r1")).toEqual(run("r1"));
      await store.endRun("r1", at + 8, "halted", '{"ok":1}');
      expect(await store.run("r1")).toEqual(run("r1", { endedAt: at + 8, outcome: "halted", summary: '{"ok":1}' }));
      expect(await store.run("r2")).toBeNull();
    });

    test("a command comes back as it was put, and its result bit by bit", async () => {
      await store.insertRun(run("r1"));
      await store.insertCommand(command("c1"));
      expect(await store.command("c1")).toEqual(command("c1"));
      await store.endCommand("c1", ended);
      expect(await store.command("c1")).toEqual(command("c1", ended));
      expect(await store.command("c2")).toBeNull();
    });

    test("commands are listed by run in order, by node the newest first up to a limit", async () => {
      const rows = [1, 2, 3].map((step) =>
        command(`c${step}`, { dispatchedAt: at + step, runId: step === 3 ? "r2" : "r1" }),
      );
      for (const row of rows) await store.insertCommand(row);
      await store.insertCommand(command("other", { nodeId: "n2", runId: "r3", dispatchedAt: at + 9 }));
      expect((await store.commandsOfRun("r1")).map((row) => row.commandId)).toEqual(["c1", "c2"]);
      expect((await store.recentCommands("n1", 2)).map((row) => row.commandId)).toEqual(["c3", "c2"]);
    });

    test("runs that ended long ago are forgotten with their commands, a few at a time; open ones and the audit stay", async () => {
      for (const [name, endedAt] of Object.entries({ r1: at, r2: at + 1, r3: at + 2, r4: null })) {
        await store.insertRun(run(name, endedAt === null ? {} : { endedAt, outcome: "complete", summary: "{}" }));
        await store.insertCommand(command(`c of ${name}`, { ...ended, runId: name }));
      }
      expect(await store.pruneRuns(at + 2, 1)).toBe(1);
      expect([await store.run("r1"), await store.command("c of r1")]).toEqual([null, null]);
      expect((await store.commandsOfRun("r2")).length).toBe(1);
      expect(await store.pruneRuns(at + 2, 100)).toBe(1);
      expect(await store.pruneRuns(at + 2, 100)).toBe(0);
      for (const name of ["r3", "r4"]) expect((await store.commandsOfRun(name)).length).toBe(1);
    });

    test("what a stopped controller left open is ended, what was ended stays", async () => {
      const resolved = ["n1", "n2", "n3"].map((nodeId) => ({ nodeId, name: nodeId }));
      const skipped = [{ nodeId: "n4", name: "n4", reason: "disconnected" }];
      await store.insertRun(run("r1", { resolved, skipped }));
      await store.insertRun(run("r2", { endedAt: at, outcome: "complete", summary: "{}" }));
      await store.insertCommand(command("c1"));
      await store.insertCommand(command("c2", ended));
      expect(await store.interruptOpenRuns(at + 9)).toBe(1);
      expect(await store.command("c1")).toEqual(command("c1", { endedAt: at + 9, outcome: "edge_disconnected" }));
      expect(await store.command("c2")).toEqual(command("c2", ended));
      const left = await store.run("r1");
      expect(left).toMatchObject({ endedAt: at + 9, outcome: "interrupted" });
      expect(JSON.parse(left?.summary ?? "")).toMatchObject({
        ...{ ok: 1, err: 0, edge_disconnected: 1, skipped: 1, not_started: 1 },
      });
      expect(await store.run("r2")).toMatchObject({ outcome: "complete", endedAt: at });
      expect(await store.interruptOpenRuns(at + 10)).toBe(0);
    });

    test("a transaction that throws leaves nothing and passes its own error on", async () => {
      const reason = new Error("changed my mind");
      const outcome = await failure(
        store.transaction(async (tx) => {
          await tx.redeemEnrollment("jti", "n1", at, at);
          await tx.putNode(node("n1"));
          expect(await tx.node("n1")).not.toBeNull();
          throw reason;
        }),
      );
      expect(outcome).toBe(reason);
      expect(await store.node("n1")).toBeNull();
      expect(await store.nodeIdByKeyId(keyId(node("n1").publicKey))).toBeNull();
      expect(await store.redeemEnrollment("jti", "n1", at, at)).toBe(true);
    });

    test("a change that the database refuses undoes the whole transaction", async () => {
      const outcome = await failure(
        store.transaction(async (tx) => {
          await tx.putNode(node("n1"));
          await tx.putNode(node("n2", { tenantId: "nobody" }));
        }),
      );
      expect(outcome).toMatchObject({ code: "conflict" });
      expect(await store.node("n1")).toBeNull();
    });

    test("a transaction yields what its callback returns, and what it did stays", async () => {
      const answer = await store.transaction(async (tx) => {
        await tx.putNode(node("n1"));
        return await tx.node("n1");
      });
      expect(answer).toEqual(node("n1"));
      expect(await store.node("n1")).toEqual(node("n1"));
    });

    test("transactions come one after the other, and no other query gets in between", async () => {
      const seen: string[] = [];
      let sawTags: readonly string[] = [];
      await store.putNode(node("n1"));
      const step = (name: string) =>
        store.transaction(async (tx) => {
          seen.push(`${name} begins`);
          const before = (await tx.node("n1"))?.tags ?? [];
          for (let turn = 0; turn < 20; turn++) await Promise.resolve();
          await tx.putNode(node("n1", { tags: [...before, name] }));
          seen.push(`${name} ends`);
        });
      const between = async () => {
        sawTags = (await store.node("n1"))?.tags.slice(2) ?? [];
      };
      await Promise.all([step("a"), between(), step("b"), step("c")]);
      expect(seen).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
      expect(sawTags).toEqual(["a"]);
      expect((await store.node("n1"))?.tags.slice(2)).toEqual(["a", "b", "c"]);
    });

    test("work goes on after a transaction that failed", async () => {
      const failed = failure(
        store.transaction(async () => {
          throw new Error("no");
        }),
      );
      const done = store.transaction((tx) => tx.putNode(node("n1")));
      await Promise.all([failed, done]);
      expect(await store.node("n1")).not.toBeNull();
    });

    test("a query that bypasses its transaction is an error and not a wait for ever", async () => {
      const outcome = await failure(store.transaction(async () => await store.node("n1")));
      expect(outcome).toMatchObject({ code: "internal" });
    });

    test("a query on a transaction that has ended is refused", async () => {
      const kept = await store.transaction(async (tx) => tx);
      expect(await failure(kept.putNode(node("n1")))).toMatchObject({ code: "internal" });
      expect(await store.node("n1")).toBeNull();
    });

    test("closing and opening again keeps everything", async () => {
      await store.putNode(node("n1"));
      await store.insertCommand(command("c1", ended));
      await store.redeemEnrollment("jti", "n1", at, at);
      await store.close();
      await store.close();
      expect(await failure(store.node("n1"))).toMatchObject({ code: "unavailable" });
      store = await place.open();
      expect(await store.node("n1")).toEqual(node("n1"));
      expect(await store.command("c1")).toEqual(command("c1", ended));
      expect(await store.redeemEnrollment("jti", "n1", at, at)).toBe(false);
    });

    test("two openings of one database see each other's changes", async () => {
      const other = await place.open();
      try {
        await other.insertApiToken(apiToken("t1"));
        expect(await store.apiTokenByHash(bytes("t1"))).toEqual(apiToken("t1"));
        const both = await Promise.all([store, other].map((one) => one.redeemEnrollment("jti", "n1", at, at)));
        expect(both.filter(Boolean)).toHaveLength(1);
      } finally {
        await other.close();
      }
    });
  });
}
