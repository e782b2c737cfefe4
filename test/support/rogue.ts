/**
 * Either end of a session, played by hand: with the real keys, and doing whatever the test says. What such an end cannot
 * achieve, nobody with fewer keys can.
 */
import { createHmac, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import type { ControllerLink, EdgeCommand, EdgeStream, StreamEnd, StreamHandlers } from "../../src/daemon/link.ts";
import { type Frame, type FrameKind, frameHeader, frameKinds, type SessionSecrets } from "../../src/envelope/frame.ts";
import { agree } from "../../src/envelope/handshake.ts";
import type { SigningKey } from "../../src/envelope/public-key.ts";
import { statement, uuidBytes } from "../../src/envelope/statement.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import { toLong, whole } from "../../src/wire/whole.ts";
import type { HeardEvent } from "./memory-link.ts";
import { capabilitiesBytes } from "./strict-daemon.ts";
import type { HostIdentity, StrictKeys } from "./strict-keys.ts";

const wire = aegis.cluster.v1;

/** What a frame is made of; every part may be wrong. */
export interface Craft {
  seq: number;
  timeMs: number;
  nodeId?: string;
  sessionId?: Uint8Array;
  /** Instead of what the kind asks for. */
  auth?: "signature" | "mac" | ((right: Uint8Array) => Uint8Array);
  /** Signs instead of the end's own key. */
  signer?: SigningKey;
  /** The key of this direction instead of the right one. */
  macKey?: Uint8Array;
}

/** Seals a frame outside any channel. */
function craft(kind: FrameKind, body: Uint8Array, secrets: SessionSecrets, key: SigningKey, made: Craft): Frame {
  const { seq, timeMs, nodeId = secrets.nodeId, sessionId = secrets.sessionId, auth, signer = key } = made;
  const header = frameHeader(kind, { nodeId, sessionId, seq, timeMs, body });
  const { auth: usual, direction, number } = frameKinds[kind];
  const macKey = made.macKey ?? (direction === "c2d" ? secrets.toDaemon : secrets.toController);
  const how = typeof auth === "string" ? auth : usual;
  const right = how === "mac" ? createHmac("sha256", macKey).update(header).digest() : signer.sign(header);
  return { kind: number, seq, timeMs, body, auth: typeof auth === "function" ? auth(right) : right };
}

export const sealed = (frame: Frame) => ({
  sealed: { ...frame, seq: toLong(frame.seq), timeMs: toLong(frame.timeMs) },
});

/** The frame inside a message; throws when there is none. */
export function frameOf(message: HeardEvent | EdgeCommand): Frame {
  const { sealed: frame } = message;
  if (!frame) throw new Error("no frame");
  const { kind, seq, timeMs, body, auth } = frame;
  return {
    kind: kind ?? 0,
    seq: whole(seq) ?? -1,
    timeMs: whole(timeMs) ?? -1,
    body: body ?? new Uint8Array(),
    auth: auth ?? new Uint8Array(),
  };
}

const rawShare = (key: KeyObject): Uint8Array => key.export({ format: "der", type: "spki" }).subarray(-32);

export type AcceptBody = aegis.cluster.v1.SealAccept.$Properties;

export interface RogueController {
  link: ControllerLink;
  /** Everything the daemon sent on its last stream. */
  events: HeardEvent[];
  closed: boolean;
  secrets: SessionSecrets;
  /** Answers the Hello; `body` replaces parts of what is signed. */
  accept(options?: { body?: AcceptBody } & Partial<Craft>): Frame;
  /** The next frame in order, unless told otherwise. */
  frame(kind: FrameKind, body: Uint8Array, made?: Partial<Craft>): Frame;
  send(command: aegis.cluster.v1.EdgeCommand.$Properties): void;
  end(end: Partial<StreamEnd>): void;
}

export function rogueController(strict: StrictKeys, identity: HostIdentity, time: () => number): RogueController {
  const { keys, keyset, controllerId } = strict;
  let handlers: StreamHandlers | null = null;
  let seq = 0;
  const stream: EdgeStream = {
    send(event) {
      if (rogue.closed) return false;
      rogue.events.push(wire.EdgeEvent.decode(wire.EdgeEvent.encode(event).finish()));
      return true;
    },
    drained: () => Promise.resolve(),
    close() {
      rogue.closed = true;
    },
  };
  const notHere = () => Promise.reject(new Error("not part of this link"));
  const rogue: RogueController = {
    events: [],
    closed: false,
    secrets: { nodeId: "", sessionId: new Uint8Array(), toController: new Uint8Array(), toDaemon: new Uint8Array() },
    link: {
      async open(given) {
        handlers = given;
        seq = 0;
        rogue.events.length = 0;
        rogue.closed = false;
        return stream;
      },
      attest: notHere,
      challenge: notHere,
      rotate: notHere,
      close() {},
    },
    accept({ body: given, ...made } = {}) {
      const hello = rogue.events[0]?.hello;
      if (!hello?.sealHello) throw new Error("no Hello");
      const { x25519 } = wire.SealHello.decode(hello.sealHello);
      const own = generateKeyPairSync("x25519");
      const body: AcceptBody = {
        version: 1,
        serverNonce: randomBytes(32),
        x25519: rawShare(own.publicKey),
        controllerId: uuidBytes(controllerId) ?? new Uint8Array(),
        keysetVersion: toLong(keyset.version),
        keysetChain: [wire.SignedKeySet.decode(keyset.signed)],
        serverTimeMs: toLong(time()),
        limits: { maxBody: toLong(4_190_208), maxWindow: toLong(4_194_304), heartbeatSecs: 0 },
        ...given,
      };
      const acceptBody = wire.SealAccept.encode(body).finish();
      const transcript = { nodeId: identity.nodeId, streamId: hello.streamId ?? "", sealHello: hello.sealHello };
      const agreed = agree(own.privateKey, x25519, { ...transcript, acceptBody });
      if (!agreed) throw new Error("no agreement");
      rogue.secrets = agreed;
      return rogue.frame("accept", acceptBody, made);
    },
    frame(kind, body, made = {}) {
      const next = made.seq ?? seq;
      seq = next + 1;
      return craft(kind, body, rogue.secrets, keys.command, { timeMs: time(), ...made, seq: next });
    },
    send: (command) => handlers?.onCommand(wire.EdgeCommand.decode(wire.EdgeCommand.encode(command).finish())),
    end: (end) => handlers?.onEnd({ status: 0, message: "", refusal: null, ...end }),
  };
  return rogue;
}

export type HelloBody = aegis.cluster.v1.SealHello.$Properties;

export interface RogueDaemon {
  /** Everything the controller sent on the last stream. */
  commands: EdgeCommand[];
  ended: StreamEnd | null;
  secrets: SessionSecrets;
  /** Opens a stream. */
  dial(): Promise<void>;
  /** `body` replaces parts of what is signed. */
  hello(options?: { body?: HelloBody; signer?: SigningKey; token?: string }): HeardEvent;
  /** The next frame in order, unless told otherwise. Agrees on the session at the first. */
  frame(kind: FrameKind, body: Uint8Array, made?: Partial<Craft>): Frame;
  send(event: aegis.cluster.v1.EdgeEvent.$Properties): void;
  hangUp(): void;
}

export function rogueDaemon(
  link: ControllerLink,
  strict: StrictKeys,
  identity: HostIdentity,
  time: () => number,
): RogueDaemon {
  const { nodeId, nodeKey, nodeToken } = identity;
  let stream: EdgeStream | null = null;
  let own: KeyObject | null = null;
  let seq = 0;
  let said = { nodeId, streamId: "", sealHello: new Uint8Array() };
  const rogue: RogueDaemon = {
    commands: [],
    ended: null,
    secrets: { nodeId, sessionId: new Uint8Array(), toController: new Uint8Array(), toDaemon: new Uint8Array() },
    async dial() {
      seq = 0;
      rogue.secrets = { ...rogue.secrets, sessionId: new Uint8Array() };
      rogue.commands.length = 0;
      rogue.ended = null;
      const handlers: StreamHandlers = {
        onCommand: (command) => void rogue.commands.push(command),
        onEnd(end) {
          rogue.ended = end;
        },
      };
      stream = await link.open(handlers, new AbortController().signal);
    },
    hello({ body: given, signer = nodeKey, token = nodeToken } = {}) {
      const pair = generateKeyPairSync("x25519");
      own = pair.privateKey;
      const body: HelloBody = {
        versions: [1],
        daemonNonce: randomBytes(32),
        x25519: rawShare(pair.publicKey),
        controllerId: uuidBytes(strict.controllerId) ?? new Uint8Array(),
        keysetVersion: toLong(strict.keyset.version),
        capabilities: capabilitiesBytes("web-1"),
        softwareVersion: "rogue",
        wallMs: toLong(time()),
        ...given,
      };
      const sealHello = wire.SealHello.encode(body).finish() as Uint8Array<ArrayBuffer>;
      const streamId = crypto.randomUUID();
      said = { nodeId, streamId, sealHello };
      const hello = {
        envelope: { nodeSecurityToken: token },
        streamId,
        sealHello,
        sealHelloSignature: signer.sign(statement("hello", said)),
      };
      return wire.EdgeEvent.decode(wire.EdgeEvent.encode({ hello }).finish());
    },
    frame(kind, body, made = {}) {
      const accept = rogue.commands[0];
      if (rogue.secrets.sessionId.length === 0 && accept && own) {
        const acceptBody = frameOf(accept).body;
        const agreed = agree(own, wire.SealAccept.decode(acceptBody).x25519, { ...said, acceptBody });
        if (!agreed) throw new Error("no agreement");
        rogue.secrets = agreed;
      }
      const next = made.seq ?? seq;
      seq = next + 1;
      return craft(kind, body, rogue.secrets, nodeKey, { timeMs: time(), ...made, seq: next });
    },
    send: (event) => void stream?.send(event),
    hangUp: () => stream?.close(),
  };
  return rogue;
}
