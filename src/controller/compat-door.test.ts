/** What happens at the door of compat sessions as time goes by: streams forgotten, keys replaced, hosts revoked in between. */
import { beforeEach, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { type FakeClock, fakeClock } from "../../test/support/fake-clock.ts";
import { type HostIdentity, hostIdentity, newKey } from "../../test/support/strict-keys.ts";
import { type StrictController, strictController } from "../../test/support/strict-pair.ts";
import { canonicalPayload, innerOf, signCompat } from "../envelope/compat.ts";
import { signRotation } from "../envelope/rotation.ts";
import { type CompatAnswer, type CompatDoor, type CompatGuest, createCompatDoor, streamMemory } from "./compat-door.ts";
import { resultLedger } from "./result-ledger.ts";
import { createRotations, overlapMs } from "./rotation.ts";

let clock: FakeClock;
let controller: StrictController;
let door: CompatDoor;
let host: HostIdentity;

beforeEach(async () => {
  clock = fakeClock();
  controller = await strictController({ clock });
  host = hostIdentity(controller.strict, clock.now());
  await controller.enroll(host, { seal: "compat" });
  const { store, sessions, time, log } = controller;
  const ledger = resultLedger({ store, time, log });
  door = createCompatDoor({ store, sessions, time, log, clock, ledger, keys: controller.strict.keys, heard: () => {} });
});

interface Arrival {
  answer: CompatAnswer;
  ended: boolean;
}

async function arrive({ streamId = randomUUID(), meanwhile = async () => {} } = {}): Promise<Arrival> {
  const { nodeId, nodeKey, nodeToken } = host;
  const payload = canonicalPayload({
    ...{ kind: "hello", nodeId, streamId, timestampMs: clock.now(), inner: innerOf.hello() },
  });
  const arrival: Arrival = { answer: null as never, ended: false };
  const stream = {
    send() {},
    end() {
      arrival.ended = true;
    },
  };
  const envelope = { nodeSecurityToken: nodeToken, ...signCompat(nodeKey, payload) };
  arrival.answer = await door.hello({ envelope, streamId, capabilities: { os: "linux" } }, stream);
  await meanwhile();
  guestOf(arrival)?.welcome();
  await Bun.sleep(0);
  return arrival;
}

const guestOf = ({ answer }: Arrival): CompatGuest | null => (answer.kind === "come_in" ? answer.guest : null);

async function rotate(to = newKey()): Promise<void> {
  const { store, sessions, time, log, strict } = controller;
  const rotations = createRotations({
    ...{ store, sessions, time, log, clock, keys: strict.keys, publicEndpoint: "c:1" },
  });
  const asked = { nodeId: host.nodeId, oldKey: host.nodeKey, newKey: to, nonce: new Uint8Array(32) };
  const { bytes, oldSignature, newSignature } = signRotation(asked);
  await rotations.rotate({
    currentEnvelope: { payload: bytes, signature: oldSignature },
    newPublicKey: to.raw,
    signatureWithNewKey: newSignature,
  });
}

test("a stream that a host opened is remembered for as long as a recording of its Hello could count", async () => {
  const streamId = randomUUID();
  expect((await arrive({ streamId })).answer.kind).toBe("come_in");
  for (let n = 1; n < streamMemory.perNode; n++) await arrive();
  expect((await arrive()).answer).toMatchObject({ kind: "refused", status: 8 });
  await clock.advance(streamMemory.ms);
  expect((await arrive({ streamId })).answer.kind).toBe("refused");
  await clock.advance(1);
  expect((await arrive()).answer.kind).toBe("come_in");
});

test("a session opened with the old key in the overlap ends with the overlap; one by the new key does not", async () => {
  await rotate();
  await clock.advance(overlapMs / 2);
  const old = await arrive();
  expect(controller.sessions.get(host.nodeId)).toBeDefined();
  await clock.advance(overlapMs / 2 - 1);
  expect(old.ended).toBe(false);
  await clock.advance(1);
  expect(old.ended).toBe(true);
  expect((await arrive()).answer.kind).toBe("refused");
});

test("a session that is gone leaves nothing that waits", async () => {
  await rotate();
  const before = clock.sleeping;
  const old = await arrive();
  expect(clock.sleeping).toBe(before + 1);
  guestOf(old)?.gone();
  expect(clock.sleeping).toBe(before);
  expect(controller.sessions.get(host.nodeId)).toBeUndefined();
});

test("a host that is enrolled with another key between Hello and session has none with the old one", async () => {
  const late = await arrive({
    meanwhile: async () => void (await controller.enroll({ ...host, nodeKey: newKey() }, { seal: "compat" })),
  });
  expect(late.ended).toBe(true);
});

test("a host that is revoked between Hello and session is sent away again", async () => {
  const late = await arrive({
    meanwhile: async () => void (await controller.store.revokeNode(host.nodeId, clock.now())),
  });
  expect(late.ended).toBe(true);
});
