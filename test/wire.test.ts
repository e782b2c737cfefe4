/** Below 1000 our wire is the peer's, field for field; what is ours lies from 1000 up, where a peer does not look. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs/index.js";
import { aegis } from "../src/wire/gen/messages.js";
import { clusterService } from "../src/wire/service.ts";
import { toLong } from "../src/wire/whole.ts";
import peer from "./fixtures/peer-schema.json" with { type: "json" };
import vectors from "./fixtures/vectors.json" with { type: "json" };

const firstOwnNumber = 1000;
const protoFile = join(import.meta.dir, "../proto/aegis/cluster/v1/aegis_cluster.proto");
const ours = describeProto(readFileSync(protoFile, "utf8"), peer.package);
const cluster = aegis.cluster.v1;

type Fields = Record<string, string>;
interface Schema {
  messages: Record<string, Fields>;
  enums: Record<string, Record<string, number>>;
  rpcs: Record<string, string>;
}

/** A .proto in the form of fixtures/peer-schema.json: number -> "label type name in oneof". */
function describeProto(source: string, packageName: string): Schema {
  const schema: Schema = { messages: {}, enums: {}, rpcs: {} };
  const inPackage = protobuf.parse(source, { keepCase: true }).root.lookup(packageName);
  if (!(inPackage instanceof protobuf.Namespace)) throw new Error(`no package ${packageName}`);
  for (const item of inPackage.nestedArray) {
    if (item instanceof protobuf.Type)
      schema.messages[item.name] = Object.fromEntries(
        item.fieldsArray.map((field) => [`${field.id}`, describeField(field)]),
      );
    else if (item instanceof protobuf.Enum) schema.enums[item.name] = item.values;
    else if (item instanceof protobuf.Service)
      for (const rpc of item.methodsArray) {
        const one = (stream: boolean | undefined, type: string) => `${stream ? "stream " : ""}${type}`;
        schema.rpcs[rpc.name] =
          `${one(rpc.requestStream, rpc.requestType)} -> ${one(rpc.responseStream, rpc.responseType)}`;
      }
  }
  return schema;
}

function describeField(field: protobuf.Field): string {
  const isOptional = field.options?.proto3_optional === true;
  const label = field.repeated ? "repeated " : isOptional ? "optional " : "";
  const type = field instanceof protobuf.MapField ? `map<${field.keyType},${field.type}>` : field.type;
  return `${label}${type} ${field.name}${field.partOf && !isOptional ? ` in ${field.partOf.name}` : ""}`;
}

const numbered = (fields: Fields, keep: (number: number) => boolean): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([number]) => keep(Number(number))));

describe("the schema", () => {
  for (const [name, fields] of Object.entries(peer.messages))
    test(`${name} is the peer's below ${firstOwnNumber}`, () => {
      expect(numbered(ours.messages[name] ?? {}, (number) => number < firstOwnNumber)).toEqual(fields as Fields);
    });

  test("fields we added to the peer's messages are there and number from 1000", () => {
    const added = Object.keys(peer.messages).flatMap((name) =>
      Object.keys(numbered(ours.messages[name] ?? {}, (number) => number >= firstOwnNumber)),
    );
    expect(added.length).toBeGreaterThan(30);
  });

  test("enums and calls are the peer's", () => {
    expect(ours.enums).toMatchObject(peer.enums);
    expect(ours.rpcs).toEqual(peer.rpcs);
  });

  test("every enum of ours has an unspecified zero", () => {
    for (const values of Object.values(ours.enums)) expect(Object.keys(values)[0]).toMatch(/_UNSPECIFIED$/);
    for (const values of Object.values(ours.enums)) expect(Object.values(values)[0]).toBe(0);
  });

  test("a changed number, type, label or presence would be noticed", () => {
    const changed = (from: string, to: string) => {
      const source = readFileSync(protoFile, "utf8");
      expect(source).toContain(from);
      return describeProto(source.replace(from, to), peer.package).messages;
    };
    const hello = (messages: Schema["messages"]) =>
      numbered(messages.HelloEvent ?? {}, (number) => number < firstOwnNumber);
    const theirs: Fields = peer.messages.HelloEvent;
    expect(hello(changed("string stream_id = 3;", "string stream_id = 5;"))).not.toEqual(theirs);
    expect(hello(changed("string stream_id = 3;", "bytes stream_id = 3;"))).not.toEqual(theirs);
    expect(hello(changed("string stream_id = 3;", "repeated string stream_id = 3;"))).not.toEqual(theirs);
    expect(hello(changed("optional string last_seen_command_id", "string last_seen_command_id"))).not.toEqual(theirs);
  });
});

