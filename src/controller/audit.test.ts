import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startOfTime, uuidOf } from "../../test/support/controller-rows.ts";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { auditHash, auditStart, signCheckpoint } from "../envelope/audit.ts";
import { fingerprint, importSigningKey, newSeed, type SigningKey } from "../envelope/public-key.ts";
import { signReceipt } from "../envelope/receipt.ts";
import { sha256 } from "../envelope/statement.ts";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/store.ts";
import { createAuditSeal, readSealedHead, recordAudit, sealedHeadPath, sealing } from "./audit.ts";
import { auditLines, exportAudit } from "./audit-record.ts";
import { type AuditReport, type VerifyOptions, verifyAudit, verifyDataDir } from "./audit-verify.ts";
import { databasePath } from "./database.ts";
import { createControllerKeys, loadControllerKeys, newestKeyset } from "./keys.ts";

const controllerId = uuidOf("controller");
const nodeId = uuidOf("node");
const nodeKey = importSigningKey(sha256("the node's key"));
const b64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64url");

let dataDir: string;
let store: Store;
let root: SigningKey;
const clock = fakeClock();

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "aegis-audit-"));
  const made = await createControllerKeys(dataDir, controllerId, startOfTime);
  root = made.root;
  store = await openStore(databasePath(dataDir));
  await store.insertKeyset({ version: 1, signed: made.signedKeyset, rootKey: root.raw, createdAt: startOfTime });
});
afterEach(async () => {
  await store.close();
  await rm(dataDir, { recursive: true });
});

const sealer = async (log = recordedLog()) => {
  const keys = await loadControllerKeys(dataDir, await newestKeyset(store));
  const headPath = sealedHeadPath(dataDir);
  return createAuditSeal({ store, keys, controllerId, clock, time: clock.now, log, headPath });
};

/** A call with its receipt: two rows. */
async function call(
  receipt: "verified" | "peer_id_only" = "verified",
): Promise<{ commandId: string; result: Uint8Array }> {
  const commandId = randomUUID();
  const [commandBody, result] = [Buffer.from(`command ${commandId}`), Buffer.from(`result ${commandId}`)];
  const at = clock.now();
  const who = { tenantId: "acme", principal: "ann", nodeId };
  const digest = b64(sha256(commandBody));
  await recordAudit(store, { at, kind: "dispatch", ...who, detail: { command_id: commandId, command_digest: digest } });
  await recordAudit(store, {
    ...{ at, kind: "result", ...who, detail: { command_id: commandId, receipt } },
    receipt: {
      ...{ command_digest: digest, result_digest: b64(sha256(result)) },
      signature: b64(signReceipt(nodeKey, { nodeId, commandId, commandBody, result })),
      key_id: b64(nodeKey.keyId),
    },
  });
  return { commandId, result };
}

const started = () => recordAudit(store, { at: clock.now(), kind: "controller_started", detail: {} });
const enrolled = () =>
  recordAudit(store, {
    ...{ at: clock.now(), kind: "host_enrolled", tenantId: "acme", nodeId },
    detail: { host_name: "naïve", public_key: b64(nodeKey.raw) },
  });

async function record(): Promise<string[]> {
  return await Array.fromAsync(auditLines(store, controllerId));
}
async function verify(lines: readonly string[], options: VerifyOptions = {}): Promise<AuditReport> {
  async function* source() {
    yield* lines;
  }
  return await verifyAudit(source(), options);
}
const said = ({ problems }: AuditReport): string[] => problems.map(({ row, message }) => `${row}: ${message}`);

