/** One direction, one number, one kind of proof: each frame opens at its place and nowhere else. */
import { describe, expect, test } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import {
  controllerChannel,
  daemonChannel,
  type Frame,
  type FrameKind,
  frameHeader,
  frameKinds,
  maxBodyBytes,
} from "./frame.ts";
import { importSigningKey, newSeed, type PublicKey } from "./public-key.ts";

const nodeId = "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b";
const nodeKey = importSigningKey(newSeed());
const commandKey = importSigningKey(newSeed());
const secrets = {
  nodeId,
  sessionId: randomBytes(32),
  toController: randomBytes(32),
  toDaemon: randomBytes(32),
};
const kinds = Object.keys(frameKinds) as FrameKind[];
const first = (kind: FrameKind) => kind === "accept" || kind === "confirm";

/** Both ends after the handshake's own frames, which is where every other kind belongs. */
function ends(begun = true) {
  const daemon = daemonChannel(secrets, nodeKey, commandKey);
  const controller = controllerChannel(secrets, commandKey, nodeKey);
  if (begun) {
    daemon.open(controller.seal("accept", new Uint8Array(), 0));
    controller.open(daemon.seal("confirm", new Uint8Array(), 0));
  }
  return { daemon, controller };
}

/** A frame of this kind at its place, and the end that is to open it. */
function atItsPlace(kind: FrameKind) {
  const { daemon, controller } = ends(!first(kind));
  const [from, to] = frameKinds[kind].direction === "c2d" ? [controller, daemon] : [daemon, controller];
  return { frame: from.seal(kind as never, Buffer.from("a body"), 1_767_225_600_123), to };
}

/** The same frame, authenticated over a header that somebody changed. */
function withHeader(kind: FrameKind, frame: Frame, change: (header: Buffer) => void): Frame {
  const header = Buffer.from(
    frameHeader(kind, { nodeId, sessionId: secrets.sessionId, seq: frame.seq, timeMs: frame.timeMs, body: frame.body }),
  );
  change(header);
  const { direction, auth } = frameKinds[kind];
  const down = direction === "c2d";
  const mac = () =>
    createHmac("sha256", down ? secrets.toDaemon : secrets.toController)
      .update(header)
      .digest();
  return { ...frame, auth: auth === "mac" ? mac() : (down ? commandKey : nodeKey).sign(header) };
}

