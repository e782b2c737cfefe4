/** Rotation requests, byte for byte as an independent implementation made them, and what nobody can ask for. */
import { describe, expect, test } from "bun:test";
import vectors from "../../test/fixtures/vectors.json" with { type: "json" };
import { aegis } from "../wire/gen/messages.js";
import { importPublicKey, importSigningKey, type SigningKey } from "./public-key.ts";
import { readRotation, rotationDigest, signRotation, verifyRotation } from "./rotation.ts";

const hex = (text: string): Uint8Array => Buffer.from(text, "hex");
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const oldKey = importSigningKey(hex(vectors.keys.old.seed_hex));
const newKey = importSigningKey(hex(vectors.keys.new.seed_hex));
const nodeId = vectors.node_id;

const cases: Record<string, { vector: (typeof vectors.rotation)["rotate"]; to: SigningKey }> = {
  "to a new key": { vector: vectors.rotation.rotate, to: newKey },
  "of the token alone": { vector: vectors.rotation.refresh_same_key, to: oldKey },
};
for (const [what, { vector, to }] of Object.entries(cases)) {
  test(`a rotation ${what} is the peer's, byte for byte, and verifies`, () => {
    const nonce = hex(vector.nonce_hex);
    expect(text(rotationDigest(nodeId, to.raw, nonce))).toBe(vector.challenge_digest_hex);
    const signed = signRotation({ nodeId, oldKey, newKey: to, nonce });
    const theirs = aegis.cluster.v1.RotateEdgeKeyRequest.decode(hex(vector.request_hex));
    expect(text(theirs.currentEnvelope?.payload ?? new Uint8Array())).toBe(text(signed.bytes));
    expect(text(theirs.newPublicKey)).toBe(text(to.raw));
    expect(text(theirs.signatureWithNewKey)).toBe(text(signed.newSignature));
    expect(text(signed.bytes)).toBe(vector.inner_payload_hex);
    expect(text(signed.oldSignature)).toBe(vector.envelope_signature_old_key_hex);
    expect(text(signed.newSignature)).toBe(vector.signature_with_new_key_hex);
    const rotation = readRotation(hex(vector.inner_payload_hex));
    expect(rotation && verifyRotation(rotation, oldKey, signed)).toBe(true);
  });
}

describe("a rotation does not verify", () => {
  const nonce = hex(vectors.rotation.rotate.nonce_hex);
  const signed = signRotation({ nodeId, oldKey, newKey, nonce });
  const asked = readRotation(signed.bytes);
  if (!asked) throw new Error("unreadable");

  test("with either signature by another key, or the two exchanged", () => {
    const { oldSignature, newSignature } = signed;
    expect(verifyRotation(asked, newKey, signed)).toBe(false);
    expect(verifyRotation(asked, oldKey, { oldSignature: newSignature, newSignature: oldSignature })).toBe(false);
    const byOld = signRotation({ nodeId, oldKey, newKey: oldKey, nonce });
    expect(verifyRotation(asked, oldKey, { oldSignature, newSignature: byOld.newSignature })).toBe(false);
  });

  test("for another node, key or nonce", () => {
    const otherNonce = signRotation({ nodeId, oldKey, newKey, nonce: new Uint8Array(32) });
    const otherNode = signRotation({ nodeId: vectors.stream_id, oldKey, newKey, nonce });
    for (const other of [otherNonce, otherNode]) {
      expect(verifyRotation(asked, oldKey, { ...signed, newSignature: other.newSignature })).toBe(false);
      expect(verifyRotation(asked, oldKey, { ...signed, oldSignature: other.oldSignature })).toBe(false);
    }
  });
});

test("what can be nobody's request is not read", () => {
  const { RotateEdgeKeyInner } = aegis.cluster.v1;
  const fine = { nodeId, newPublicKey: newKey.raw, nonce: new Uint8Array(32).fill(7) };
  expect(readRotation(RotateEdgeKeyInner.encode(fine).finish())).not.toBeNull();
  const weak = new Uint8Array(32);
  weak[0] = 1;
  for (const change of [
    { nodeId: nodeId.toUpperCase() },
    { nodeId: "" },
    { newPublicKey: newKey.raw.subarray(1) },
    { newPublicKey: weak },
    { nonce: new Uint8Array(31) },
    { nonce: new Uint8Array(33) },
  ])
    expect(readRotation(RotateEdgeKeyInner.encode({ ...fine, ...change }).finish())).toBeNull();
  expect(readRotation(hex("0aff"))).toBeNull();
  expect(importPublicKey(weak)).toBeNull();
});