describe("an audit record", () => {
  let lines: string[];
  beforeEach(async () => {
    await started();
    await enrolled();
    for (let at = 0; at < 3; at++) await call();
    await (await sealer()).seal();
    await call("peer_id_only");
    lines = await record();
  });

  test("verifies by itself: chain, seal and receipts", async () => {
    const report = await verify(lines, { rootFingerprint: fingerprint(root) });
    expect(report).toMatchObject({
      ...{ controllerId, rootFingerprint: fingerprint(root), rows: 10, sealedRows: 8, seals: 1, unanswered: 0 },
      receipts: { verified: 3, peer_id_only: 1, missing: 0, invalid: 0, unknown_key: 0 },
      problems: [],
    });
  });

  test("shows any flipped bit", async () => {
    const text = lines.join("\n");
    const bytes = Buffer.from(text);
    const head = Buffer.byteLength(lines[0] ?? "");
    for (let at = 0; at < bytes.length; at += 5) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
      const report = await verify(flipped.toString("utf8").split("\n"), { rootFingerprint: fingerprint(root) });
      const where = at < head ? "head" : flipped.subarray(Math.max(0, at - 20), at + 20).toString();
      expect([where, report.problems.length]).not.toEqual([where, 0]);
    }
  });

  test("shows a dropped, a repeated and an inserted row, and two that changed places", async () => {
    const without = (at: number) => lines.filter((_, index) => index !== at);
    expect(said(await verify(without(4)))).toContain("5: rows 4 to 4 are missing");
    expect(said(await verify([...lines.slice(0, 5), ...lines.slice(4)]))).toContain("4: it stands after row 4");
    const swapped = [...lines];
    [swapped[4], swapped[5]] = [lines[5] ?? "", lines[4] ?? ""];
    expect((await verify(swapped)).problems.length).toBeGreaterThan(0);
    expect(said(await verify([...lines.slice(0, 4), "nonsense", ...lines.slice(4)]))).toEqual([
      "3: the line after row 3 cannot be read",
    ]);
  });

  /** All rows anew from `change` on, as somebody would who can write the database and has no key. */
  const recomputed = (change: (row: Record<string, unknown>) => void): string[] => {
    let previous: Uint8Array = auditStart;
    return lines.map((line) => {
      const value = JSON.parse(line) as Record<string, unknown>;
      if (typeof value.row !== "number") return line;
      change(value);
      value.previous = b64(previous);
      previous = auditHash({
        ...{ previous, row: value.row, timeMs: value.at as number, kind: value.kind as string },
        ...{ tenant: value.tenant_id as string, principal: value.principal as string, node: value.node_id as string },
        ...{ detail: value.detail as string, receipt: value.receipt as string },
      });
      value.hash = b64(previous);
      return JSON.stringify(value);
    });
  };

  test("shows a chain that was computed anew: the seal fits the old one only, and nobody else can make one", async () => {
    const forged = recomputed((row) => {
      if (row.row === 3) row.principal = "mallory";
    });
    expect(said(await verify(forged))).toEqual(["8: the chain is not the one that was sealed here"]);
    const unsealed = forged.filter((line) => !line.includes('"seal"'));
    expect(said(await verify(unsealed))).toEqual(["10: nothing is sealed, though a controller ran"]);
    const mallory = importSigningKey(newSeed());
    const hash = (JSON.parse(unsealed[8] ?? "") as { hash: string }).hash;
    const checkpoint = { controllerId, lastRow: 8, head: Buffer.from(hash, "base64url"), timeMs: 1 };
    const seal = (keyId: Uint8Array) =>
      JSON.stringify({
        ...{ seal: 8, head: hash, time_ms: 1, key_id: b64(keyId) },
        signature: b64(signCheckpoint(mallory, checkpoint)),
      });
    const realKey = (await loadControllerKeys(dataDir, await newestKeyset(store))).command;
    for (const keyId of [mallory.keyId, realKey.keyId]) {
      const resealed = [...unsealed.slice(0, 9), seal(keyId), ...unsealed.slice(9)];
      expect(said(await verify(resealed))).toEqual(["8: the seal is not this controller's"]);
    }
  });

  test("shows a row after the last seal that was changed with its hash: the next one follows from another", async () => {
    const forged = [...lines];
    const row = JSON.parse(lines[10] ?? "") as Record<string, unknown>;
    row.principal = "mallory";
    const link = {
      ...{ row: row.row as number, timeMs: row.at as number, kind: row.kind as string, principal: "mallory" },
      ...{ previous: Buffer.from(row.previous as string, "base64url"), tenant: row.tenant_id as string },
      ...{ node: row.node_id as string, detail: row.detail as string, receipt: row.receipt as string },
    };
    forged[10] = JSON.stringify({ ...row, hash: b64(auditHash(link)) });
    expect(said(await verify(forged))).toEqual(["10: it does not follow from the row before"]);
  });

  test("shows what an earlier look saw and is not there any more", async () => {
    const hash = Buffer.from((JSON.parse(lines[11] ?? "") as { hash: string }).hash, "base64url");
    const seen = { row: 10, hash };
    expect((await verify(lines, { seen })).problems).toEqual([]);
    expect(said(await verify(lines.slice(0, -1), { seen }))).toEqual([
      "10: the row that an earlier look saw is not there any more",
    ]);
  });

  test("shows another controller's root, keysets that do not follow, and a record that is none", async () => {
    const other = await verify(lines, { rootFingerprint: "SHA256:other" });
    expect(said(other)[0]).toContain("SHA256:other was expected");
    const head = JSON.parse(lines[0] ?? "") as { keysets: string[] };
    const twice = [JSON.stringify({ ...head, keysets: [...head.keysets, b64(new Uint8Array(80))] }), ...lines.slice(1)];
    expect(said(await verify(twice))).toEqual(["0: keyset 2 is not vouched for by the one before"]);
    expect(said(await verify([]))).toEqual(["0: there is nothing in it"]);
    expect(said(await verify(lines.slice(1)))).toEqual(["0: the first line is no head of an audit record"]);
  });

  test("shows a receipt that is no receipt, and one of another command", async () => {
    const commandId = randomUUID();
    const digest = b64(sha256("sent"));
    const who = { at: 1, tenantId: "acme", nodeId };
    await recordAudit(store, { ...who, kind: "dispatch", detail: { command_id: commandId, command_digest: digest } });
    const receipt = {
      ...{ command_digest: b64(sha256("another")), result_digest: digest },
      ...{ signature: b64(new Uint8Array(64)), key_id: b64(nodeKey.keyId) },
    };
    await recordAudit(store, {
      ...who,
      kind: "result",
      detail: { command_id: commandId, receipt: "verified" },
      receipt,
    });
    expect(said(await verify(await record()))).toEqual([
      "12: its receipt is for another command than was sent",
      "12: its receipt does not verify, and was said to",
    ]);
  });

  test("shows results that were changed in the database beside it", async () => {
    const { commandId, result } = await call();
    const after = await record();
    const commandBody = Buffer.from(`command ${commandId}`);
    const stored = (changed: Uint8Array) => async (id: string) =>
      id === commandId ? { commandBody, result: changed } : null;
    expect((await verify(after, { stored: stored(result) })).problems).toEqual([]);
    expect(said(await verify(after, { stored: stored(Buffer.from("other")) }))).toEqual([
      `12: the result of ${commandId} was changed in the database`,
    ]);
  });

  test("of a data directory is checked against its database and what was sealed there last", async () => {
    expect(await verifyDataDir({ dataDir, controllerId })).toMatchObject({ rows: 10, sealedRows: 8, problems: [] });
    const db = new Database(databasePath(dataDir));
    db.run("DROP TRIGGER audit_is_not_cut");
    db.run("DELETE FROM audit WHERE row > 7");
    db.run("DELETE FROM audit_checkpoints");
    db.close();
    expect(said(await verifyDataDir({ dataDir, controllerId }))).toContain(
      "8: the row that an earlier look saw is not there any more",
    );
  });

  test("is exported beside a running controller, the same", async () => {
    expect(await Array.fromAsync(exportAudit({ dataDir, controllerId }))).toEqual(lines);
  });
});