describe("every kind of frame", () => {
  for (const kind of kinds) {
    test(`${kind}: opens at its place`, () => {
      const { frame, to } = atItsPlace(kind);
      expect(to.open(frame)).toMatchObject({ kind: "frame", frame: kind, timeMs: frame.timeMs });
    });

    // One signed and one authenticated kind each way: the header is the same for all.
    if (["command", "ack", "confirm", "heartbeat"].includes(kind))
      test(`01 ${kind}: a proof over a header with any one bit flipped is none`, () => {
        for (let bit = 0; bit < 110 * 8; bit++) {
          const { frame, to } = atItsPlace(kind);
          const spoilt = withHeader(kind, frame, (header) => {
            header[bit >> 3] = (header[bit >> 3] ?? 0) ^ (1 << (bit & 7));
          });
          expect([bit, to.open(spoilt)]).toEqual([bit, { kind: "refused", reason: "authentication" }]);
        }
      });

    test(`01 ${kind}: any one bit of its proof flipped`, () => {
      const { auth } = atItsPlace(kind).frame;
      for (let bit = 0; bit < auth.length * 8; bit++) {
        const { frame, to } = atItsPlace(kind);
        frame.auth[bit >> 3] = (frame.auth[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect([bit, to.open(frame)]).toEqual([bit, { kind: "refused", reason: "authentication" }]);
      }
    });

    test(`04 ${kind}: the proof of the other sort, with the right key, is none`, () => {
      const { frame, to } = atItsPlace(kind);
      const { direction, auth } = frameKinds[kind];
      const down = direction === "c2d";
      const header = frameHeader(kind, { ...frame, nodeId, sessionId: secrets.sessionId });
      const macKey = down ? secrets.toDaemon : secrets.toController;
      const other =
        auth === "mac"
          ? (down ? commandKey : nodeKey).sign(header)
          : createHmac("sha256", macKey).update(header).digest();
      expect(to.open({ ...frame, auth: other })).toEqual({ kind: "refused", reason: "authentication" });
    });

    test(`03 ${kind}: a proof cut or lengthened by one byte is none`, () => {
      for (const change of [
        (auth: Uint8Array) => auth.subarray(0, -1),
        (auth: Uint8Array) => Buffer.concat([auth, Buffer.from([0])]),
      ]) {
        const { frame, to } = atItsPlace(kind);
        expect(to.open({ ...frame, auth: change(frame.auth) })).toEqual({ kind: "refused", reason: "authentication" });
      }
    });
  }

  test("10 is refused by the end that says it", () => {
    for (const kind of kinds) {
      const { frame } = atItsPlace(kind);
      const { daemon, controller } = ends(!first(kind));
      const from = frameKinds[kind].direction === "c2d" ? controller : daemon;
      expect([kind, from.open(frame)]).toEqual([kind, { kind: "refused", reason: "wrong_direction" }]);
    }
  });

  test("numbers that belong to no kind are refused, 0x13 of a later version among them", () => {
    const known = new Set<number>(kinds.map((kind) => frameKinds[kind].number));
    for (let number = 0; number < 256; number++) {
      if (known.has(number)) continue;
      const { frame, to } = atItsPlace("heartbeat");
      expect([number, to.open({ ...frame, kind: number })]).toEqual([
        number,
        { kind: "refused", reason: "unknown_kind" },
      ]);
    }
  });
});

describe("the first frame", () => {
  test("16 is the handshake's and comes once", () => {
    const { daemon, controller } = ends(false);
    expect(daemon.open(controller.seal("command", new Uint8Array(), 0))).toMatchObject({ reason: "sequence" });
    const begun = ends();
    expect(begun.daemon.open(begun.controller.seal("accept", new Uint8Array(), 0))).toMatchObject({
      reason: "sequence",
    });
    expect(begun.controller.open(begun.daemon.seal("confirm", new Uint8Array(), 0))).toMatchObject({
      reason: "sequence",
    });
  });
});

describe("after a failure", () => {
  test("nothing opens any more, not even what would have", () => {
    const { daemon, controller } = ends();
    const good = controller.seal("ack", new Uint8Array(), 0);
    expect(daemon.open({ ...good, seq: good.seq + 1 })).toMatchObject({ reason: "sequence" });
    expect(daemon.open(good)).toEqual({ kind: "refused", reason: "session_ended" });
  });
});

describe("20 a body over the limit", () => {
  /** Has a length and nothing else: whoever hashes it, or looks at one byte, throws. */
  const untouchable = { length: maxBodyBytes + 1 } as Uint8Array;

  test("20 is refused before it is hashed", () => {
    for (const kind of kinds) {
      const { frame, to } = atItsPlace(kind);
      expect(to.open({ ...frame, body: untouchable })).toEqual({ kind: "refused", reason: "body_too_large" });
    }
  });

  test("is never sealed, and takes no number", () => {
    const { daemon, controller } = ends();
    expect(() => controller.seal("command", new Uint8Array(maxBodyBytes + 1), 0)).toThrow(RangeError);
    expect(daemon.open(controller.seal("command", new Uint8Array(maxBodyBytes), 0)).kind).toBe("frame");
  });
});

test("a time that no number holds exactly is refused", () => {
  for (const timeMs of [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
    const { frame, to } = atItsPlace("heartbeat");
    expect(to.open({ ...frame, timeMs })).toEqual({ kind: "refused", reason: "malformed" });
  }
});

test("keys of another session open nothing", () => {
  const { daemon } = ends();
  const others = { ...secrets, toDaemon: randomBytes(32), toController: randomBytes(32) };
  const elsewhere = controllerChannel(others, commandKey, nodeKey);
  elsewhere.seal("accept", new Uint8Array(), 0);
  expect(daemon.open(elsewhere.seal("ack", new Uint8Array(), 0))).toMatchObject({ reason: "authentication" });
});

test("a signature is asked of the peer's key and no other", () => {
  const other: PublicKey = importSigningKey(newSeed());
  const daemon = daemonChannel(secrets, nodeKey, other);
  const controller = controllerChannel(secrets, commandKey, nodeKey);
  expect(daemon.open(controller.seal("accept", new Uint8Array(), 0))).toMatchObject({ reason: "authentication" });
});
