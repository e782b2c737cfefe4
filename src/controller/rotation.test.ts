/** A host's key and token change once for each request, by both keys, and nobody else's do. */
import { beforeEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { type FakeClock, fakeClock } from "../../test/support/fake-clock.ts";
import { type HostIdentity, hostIdentity, newKey, rawText } from "../../test/support/strict-keys.ts";
import { type StrictController, strictController } from "../../test/support/strict-pair.ts";
import { type Claims, verifyJwt } from "../envelope/jwt.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { signReceipt } from "../envelope/receipt.ts";
import { readRotation, signRotation, verifyRotateGrant, verifyRotation } from "../envelope/rotation.ts";
import { AegisError } from "../errors.ts";
import { aegis } from "../wire/gen/messages.js";
import type { LiveNode } from "./dispatch-types.ts";
import { resultLedger } from "./result-ledger.ts";
import { createRotations, overlapMs, type Rotated, type Rotations, resultKey, sessionKey } from "./rotation.ts";

type Request = aegis.cluster.v1.RotateEdgeKeyRequest.$Properties;
const dayMs = 24 * 60 * 60 * 1000;

let clock: FakeClock;
let controller: StrictController;
let rotations: Rotations;
let host: HostIdentity;
let live: LiveNode | undefined;
let ended: { nodeId: string; detail: string }[];

beforeEach(async () => {
  clock = fakeClock();
  controller = await strictController({ clock });
  host = hostIdentity(controller.strict, clock.now());
  await controller.enroll(host);
  live = undefined;
  ended = [];
  const { keys } = controller.strict;
  rotations = createRotations({
    ...{ store: controller.store, keys, clock, time: controller.time, log: controller.log },
    publicEndpoint: "controller.example:50056",
    sessions: {
      get: () => live,
      end: (nodeId, _reason, detail) => void ended.push({ nodeId, detail }),
    },
  });
});

interface Asked {
  nodeId?: string;
  oldKey?: SigningKey;
  newKey: SigningKey;
  nonce?: Uint8Array;
}

function request({ nodeId = host.nodeId, oldKey = host.nodeKey, newKey: to, nonce = randomBytes(32) }: Asked): Request {
  const signed = signRotation({ nodeId, oldKey, newKey: to, nonce });
  return {
    // As the peer's command line sends it: without a token.
    currentEnvelope: { nodeSecurityToken: "", payload: signed.bytes, signature: signed.oldSignature },
    newPublicKey: to.raw,
    signatureWithNewKey: signed.newSignature,
  };
}

async function refusal(attempt: Promise<unknown>): Promise<AegisError> {
  const thrown: unknown = await attempt.then(
    () => null,
    (error: unknown) => error,
  );
  if (thrown instanceof AegisError) return thrown;
  throw new Error(`it was not refused: ${thrown}`);
}

const row = async () => {
  const found = await controller.store.node(host.nodeId);
  if (!found) throw new Error("the host is gone");
  return found;
};

function claimsOf({ nodeSecurityToken }: Rotated): Claims<"node"> {
  const { keyset, controllerId } = controller.strict;
  const outcome = verifyJwt("node", nodeSecurityToken, { keys: keyset.tokenKeys, issuer: controllerId });
  if (outcome.kind === "refused") throw new Error(outcome.reason);
  return outcome.claims;
}

describe("a new key", () => {
  test("is the host's from then on, with a token bound to it and a grant that proves both", async () => {
    const to = newKey();
    const asked = request({ newKey: to });
    const rotated = await rotations.rotate(asked);
    expect(Buffer.from((await row()).publicKey)).toEqual(Buffer.from(to.raw));
    const claims = claimsOf(rotated);
    expect(claims).toMatchObject({
      ...{ sub: host.nodeId, tid: "acme", role: "edge", cep: "https://controller.example:50056" },
      cnf: { jwk: { x: rawText(to) } },
    });
    expect(rotated.expiresAtMs).toBe(claims.exp * 1000);
    expect(claims.exp - claims.iat).toBe(30 * 86_400);
    expect((await row()).tokenJti).toBe(claims.jti);
    expect(rotated.overlapUntilMs).toBe(controller.time() + overlapMs);
    const grant = {
      nodeId: host.nodeId,
      rotation: asked.currentEnvelope?.payload ?? new Uint8Array(),
      nodeToken: Buffer.from(rotated.nodeSecurityToken),
      overlapUntilMs: rotated.overlapUntilMs ?? 0,
    };
    const { command } = controller.strict.keys;
    expect(verifyRotateGrant(command, grant, rotated.rotateGrant)).toBe(true);
    expect(verifyRotateGrant(command, { ...grant, overlapUntilMs: 0 }, rotated.rotateGrant)).toBe(false);
  });

  test("leaves the old one good for sessions and results until the overlap ends, and not a moment longer", async () => {
    const to = newKey();
    const old = claimsOf({ nodeSecurityToken: host.nodeToken } as Rotated);
    const rotated = await rotations.rotate(request({ newKey: to }));
    const opens = async (claims: Claims<"node">) =>
      (await sessionKey(controller.store, await row(), claims, controller.time()))?.key.kid ?? null;
    const vouches = async (key: SigningKey) =>
      (await resultKey(controller.store, host.nodeId, key.keyId, controller.time()))?.kid ?? null;
    expect([await opens(old), await opens(claimsOf(rotated))]).toEqual([host.nodeKey.kid, to.kid]);
    expect([await vouches(host.nodeKey), await vouches(to)]).toEqual([host.nodeKey.kid, to.kid]);
    expect(await vouches(newKey())).toBeNull();
    const third = hostIdentity(controller.strict, clock.now(), { nodeId: host.nodeId });
    expect(await opens(claimsOf({ nodeSecurityToken: third.nodeToken } as Rotated))).toBeNull();
    await clock.advance(overlapMs - 1);
    expect(await opens(old)).toBe(host.nodeKey.kid);
    await clock.advance(1);
    expect([await opens(old), await opens(claimsOf(rotated))]).toEqual([null, to.kid]);
    expect([await vouches(host.nodeKey), await vouches(to)]).toEqual([null, to.kid]);
  });

  test("lets the session that the old one opened live as long as the overlap, and no session that came after it", async () => {
    const before = {} as LiveNode;
    live = before;
    const [first, second] = [newKey(), newKey()];
    await rotations.rotate(request({ newKey: first }));
    await clock.advance(overlapMs - 1);
    expect(ended).toEqual([]);
    await clock.advance(1);
    expect(ended).toEqual([{ nodeId: host.nodeId, detail: "the key that opened this session was replaced" }]);

    ended = [];
    await rotations.rotate(request({ oldKey: first, newKey: second }));
    live = {} as LiveNode;
    await clock.advance(overlapMs);
    expect(ended).toEqual([]);
  });

  test("that the host never heard about can be asked for again, while the old one is good", async () => {
    const to = newKey();
    const first = await rotations.rotate(request({ newKey: to }));
    await clock.advance(60_000);
    const again = await rotations.rotate(request({ newKey: to }));
    expect(again.overlapUntilMs).toBe(first.overlapUntilMs as number);
    expect(claimsOf(again).cnf.jwk.x).toBe(rawText(to));
    await clock.advance(overlapMs);
    expect(await refusal(rotations.rotate(request({ newKey: to })))).toMatchObject({ code: "unauthenticated" });
    // The new key itself still gets a token: that is how a host finds out that it counts.
    const renewed = await rotations.rotate(request({ oldKey: to, newKey: to }));
    expect(claimsOf(renewed).cnf.jwk.x).toBe(rawText(to));
  });
});

describe("a result that was signed before the change", () => {
  const commandId = "c0ffee00-1234-4abc-9def-0123456789ab";

  /** As it arrives on a session that the new key opened. */
  async function late(nodeKey: SigningKey): Promise<boolean> {
    const { store, time, log } = controller;
    const { nodeId, nodeKey: oldKey } = host;
    const result = aegis.cluster.v1.CommandResultEvent.encode({ commandId, result: { ok: true } }).finish();
    const signature = signReceipt(oldKey, { nodeId, commandId, commandBody, result });
    return await resultLedger({ store, time, log }).late({
      ...{ nodeId, nodeKey, commandId, result, signature, keyId: oldKey.keyId },
    });
  }
  const commandBody = Buffer.from("as it was sealed");

  beforeEach(async () => {
    await controller.store.insertCommand({
      ...{ commandId, runId: crypto.randomUUID(), nodeId: host.nodeId, tenantId: "acme", tool: "t", context: "c" },
      ...{ principal: "ann", commandDigest: new Uint8Array(32), commandBody, dispatchedAt: clock.now() },
      ...{ endedAt: null, outcome: null, result: null, receiptSignature: null, receiptKeyId: null, receipt: null },
      outputComplete: false,
    });
  });

  test("is kept while the old key is good", async () => {
    const to = newKey();
    await rotations.rotate(request({ newKey: to }));
    await clock.advance(overlapMs - 1);
    expect(await late(to)).toBe(true);
    expect(await controller.store.command(commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
  });

  test("is not believed any more afterwards", async () => {
    const to = newKey();
    await rotations.rotate(request({ newKey: to }));
    await clock.advance(overlapMs);
    expect(await late(to)).toBe(false);
    expect(await controller.store.command(commandId)).toMatchObject({ result: null });
  });
});

describe("the same key on both sides", () => {
  test("brings a new token and changes nothing else", async () => {
    live = {} as LiveNode;
    const before = await row();
    await clock.advance(1_000);
    const renewed = await rotations.rotate(request({ newKey: host.nodeKey }));
    expect(renewed.overlapUntilMs).toBeNull();
    const { jti, exp } = claimsOf(renewed);
    expect(await row()).toEqual({ ...before, tokenJti: jti, tokenExpiresAt: exp * 1000 });
    await clock.advance(overlapMs);
    expect(ended).toEqual([]);
  });

  test("works with an expired token to the last of its 365 days, and not on the 366th", async () => {
    const expiresAt = (await row()).tokenExpiresAt;
    await clock.advance(expiresAt + 365 * dayMs - clock.now());
    const { nodeId } = host;
    await controller.store.putNode({ ...(await row()), tokenExpiresAt: expiresAt });
    await rotations.rotate(request({ newKey: host.nodeKey }));
    await controller.store.putNode({ ...(await row()), nodeId, tokenExpiresAt: expiresAt });
    await clock.advance(1);
    const late = await refusal(rotations.rotate(request({ newKey: host.nodeKey })));
    expect(late).toMatchObject({ code: "unauthenticated", message: expect.stringContaining("enroll") });
  });
});

describe("refused, and nothing changes:", () => {
  /** Asks, and compares what the store knows of the host before and after. */
  async function unchanged(asked: Request): Promise<AegisError> {
    const before = await row();
    const error = await refusal(rotations.rotate(asked));
    expect(await row()).toEqual(before);
    return error;
  }

  test("the same request again, whether the key changed or not", async () => {
    const [change, renewal] = [request({ newKey: newKey() }), request({ newKey: host.nodeKey })];
    await rotations.rotate(renewal);
    expect(await unchanged(renewal)).toMatchObject({ code: "conflict" });
    await rotations.rotate(change);
    expect(await unchanged(change)).toMatchObject({ code: "conflict" });
    // Long after, too: the old key's requests are nobody's then.
    await clock.advance(2 * overlapMs);
    expect(await unchanged(change)).toMatchObject({ code: "unauthenticated" });
  });

  test("a key that another host has or had, or that this one had before", async () => {
    const other = hostIdentity(controller.strict, clock.now());
    await controller.enroll(other);
    expect(await unchanged(request({ newKey: other.nodeKey }))).toMatchObject({ code: "conflict" });
    const to = newKey();
    await rotations.rotate(request({ newKey: to }));
    expect(await unchanged(request({ oldKey: to, newKey: host.nodeKey }))).toMatchObject({ code: "conflict" });
  });

  test("anything not signed by both keys, with one answer for all of it and for unknown hosts", async () => {
    const to = newKey();
    const stranger = newKey();
    const fine = request({ newKey: to });
    const wrong: Request[] = [
      request({ oldKey: stranger, newKey: to }),
      { ...fine, signatureWithNewKey: request({ newKey: stranger }).signatureWithNewKey ?? null },
      { ...fine, signatureWithNewKey: new Uint8Array() },
      { ...fine, currentEnvelope: { ...fine.currentEnvelope, signature: new Uint8Array(64) } },
      request({ nodeId: crypto.randomUUID(), newKey: to }),
    ];
    const answers = new Set<string>();
    for (const asked of wrong) {
      const { code, message } = await unchanged(asked);
      answers.add(`${code}: ${message}`);
    }
    expect([...answers]).toEqual(["unauthenticated: the host did not prove its key"]);
  });

  test("a request that is none, or names two keys", async () => {
    const fine = request({ newKey: newKey() });
    for (const asked of [
      {},
      { ...fine, currentEnvelope: null },
      { ...fine, newPublicKey: newKey().raw },
      { ...fine, newPublicKey: new Uint8Array() },
      request({ newKey: newKey(), nonce: randomBytes(31) }),
    ])
      expect(await unchanged(asked)).toMatchObject({ code: "invalid_request" });
  });

  test("a host that was revoked", async () => {
    await controller.store.revokeNode(host.nodeId, clock.now());
    expect(await unchanged(request({ newKey: newKey() }))).toMatchObject({ code: "forbidden" });
  });

  test("the eleventh time within an hour", async () => {
    for (let n = 0; n < 10; n++) await rotations.rotate(request({ newKey: host.nodeKey }));
    expect(await unchanged(request({ newKey: host.nodeKey }))).toMatchObject({ code: "rate_limited" });
    await clock.advance(60 * 60_000 + 1);
    await rotations.rotate(request({ newKey: host.nodeKey }));
  });
});

test("every change stays in the store with what proves it", async () => {
  const to = newKey();
  const asked = request({ newKey: to });
  await rotations.rotate(asked);
  const [kept, ...more] = await controller.store.rotations(host.nodeId, 0);
  expect(more).toEqual([]);
  const rotation = kept && readRotation(kept.request);
  expect(rotation).toMatchObject({ nodeId: host.nodeId, newKey: { kid: to.kid } });
  expect(rotation && kept && verifyRotation(rotation, host.nodeKey, kept)).toBe(true);
});

test("a controller that closes waits for no overlap", async () => {
  live = {} as LiveNode;
  await rotations.rotate(request({ newKey: newKey() }));
  expect(clock.sleeping).toBe(1);
  rotations.close();
  expect(clock.sleeping).toBe(0);
  await clock.advance(overlapMs);
  expect(ended).toEqual([]);
});