describe("bytes the peer's code produced", () => {
  const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));
  const hex = (data: Uint8Array) => Buffer.from(data).toString("hex");
  const events = vectors.canonical.filter((one) => "edge_event_hex" in one && one.origin === "upstream");

  /** These write fields that hold 0, which proto3 lets an encoder leave out; ours does. */
  const spellsOutZeros = new Set(["heartbeat", "command_result", "command_progress_stdout_seq0"]);

  test("there are some of each kind of event", () => {
    expect(events.map((one) => one.kind_byte)).toEqual(expect.arrayContaining([1, 2, 3, 4]));
  });

  for (const { name, edge_event_hex: sample = "", payload_hex, signature_hex } of events)
    test(`${name} decodes, and encodes to the same again`, () => {
      const event = cluster.EdgeEvent.decode(bytes(sample));
      const content = event.hello ?? event.heartbeat ?? event.commandResult ?? event.commandProgress;
      expect(content?.$unknowns).toBeUndefined();
      expect(content?.envelope?.nodeSecurityToken).toBe(vectors.node_security_token);
      expect(hex(content?.envelope?.payload ?? new Uint8Array())).toBe(payload_hex);
      expect(hex(content?.envelope?.signature ?? new Uint8Array())).toBe(signature_hex);
      const again = cluster.EdgeEvent.encode(event).finish();
      expect(cluster.EdgeEvent.decode(again)).toEqual(event);
      if (!spellsOutZeros.has(name)) expect(hex(again)).toBe(sample);
    });

  test("an attestation with empty capabilities", () => {
    const sample = vectors.challenge_node.attest_request_hex;
    const request = cluster.AttestNodeRequest.decode(bytes(sample));
    expect(request.nodeId).toBe(vectors.node_id);
    expect(request.role).toBe(cluster.NodeRole.NODE_ROLE_EDGE);
    expect(request.capabilities).toBeTruthy();
    expect(hex(cluster.AttestNodeRequest.encode(request).finish())).toBe(sample);
  });

  for (const name of ["rotate", "refresh_same_key"] as const)
    test(`a rotation: ${name}`, () => {
      const { request_hex: sample, inner_payload_hex, new_public_key_hex, nonce_hex } = vectors.rotation[name];
      const request = cluster.RotateEdgeKeyRequest.decode(bytes(sample));
      const inner = cluster.RotateEdgeKeyInner.decode(request.currentEnvelope?.payload ?? new Uint8Array());
      expect(hex(request.newPublicKey)).toBe(new_public_key_hex);
      expect(inner.nodeId).toBe(vectors.node_id);
      expect(hex(inner.newPublicKey)).toBe(new_public_key_hex);
      expect(hex(inner.nonce)).toBe(nonce_hex);
      expect(hex(cluster.RotateEdgeKeyInner.encode(inner).finish())).toBe(inner_payload_hex);
    });
});

describe("a sealed frame on its stream", () => {
  const { requestSerialize, responseSerialize } = clusterService.connectEdge;
  const frame = (bytes: number) => ({
    ...{ kind: 0x22, seq: toLong(7), timeMs: toLong(1_790_000_000_000) },
    ...{ body: Buffer.alloc(bytes, "output "), auth: Buffer.alloc(32, 9) },
  });

  for (const bytes of [0, 1, 127, 128, 32 * 1024, 3 * 1024 * 1024])
    test(`a body of ${bytes} bytes is what the generated encoder says`, () => {
      const sealed = frame(bytes);
      expect(cluster.EdgeEvent.decode(requestSerialize({ sealed }))).toEqual(
        cluster.EdgeEvent.decode(cluster.EdgeEvent.encode({ sealed }).finish()),
      );
      expect(cluster.EdgeCommand.decode(responseSerialize({ sealed }))).toEqual(
        cluster.EdgeCommand.decode(cluster.EdgeCommand.encode({ sealed }).finish()),
      );
    });

  test("what stands beside a frame is not lost", () => {
    const sent = { sealed: frame(3), shutdown: { detail: "beside it" } };
    expect(Buffer.from(responseSerialize(sent))).toEqual(Buffer.from(cluster.EdgeCommand.encode(sent).finish()));
  });
});
