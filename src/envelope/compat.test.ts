/** The peer's signatures, byte for byte as an independent implementation made them, and every way to be refused. */
import { describe, expect, test } from "bun:test";
import vectors from "../../test/fixtures/vectors.json" with { type: "json" };
import { type CompatKind, canonicalPayload, compatWindowMs, innerOf, signCompat, verifyCompat } from "./compat.ts";
import { importPublicKey, importSigningKey } from "./public-key.ts";

const hex = (text: string): Uint8Array => Buffer.from(text, "hex");
const key = importSigningKey(hex(vectors.keys.old.seed_hex));
const other = importSigningKey(hex(vectors.keys.new.seed_hex));
const kinds: readonly CompatKind[] = ["hello", "heartbeat", "result", "progress", "capabilities"];
const { node_id: nodeId, stream_id: streamId, command_id: commandId, timestamp_ms: timestampMs } = vectors;

describe("every vector of the peer's format", () => {
  for (const vector of vectors.canonical) {
    test(`${vector.name}: payload, signature and verification`, () => {
      const kind = kinds[vector.kind_byte - 1] as CompatKind;
      const said = {
        kind,
        nodeId: vector.node_id ?? nodeId,
        streamId: vector.stream_id ?? streamId,
        inner: hex(vector.inner_hex),
      };
      const at = vector.timestamp_ms ?? timestampMs;
      const signed = signCompat(key, canonicalPayload({ ...said, timestampMs: at }));
      expect(Buffer.from(signed.payload).toString("hex")).toBe(vector.payload_hex);
      expect(signed.payload.length).toBe(vector.payload_len);
      expect(Buffer.from(signed.signature).toString("hex")).toBe(vector.signature_hex);
      const received = { payload: hex(vector.payload_hex), signature: hex(vector.signature_hex) };
      const publicKey = importPublicKey(hex(vectors.keys.old.public_hex));
      expect(publicKey && verifyCompat(publicKey, said, received, at)).toEqual({ kind: "verified", timestampMs: at });
    });
  }

  test("inners are what the vectors hold", () => {
    const inners: Record<string, Uint8Array> = {
      hello: innerOf.hello(),
      heartbeat: innerOf.heartbeat(),
      command_result: innerOf.result(commandId),
    };
    for (const vector of vectors.canonical) {
      const { sequence, stderr, chunk_hex: chunk, name } = vector;
      if (sequence !== undefined && stderr !== undefined && chunk !== undefined)
        inners[name] = innerOf.progress({ commandId, sequence, stderr, chunk: hex(chunk) });
      const inner = inners[name];
      if (inner) expect(Buffer.from(inner).toString("hex")).toBe(vector.inner_hex);
    }
    expect(Object.keys(inners)).toHaveLength(5);
  });

  test("a command id of another length would make progress ambiguous, so there is none", () => {
    const progress = { sequence: 0, stderr: false, chunk: new Uint8Array() };
    for (const id of ["", "c0ffee", commandId.toUpperCase(), `${commandId}0`])
      expect(() => innerOf.progress({ commandId: id, ...progress })).toThrow(RangeError);
  });
});

describe("a signed event passes for nothing else", () => {
  const said = { kind: "result", nodeId, streamId, inner: innerOf.result(commandId) } as const;
  const signed = signCompat(key, canonicalPayload({ ...said, timestampMs }));

  const otherId = "c0ffee00-1234-4abc-9def-0123456789ac";
  const cases: Record<string, Partial<Parameters<typeof verifyCompat>[1]>> = {
    "another kind": { kind: "progress" },
    "another node": { nodeId: otherId },
    "another stream": { streamId: otherId },
    "another command": { inner: innerOf.result(otherId) },
    "a shorter inner": { inner: new Uint8Array() },
  };
  for (const [what, change] of Object.entries(cases)) {
    test(`not for ${what}`, () => {
      expect(verifyCompat(key, { ...said, ...change }, signed, timestampMs)).toEqual({
        kind: "refused",
        reason: "payload",
      });
    });
  }

  test("not with another key, a cut signature or a flipped bit of any payload byte", () => {
    expect(verifyCompat(other, said, signed, timestampMs)).toMatchObject({ reason: "signature" });
    const cut = { ...signed, signature: signed.signature.subarray(0, 63) };
    expect(verifyCompat(key, said, cut, timestampMs)).toMatchObject({ reason: "signature" });
    for (let at = 0; at < signed.payload.length; at++) {
      const payload = Uint8Array.from(signed.payload);
      payload[at] = (payload[at] ?? 0) ^ 1;
      expect(verifyCompat(key, said, { ...signed, payload }, timestampMs).kind).toBe("refused");
    }
  });

  test("not with bytes behind it, and not cut anywhere", () => {
    for (const payload of [Buffer.concat([signed.payload, Buffer.of(0)]), signed.payload.subarray(0, 8), hex("")])
      expect(verifyCompat(key, said, { ...signed, payload }, timestampMs)).toMatchObject({ reason: "payload" });
  });

  test("not outside the window, on either side; at its edge it still counts", () => {
    for (const sign of [1, -1]) {
      const at = (ms: number) => verifyCompat(key, said, signed, timestampMs + sign * ms);
      expect(at(compatWindowMs).kind).toBe("verified");
      expect(at(compatWindowMs + 1)).toEqual({ kind: "refused", reason: "time" });
    }
  });

  test("a timestamp that no number holds exactly is refused, not rounded", () => {
    const payload = Buffer.from(signed.payload);
    payload.writeBigUInt64LE(2n ** 53n + 1n, 1);
    expect(verifyCompat(key, said, signCompat(key, payload), 2 ** 53)).toMatchObject({ reason: "payload" });
  });
});
