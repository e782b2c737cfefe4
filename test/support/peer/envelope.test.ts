/** The peers speak the peer's bytes: every message of the vectors, field by field, made again from nothing. */
import { describe, expect, test } from "bun:test";
import vectors from "../../fixtures/vectors.json" with { type: "json" };
import { envelope, payloadOf, peerKey, progressInner } from "./envelope.ts";
import { type Field, Fields, message, readStruct, struct } from "./protobuf.ts";

const hex = (text: string) => Buffer.from(text, "hex");
const key = peerKey(hex(vectors.keys.old.seed_hex));
const { node_security_token: token, command_id: commandId } = vectors;

describe("the peer's messages", () => {
  for (const vector of vectors.canonical) {
    test(vector.name, () => {
      const said = {
        kind: vector.kind_byte,
        timestampMs: vector.timestamp_ms ?? vectors.timestamp_ms,
        nodeId: vector.node_id ?? vectors.node_id,
        streamId: vector.stream_id ?? vectors.stream_id,
        inner: hex(vector.inner_hex),
      };
      expect(payloadOf(said).toString("hex")).toBe(vector.payload_hex);
      expect(key.sign(payloadOf(said)).toString("hex")).toBe(vector.signature_hex);
      if (!vector.edge_event_hex) return;
      const signed: Field = [1, envelope(key, token, said)];
      const capabilities = message(
        [1, "linux"],
        [2, "x86_64"],
        [3, "shell"],
        [3, "git"],
        [4, "/"],
        [5, message([1, "region"], [2, "home"])],
      );
      const events: Record<string, () => Buffer> = {
        hello: () => message([1, message(signed, [2, capabilities], [3, said.streamId])]),
        heartbeat: () => message([2, message(signed, [2, 0])]),
        command_result: () =>
          message([3, message(signed, [2, commandId], [3, message([1, true], [2, 0], [3, "hi\n"])])]),
      };
      const progress = () => {
        const { sequence = 0, stderr = false, chunk_hex: chunk = "" } = vector;
        expect(progressInner(commandId, sequence, stderr, hex(chunk)).toString("hex")).toBe(vector.inner_hex);
        return message([4, message(signed, [2, commandId], [3, hex(chunk)], [4, sequence], [5, stderr])]);
      };
      expect((events[vector.name] ?? progress)().toString("hex")).toBe(vector.edge_event_hex);
    });
  }

  test("a Struct comes back as it went", () => {
    const value = { a: [1, "two", null, { b: true }], big: -0.5, "": "" };
    expect(readStruct(new Fields(struct(value)))).toEqual(value);
  });
});
