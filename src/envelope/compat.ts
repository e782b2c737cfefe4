/**
 * The peer's own signatures, for hosts and controllers that know no strict session: one small payload beside each event,
 * which names the event and leaves most of its content unsigned. What it does not cover is listed in `innerOf`.
 */
import type { PublicKey, SigningKey } from "./public-key.ts";
import { uuidBytes } from "./statement.ts";

/** First byte of a payload. The peer has no `capabilities`: 5 is ours, and a peer that reads it checks nothing. */
const kindBytes = { hello: 1, heartbeat: 2, result: 3, progress: 4, capabilities: 5 } as const;

export type CompatKind = keyof typeof kindBytes;

export interface CompatPayload {
  kind: CompatKind;
  timestampMs: number;
  nodeId: string;
  streamId: string;
  inner: Uint8Array;
}

/** How far a host's clock may be from the controller's, either way. */
export const compatWindowMs = 300_000;

/** kind u8 · timestamp u64 · node id, stream id and inner, each behind its u32 length; integers little-endian. */
export function canonicalPayload({ kind, timestampMs, nodeId, streamId, inner }: CompatPayload): Uint8Array {
  const head = Buffer.alloc(9);
  head.writeUInt8(kindBytes[kind]);
  head.writeBigUInt64LE(BigInt(timestampMs), 1);
  const parts = [head];
  for (const field of [Buffer.from(nodeId, "utf8"), Buffer.from(streamId, "utf8"), Buffer.from(inner)]) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(field.length);
    parts.push(length, field);
  }
  return Buffer.concat(parts);
}

/** The two signed fields of a SealNodeEnvelope; the token beside them is not covered. */
export interface CompatSignature {
  payload: Uint8Array;
  signature: Uint8Array;
}

export const signCompat = (key: SigningKey, payload: Uint8Array): CompatSignature => ({
  payload,
  signature: key.sign(payload),
});

/**
 * The part of a payload that ties it to one event. Not covered: a hello's capabilities, a heartbeat's count, and the
 * whole of a result but for its id.
 */
export const innerOf = {
  hello: (): Uint8Array => new Uint8Array(),
  heartbeat: (): Uint8Array => new Uint8Array(),
  result: (commandId: string): Uint8Array => Buffer.from(commandId, "utf8"),
  /** Has no lengths inside, so it says one thing only because a command id is always 36 bytes long. */
  progress({ commandId, sequence, stderr, chunk }: CompatProgress): Uint8Array {
    if (!uuidBytes(commandId)) throw new RangeError("a command id is not a UUID in lower-case text");
    const middle = Buffer.alloc(5);
    middle.writeUInt32LE(sequence);
    middle.writeUInt8(stderr ? 1 : 0, 4);
    return Buffer.concat([Buffer.from(commandId, "utf8"), middle, chunk]);
  },
  /** `digest`: SHA-256 of the serialised EdgeCapabilities. */
  capabilities: (digest: Uint8Array): Uint8Array => digest,
};

export interface CompatProgress {
  commandId: string;
  sequence: number;
  stderr: boolean;
  chunk: Uint8Array;
}

export type CompatFailure = "payload" | "signature" | "time";
export type CompatOutcome = { kind: "verified"; timestampMs: number } | { kind: "refused"; reason: CompatFailure };

/**
 * Whether the node signed this very event, within the window around `nowMs`. All but the timestamp is rebuilt from the
 * caller's own state and compared as bytes, so a payload of another kind, node, stream or command cannot pass.
 */
export function verifyCompat(
  key: PublicKey,
  expected: Omit<CompatPayload, "timestampMs">,
  { payload, signature }: CompatSignature,
  nowMs: number,
): CompatOutcome {
  const timestampMs = timestampOf(payload);
  if (timestampMs === null || !Buffer.from(canonicalPayload({ ...expected, timestampMs })).equals(payload)) {
    return { kind: "refused", reason: "payload" };
  }
  if (!key.verify(payload, signature)) return { kind: "refused", reason: "signature" };
  if (Math.abs(nowMs - timestampMs) > compatWindowMs) return { kind: "refused", reason: "time" };
  return { kind: "verified", timestampMs };
}

/** Bytes 1-8, or null when there are none or they are no time that a number holds exactly. */
function timestampOf(payload: Uint8Array): number | null {
  if (payload.length < 9) return null;
  const value = Number(Buffer.from(payload).readBigUInt64LE(1));
  return Number.isSafeInteger(value) ? value : null;
}