describe("rows", () => {
  test("cannot be changed or dropped by mistake", async () => {
    await started();
    const db = new Database(databasePath(dataDir));
    expect(() => db.run("UPDATE audit SET principal = 'x'")).toThrow("final");
    expect(() => db.run("DELETE FROM audit")).toThrow("final");
    db.close();
  });

  test("of changes that did not happen are not there", async () => {
    const failed = store.transaction(async (tx) => {
      await recordAudit(tx, { at: 1, kind: "host_revoked", detail: {} });
      throw new Error("no");
    });
    await expect(failed).rejects.toThrow("no");
    expect(await store.auditHead()).toBeNull();
  });
});

describe("sealing", () => {
  test("happens after a thousand rows or five minutes, and not for nothing", async () => {
    const stop = new AbortController();
    const keeping = (await sealer()).keepSealed(stop.signal);
    // Seals are written to a real file: time stands still until that is done.
    const settle = async () => {
      for (let turn = 0; turn < 50 || clock.sleeping === 0; turn++) await new Promise(setImmediate);
    };
    await started();
    await settle();
    const seals = async () => (await store.checkpoints(0, 9_999)).map(({ lastRow }) => lastRow);
    await clock.advance(sealing.everyMs - 1);
    await settle();
    expect(await seals()).toEqual([]);
    await clock.advance(sealing.lookEveryMs);
    await settle();
    expect(await seals()).toEqual([1]);
    await clock.advance(2 * sealing.everyMs);
    await settle();
    expect(await seals()).toEqual([1]);
    for (let at = 0; at < sealing.rows; at++) await started();
    await clock.advance(sealing.lookEveryMs);
    await settle();
    expect(await seals()).toEqual([1, sealing.rows + 1]);
    stop.abort();
    await keeping;
  });

  test("never signs a past that was rewritten since, not even after a restart", async () => {
    await started();
    await enrolled();
    await (await sealer()).seal();
    expect((await readSealedHead(sealedHeadPath(dataDir)))?.row).toBe(2);
    const db = new Database(databasePath(dataDir));
    db.run("DROP TRIGGER audit_is_not_changed");
    db.run("DROP TRIGGER audit_is_not_cut");
    const forge = (sql: string) => db.run(sql);
    await call();
    forge("UPDATE audit SET hash = zeroblob(32) WHERE row = 2");
    forge("DELETE FROM audit_checkpoints");
    await expect((await sealer()).seal()).rejects.toThrow("changed at row 2");
    forge("DELETE FROM audit");
    await started();
    await expect((await sealer()).seal()).rejects.toThrow("changed at row 2");
    db.close();
  });
});
