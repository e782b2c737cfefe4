/** What a new key of a known host means for whoever still holds the old one. */
import { expect, test } from "bun:test";
import { sealed } from "../../test/support/rogue.ts";
import { settled } from "../../test/support/scripted-host.ts";
import { controllerStage } from "../../test/support/stages.ts";
import { newKey } from "../../test/support/strict-keys.ts";
import { signEnrollProof } from "../envelope/enrollment.ts";
import type { NodeRow, Queries, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { createChallenges } from "./challenges.ts";
import { createEnrollment } from "./enrollment.ts";

const { GoodbyeReason, NodeRole, SealConfirm } = aegis.cluster.v1;

async function stage() {
  const controller = await controllerStage();
  const { strict, store, sessions, clock, time, log, identity } = controller;
  /** Fails once, after the token was redeemed and before the host is there. */
  const disk = { fails: false };
  const failing: Store = Object.assign(Object.create(store), {
    transaction: (work: (tx: Queries) => Promise<unknown>) =>
      store.transaction((tx) =>
        work(
          Object.assign(Object.create(tx), {
            putNode: (row: NodeRow) => {
              if (!disk.fails) return tx.putNode(row);
              disk.fails = false;
              throw new Error("database or disk is full");
            },
          }),
        ),
      ),
  });
  const enrollment = createEnrollment({
    ...{ store: failing, keys: strict.keys, clock, time, log },
    ...{ pins: [`spki-sha256:${"A".repeat(43)}`], publicEndpoint: "controller.example:50056" },
    challenges: createChallenges(clock),
    onAdmitted: (nodeId) => sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REPLACED, "enrolled again"),
  });
  const issue = (forNode: string | null) =>
    enrollment.issue({ tenantId: "acme", issuedTo: "web-1", ttlMs: 60_000, tags: [], forNode });

  async function enroll(token: string, key = newKey(), nodeId = identity.nodeId) {
    const attested = enrollment.attest(
      { nodeId, role: NodeRole.NODE_ROLE_EDGE, publicKey: key.raw, capabilities: {}, sealVersions: [1] },
      "192.0.2.9",
    );
    const { challengeNonce: nonce, challengeId } = attested;
    const proof = { nodeId, nodePublicKey: key.raw, enrollmentToken: Buffer.from(token), nonce };
    return await enrollment.challenge({
      ...{ challengeId, nodeId, enrollmentToken: token, challengeSignature: key.sign(nonce) },
      enrollProof: signEnrollProof(key, { ...proof, rootKeyId: strict.keyset.rootKey.keyId }),
    });
  }
  return { ...controller, disk, issue, enroll };
}

test("a session that the old key opened ends when the new key is admitted", async () => {
  const one = await stage();
  await one.begin();
  const { token } = await one.issue(one.identity.nodeId);
  await one.enroll(token);
  await settled();
  expect(one.sessions.size).toBe(0);
  expect(one.rogue.ended).not.toBeNull();
});

test("a Hello that the old key said before it is not confirmed after it", async () => {
  const one = await stage();
  await one.begin(false);
  const { token } = await one.issue(one.identity.nodeId);
  await one.enroll(token);
  one.rogue.send(sealed(one.rogue.frame("confirm", SealConfirm.encode({}).finish())));
  await settled();
  expect(one.sessions.size).toBe(0);
});

test("an enrollment that is refused ends nothing", async () => {
  const one = await stage();
  await one.begin();
  const { token } = await one.issue(null);
  const told = await one.enroll(token).catch((error: Error) => error.message);
  expect(told).toMatch(/is enrolled already/);
  await settled();
  expect(one.sessions.size).toBe(1);
});

test("a database that fails halfway keeps neither the host nor the use of its token", async () => {
  const one = await stage();
  const nodeId = crypto.randomUUID();
  const { token } = await one.issue(null);
  one.disk.fails = true;
  await expect(one.enroll(token, newKey(), nodeId)).rejects.toThrow("disk is full");
  expect(await one.store.node(nodeId)).toBeNull();
  await one.enroll(token, newKey(), nodeId);
  expect(await one.store.node(nodeId)).toMatchObject({ tenantId: "acme", hostName: "web-1" });
  await expect(one.enroll(token, newKey(), crypto.randomUUID())).rejects.toThrow("already redeemed");
});
