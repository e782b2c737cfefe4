/** The peer's signatures, written from its format and not from our code: what both agree on is what the vectors say. */
import { createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { message } from "./protobuf.ts";

export interface PeerKey {
  /** Raw, 32 bytes. */
  publicKey: Buffer;
  sign(data: Uint8Array): Buffer;
}

export function peerKey(seed: Uint8Array): PeerKey {
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  const secret: KeyObject = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const publicKey = createPublicKey(secret).export({ format: "der", type: "spki" }).subarray(-32);
  return { publicKey, sign: (data) => sign(null, data, secret) };
}

export const kinds = { hello: 1, heartbeat: 2, result: 3, progress: 4 } as const;

export interface Said {
  kind: number;
  timestampMs: number;
  nodeId: string;
  streamId: string;
  inner: Uint8Array;
}

export function payloadOf({ kind, timestampMs, nodeId, streamId, inner }: Said): Buffer {
  const counted = (bytes: Uint8Array) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return [length, bytes];
  };
  const time = Buffer.alloc(8);
  time.writeBigUInt64LE(BigInt(timestampMs));
  return Buffer.concat([
    Buffer.of(kind),
    time,
    ...counted(Buffer.from(nodeId)),
    ...counted(Buffer.from(streamId)),
    ...counted(inner),
  ]);
}

/** A serialised SealNodeEnvelope. */
export function envelope(key: PeerKey, token: string, said: Said): Buffer {
  const payload = payloadOf(said);
  return message([1, token], [2, key.sign(payload)], [3, payload]);
}

/** Inner bytes of progress. */
export function progressInner(commandId: string, sequence: number, stderr: boolean, chunk: Uint8Array): Buffer {
  const number = Buffer.alloc(4);
  number.writeUInt32LE(sequence);
  return Buffer.concat([Buffer.from(commandId), number, Buffer.of(stderr ? 1 : 0), chunk]);
}
