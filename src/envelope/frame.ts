/**
 * Sealed frames: the only content of a strict session. Sealing and opening keep one counter a direction each;
 * the first failure ends the session, and nothing that follows is looked at.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { limits } from "../platform/limits.ts";
import type { PublicKey, SigningKey } from "./public-key.ts";
import { type Digest, digestOf, statement } from "./statement.ts";

type Direction = "c2d" | "d2c";

/** The table fixes direction and authentication of each kind; a receiver never learns them from the message. */
export const frameKinds = {
  accept: { number: 0x10, direction: "c2d", auth: "signature" },
  command: { number: 0x11, direction: "c2d", auth: "signature" },
  credit: { number: 0x12, direction: "c2d", auth: "mac" },
  keysetFrame: { number: 0x13, direction: "c2d", auth: "signature" },
  goodbye: { number: 0x14, direction: "c2d", auth: "signature" },
  ack: { number: 0x15, direction: "c2d", auth: "mac" },
  confirm: { number: 0x20, direction: "d2c", auth: "signature" },
  heartbeat: { number: 0x21, direction: "d2c", auth: "mac" },
  progress: { number: 0x22, direction: "d2c", auth: "mac" },
  result: { number: 0x23, direction: "d2c", auth: "mac" },
  capabilities: { number: 0x24, direction: "d2c", auth: "mac" },
} as const satisfies Record<string, { number: number; direction: Direction; auth: "signature" | "mac" }>;

export type FrameKind = keyof typeof frameKinds;
type KindOf<D extends Direction> = {
  [K in FrameKind]: (typeof frameKinds)[K]["direction"] extends D ? K : never;
}[FrameKind];
export type CommandFrameKind = KindOf<"c2d">;
export type EventFrameKind = KindOf<"d2c">;

/** Longest body of a frame, in bytes: a 4 MiB message less its frame. Checked before anything is hashed. */
export const maxBodyBytes = limits.sealedBodyBytes;

/** A SealedFrame with its integers already plain. */
export interface Frame {
  kind: number;
  seq: number;
  timeMs: number;
  body: Uint8Array;
  auth: Uint8Array;
}

export type FrameFailure =
  | "session_ended"
  | "body_too_large"
  | "unknown_kind"
  | "wrong_direction"
  | "sequence"
  | "authentication"
  | "malformed";

export type Opened<K extends FrameKind> =
  | { kind: "frame"; frame: K; body: Uint8Array; digest: Digest; timeMs: number }
  | { kind: "refused"; reason: FrameFailure };

/** What the handshake proved. Only handshake.ts makes one, so there is no other way to a session. */
export interface SessionSecrets {
  nodeId: string;
  sessionId: Uint8Array;
  /** HMAC keys, 32 bytes each. */
  toController: Uint8Array;
  toDaemon: Uint8Array;
}

/** One end of a session: seals what it says, opens what it hears. */
export interface SealedChannel<Out extends FrameKind, In extends FrameKind> {
  readonly sessionId: Uint8Array;
  /**
   * Takes the next number, also when the write then fails: the caller closes the stream in that case. `digest` is the body's,
   * where the caller has it.
   */
  seal(kind: Out, body: Uint8Array, timeMs: number, digest?: Digest): Frame;
  open(frame: Frame): Opened<In>;
}

export interface DaemonChannel extends SealedChannel<EventFrameKind, CommandFrameKind> {
  /** From the next frame on the controller signs with this key. */
  commandKeyIs(commandKey: PublicKey): void;
}

export interface ControllerChannel extends SealedChannel<CommandFrameKind, EventFrameKind> {
  /** From the next frame on this key signs. */
  signWith(commandKey: SigningKey): void;
}

export const daemonChannel = (secrets: SessionSecrets, nodeKey: SigningKey, commandKey: PublicKey): DaemonChannel => {
  const keys = { own: nodeKey, peer: commandKey };
  return {
    ...channel<EventFrameKind, CommandFrameKind>(secrets, "d2c", keys),
    commandKeyIs(key) {
      keys.peer = key;
    },
  };
};

export const controllerChannel = (
  secrets: SessionSecrets,
  commandKey: SigningKey,
  nodeKey: PublicKey,
): ControllerChannel => {
  const keys = { own: commandKey, peer: nodeKey };
  return {
    ...channel<CommandFrameKind, EventFrameKind>(secrets, "c2d", keys),
    signWith(key) {
      keys.own = key;
    },
  };
};

function channel<Out extends FrameKind, In extends FrameKind>(
  secrets: SessionSecrets,
  says: Direction,
  keys: { own: SigningKey; peer: PublicKey },
): SealedChannel<Out, In> {
  const { nodeId, sessionId } = secrets;
  const [sendKey, receiveKey] =
    says === "d2c" ? [secrets.toController, secrets.toDaemon] : [secrets.toDaemon, secrets.toController];
  let sent = 0;
  let received = 0;
  let ended = false;

  const refuse = (reason: FrameFailure): Opened<In> => {
    ended = true;
    return { kind: "refused", reason };
  };

  return {
    sessionId,
    seal(kind, body, timeMs, digest) {
      if (body.length > maxBodyBytes)
        throw new RangeError(`a frame body has at most ${maxBodyBytes} bytes, this ${kind} has ${body.length}`);
      const seq = sent++;
      const header = frameHeader(kind, { nodeId, sessionId, seq, timeMs, body: digest ?? body });
      const auth = frameKinds[kind].auth === "signature" ? keys.own.sign(header) : mac(sendKey, header);
      return { kind: frameKinds[kind].number, seq, timeMs, body, auth };
    },
    open(frame) {
      if (ended) return refuse("session_ended");
      if (frame.body.length > maxBodyBytes) return refuse("body_too_large");
      const kind = kindByNumber.get(frame.kind);
      if (!kind) return refuse("unknown_kind");
      const { direction, auth } = frameKinds[kind];
      if (direction === says) return refuse("wrong_direction");
      if (frame.seq !== received) return refuse("sequence");
      // The handshake's own frame comes first and once; nothing else may stand in its place.
      if ((received === 0) !== (kind === "accept" || kind === "confirm")) return refuse("sequence");
      if (!Number.isSafeInteger(frame.timeMs) || frame.timeMs < 0) return refuse("malformed");
      // The header is rebuilt from this end's own state: another session, node or place in the order cannot verify.
      const digest = digestOf(frame.body);
      const header = frameHeader(kind, { nodeId, sessionId, seq: received, timeMs: frame.timeMs, body: digest });
      const genuine =
        auth === "signature" ? keys.peer.verify(header, frame.auth) : sameMac(mac(receiveKey, header), frame.auth);
      if (!genuine) return refuse("authentication");
      received++;
      return { kind: "frame", frame: kind as In, body: frame.body, digest, timeMs: frame.timeMs };
    },
  };
}

const kindByNumber: ReadonlyMap<number, FrameKind> = new Map(
  Object.entries(frameKinds).map(([name, { number }]) => [number, name as FrameKind]),
);

interface HeaderValues {
  nodeId: string;
  sessionId: Uint8Array;
  seq: number;
  timeMs: number;
  body: Uint8Array | Digest;
}

/** 110 bytes. */
export const frameHeader = (kind: FrameKind, values: HeaderValues): Uint8Array => statement(kind, values);

const mac = (key: Uint8Array, header: Uint8Array): Uint8Array => createHmac("sha256", key).update(header).digest();

const sameMac = (expected: Uint8Array, received: Uint8Array): boolean =>
  received.length === expected.length && timingSafeEqual(expected, received);
