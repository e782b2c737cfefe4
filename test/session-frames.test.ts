/** No frame that is not exactly the next one, from exactly the other end of this session, has any effect. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import type { Frame } from "../src/envelope/frame.ts";
import { maxBodyBytes } from "../src/envelope/frame.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { toLong } from "../src/wire/whole.ts";
import { frameOf, sealed } from "./support/rogue.ts";
import { settled } from "./support/scripted-host.ts";
import { controllerStage, daemonStage } from "./support/stages.ts";
import { causeOf } from "./support/strict-daemon.ts";
import { strictPair } from "./support/strict-pair.ts";

const wire = aegis.cluster.v1;

/** The fields of a frame that travel beside the body, with every bit that a field may have. */
const headerBits = [
  ...Array.from({ length: 8 }, (_, bit) => ["kind", bit] as const),
  ...Array.from({ length: 53 }, (_, bit) => ["seq", bit] as const),
  ...Array.from({ length: 53 }, (_, bit) => ["timeMs", bit] as const),
];

const flipNumber = (value: number, bit: number): number => Number(BigInt(value) ^ (1n << BigInt(bit)));

function flipByte(bytes: Uint8Array, at: number, bit = 0): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ (1 << bit);
  return copy;
}

const heartbeat = wire.HeartbeatEvent.encode({ activeInvocations: 3 }).finish();

/** A COMMAND changed on its way to a daemon ends the session, and nothing runs. */
async function daemonRefuses(spoil: (frame: Frame, stage: ReturnType<typeof daemonStage>) => Frame[], reason: RegExp) {
  const stage = daemonStage();
  const session = await stage.begin();
  for (const frame of spoil(stage.rogue.frame("command", stage.invoke()), stage)) stage.rogue.send(sealed(frame));
  await settled();
  expect(causeOf(await session.ended)).toMatch(reason);
  expect(stage.rogue.closed).toBe(true);
  return stage;
}

/** A frame changed on its way to the controller ends the session there. */
async function controllerRefuses(
  spoil: (stage: Awaited<ReturnType<typeof controllerStage>>) => Frame[],
  reason: string,
): Promise<void> {
  const stage = await controllerStage();
  await stage.begin();
  const { nodeId } = stage.identity;
  for (const frame of spoil(stage)) stage.rogue.send(sealed(frame));
  await settled();
  expect(stage.log.find("seal_frame")).toMatchObject({ node_id: nodeId, reason });
  expect(stage.sessions.get(nodeId)).toBeUndefined();
  expect(stage.rogue.ended).not.toBeNull();
}

describe("01 each bit of a frame's header fields, flipped", () => {
  test("01 to the daemon: nothing runs", async () => {
    for (const [field, bit] of headerBits) {
      const change = (frame: Frame) => [{ ...frame, [field]: flipNumber(frame[field], bit) }];
      const { daemon } = await daemonRefuses(change, /^seal_frame: /);
      expect(daemon.tool.runs).toHaveLength(0);
    }
  });

  test("01 to the controller: no heartbeat counts", async () => {
    for (const [field, bit] of headerBits) {
      const stage = await controllerStage();
      await stage.begin();
      const live = stage.sessions.get(stage.identity.nodeId);
      const frame = stage.rogue.frame("heartbeat", heartbeat);
      stage.rogue.send(sealed({ ...frame, [field]: flipNumber(frame[field], bit) }));
      await settled();
      expect(stage.log.find("seal_frame")).toBeDefined();
      expect(live?.activeCalls).toBe(0);
      expect(stage.sessions.size).toBe(0);
    }
  });
});

describe("02 a body byte flipped", () => {
  test("02 to the daemon: each byte of a COMMAND", async () => {
    const length = daemonStage().invoke().length;
    for (let at = 0; at < length; at += 17) {
      const stage = await daemonRefuses((frame) => [{ ...frame, body: flipByte(frame.body, at) }], /authentication/);
      expect(stage.daemon.tool.runs).toHaveLength(0);
    }
  });

  test("02 to the controller: a RESULT is not stored, and its call is told so", async () => {
    const pair = await strictPair();
    await pair.connected();
    pair.relay.up = (event, forward) => {
      const frame = event.sealed;
      if (frame?.kind === 0x23) frame.body = flipByte(frame.body ?? new Uint8Array(), 20);
      forward(event);
    };
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    pair.daemon.tool.runs[0]?.end();
    expect(await call.result).toMatchObject({ outcome: "edge_disconnected", receipt: "missing" });
    expect(await pair.store.command(call.commandId)).toMatchObject({ result: null, receipt: "missing" });
    expect(pair.daemon.outbox.waiting).toBe(1);
  });
});

describe("03 a MAC cut to 31 bytes", () => {
  const cut = (right: Uint8Array) => right.subarray(0, 31);
  test("03 to the daemon", async () => {
    const body = wire.Ack.encode({ commandId: [randomUUID()] }).finish();
    await daemonRefuses((_, { rogue }) => [rogue.frame("ack", body, { seq: 1, auth: cut })], /authentication/);
  });
  test("03 to the controller", () =>
    controllerRefuses(({ rogue }) => [rogue.frame("heartbeat", heartbeat, { auth: cut })], "authentication"));
  test("03 none at all, either way", async () => {
    const nothing = () => new Uint8Array();
    const body = wire.Ack.encode({ commandId: [randomUUID()] }).finish();
    await daemonRefuses((_, { rogue }) => [rogue.frame("ack", body, { seq: 1, auth: nothing })], /authentication/);
    await controllerRefuses(({ rogue }) => [rogue.frame("heartbeat", heartbeat, { auth: nothing })], "authentication");
  });
});

describe("04 a MAC where a signature is due, and the reverse, by ends that have both keys", () => {
  test("04 COMMAND with a MAC", async () => {
    const { daemon } = await daemonRefuses(
      (_, { rogue, invoke }) => [rogue.frame("command", invoke(), { seq: 1, auth: "mac" })],
      /authentication/,
    );
    expect(daemon.tool.runs).toHaveLength(0);
  });
  test("04 CREDIT with a signature", async () => {
    const body = wire.Credit.encode({ commandId: randomUUID(), limit: toLong(1) }).finish();
    await daemonRefuses(
      (_, { rogue }) => [rogue.frame("credit", body, { seq: 1, auth: "signature" })],
      /authentication/,
    );
  });
  test("04 HEARTBEAT with a signature", () =>
    controllerRefuses(({ rogue }) => [rogue.frame("heartbeat", heartbeat, { auth: "signature" })], "authentication"));
  test("04 CONFIRM with a MAC makes no session", async () => {
    const stage = await controllerStage();
    await stage.begin(false);
    const confirm = wire.SealConfirm.encode({}).finish();
    stage.rogue.send(sealed(stage.rogue.frame("confirm", confirm, { auth: "mac" })));
    await settled();
    expect(stage.log.find("seal_frame")).toMatchObject({ reason: "authentication" });
    expect(stage.sessions.size).toBe(0);
  });
});

describe("the order of frames", () => {
  test("05 a number repeated: the recording of a COMMAND runs nothing", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    pair.relay.down = (command, forward) => {
      forward(command);
      if (command.sealed?.kind === 0x11) forward(command);
    };
    const call = pair.call({ nodeId: pair.identity.nodeId });
    expect(causeOf(await session.ended)).toMatch(/sequence/);
    expect(pair.daemon.tool.runs).toHaveLength(1);
    expect(await call.result).toMatchObject({ outcome: "edge_disconnected" });
  });

  test("05 a number repeated: the recording of a HEARTBEAT keeps no dead host alive", () =>
    controllerRefuses(({ rogue }) => {
      const frame = rogue.frame("heartbeat", heartbeat);
      return [frame, frame];
    }, "sequence"));

  test("06 a number skipped", async () => {
    const { daemon } = await daemonRefuses(
      (_, { rogue, invoke }) => [rogue.frame("command", invoke(), { seq: 2 })],
      /sequence/,
    );
    expect(daemon.tool.runs).toHaveLength(0);
    await controllerRefuses(({ rogue }) => [rogue.frame("heartbeat", heartbeat, { seq: 2 })], "sequence");
  });

  test("06 a frame dropped by a relay ends the session at the next one", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    let drop = true;
    pair.relay.down = (command, forward) => {
      if (!drop) forward(command);
      drop = false;
    };
    const { nodeId } = pair.identity;
    const calls = [pair.call({ nodeId }), pair.call({ nodeId })];
    expect(causeOf(await session.ended)).toMatch(/sequence/);
    expect(pair.daemon.tool.runs).toHaveLength(0);
    for (const call of calls) expect((await call.result).outcome).toBe("edge_disconnected");
  });

  test("07 two frames swapped", async () => {
    const { daemon } = await daemonRefuses((frame, { rogue, invoke }) => {
      return [rogue.frame("command", invoke(), { seq: 2 }), frame];
    }, /sequence/);
    expect(daemon.tool.runs).toHaveLength(0);
    await controllerRefuses(
      ({ rogue }) => [rogue.frame("heartbeat", heartbeat), rogue.frame("heartbeat", heartbeat)].reverse(),
      "sequence",
    );
  });
});

describe("frames of other places", () => {
  test("08 a COMMAND of another session of the same node", async () => {
    const stage = daemonStage();
    const first = await stage.begin();
    const recorded = stage.rogue.frame("command", stage.invoke());
    first.stop();
    await first.ended;
    const second = await stage.begin();
    stage.rogue.send(sealed(recorded));
    expect(causeOf(await second.ended)).toMatch(/authentication/);
    expect(stage.daemon.tool.runs).toHaveLength(0);
  });

  test("08 a RESULT of another session of the same node", async () => {
    const stage = await controllerStage();
    await stage.begin();
    const recorded = stage.rogue.frame("heartbeat", heartbeat);
    stage.rogue.hangUp();
    await stage.begin();
    stage.rogue.send(sealed(recorded));
    await settled();
    expect(stage.log.find("seal_frame")).toMatchObject({ reason: "authentication" });
    expect(stage.sessions.size).toBe(0);
  });

  test("09 a frame for another node, with the keys of this session", async () => {
    const nodeId = randomUUID();
    const { daemon } = await daemonRefuses(
      (_, { rogue, invoke }) => [rogue.frame("command", invoke(), { seq: 1, nodeId })],
      /authentication/,
    );
    expect(daemon.tool.runs).toHaveLength(0);
    await controllerRefuses(({ rogue }) => [rogue.frame("heartbeat", heartbeat, { nodeId })], "authentication");
  });

  test("10 the daemon's own frame, reflected", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    let back: ((frame: Frame) => void) | null = null;
    pair.relay.down = (_command, forward) => {
      back = (frame) => forward(sealed(frame));
    };
    pair.relay.up = (event) => back?.({ ...frameOf(event), seq: 1 });
    pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    await pair.pass(30_000);
    expect(causeOf(await session.ended)).toMatch(/wrong_direction/);
  });

  test("10 the controller's own frame, reflected", async () => {
    const stage = await controllerStage();
    await stage.begin();
    const body = wire.Ack.encode({ commandId: [randomUUID()] }).finish();
    // With the controller's own keys of this session, so that only the direction is wrong.
    stage.rogue.send(sealed(stage.rogue.frame("ack", body)));
    await settled();
    expect(stage.log.find("seal_frame")).toMatchObject({ reason: "wrong_direction" });
  });

  test("10 a MAC with the key of the other direction", async () => {
    const body = wire.Ack.encode({ commandId: [randomUUID()] }).finish();
    await daemonRefuses(
      (_, { rogue }) => [rogue.frame("ack", body, { seq: 1, macKey: rogue.secrets.toController })],
      /authentication/,
    );
  });
});

describe("messages that are not sealed", () => {
  test("15 an invoke of the base protocol on a strict session runs nothing and ends it", async () => {
    const stage = daemonStage();
    const session = await stage.begin();
    stage.rogue.send(wire.EdgeCommand.decode(stage.invoke()));
    expect(causeOf(await session.ended)).toMatch(/not sealed/);
    expect(stage.daemon.tool.runs).toHaveLength(0);
  });

  test("15 an invoke beside a sealed frame in one message is not read", async () => {
    const stage = daemonStage();
    await stage.begin();
    const { invokeTool } = wire.EdgeCommand.decode(stage.invoke());
    const body = wire.Ack.encode({ commandId: [randomUUID()] }).finish();
    if (invokeTool) stage.rogue.send({ invokeTool, ...sealed(stage.rogue.frame("ack", body)) });
    await settled();
    expect(stage.daemon.tool.runs).toHaveLength(0);
  });

  test("15 a heartbeat, a result and a second Hello of the base protocol end the session at the controller", async () => {
    const hello = (await controllerStage()).rogue.hello().hello ?? {};
    const events: aegis.cluster.v1.EdgeEvent.$Properties[] = [
      { heartbeat: { activeInvocations: 9 } },
      { commandResult: { commandId: randomUUID(), result: { ok: true } } },
      { hello },
      {},
    ];
    for (const event of events) {
      const stage = await controllerStage();
      await stage.begin();
      stage.rogue.send(event);
      await settled();
      expect(stage.sessions.size).toBe(0);
      expect(stage.rogue.ended).not.toBeNull();
    }
  });

  test("16 a sealed frame before ACCEPT", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    const accept = stage.rogue.accept();
    const command = stage.rogue.frame("command", stage.invoke());
    stage.rogue.send(sealed(command));
    stage.rogue.send(sealed(accept));
    expect(causeOf(await session.ended)).toMatch(/accept_expected/);
    expect(stage.daemon.tool.runs).toHaveLength(0);
  });

  test("16 a COMMAND with ACCEPT's number does not stand in for it", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    stage.rogue.accept();
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke(), { seq: 0 })));
    expect(causeOf(await session.ended)).toMatch(/accept_expected/);
  });

  test("16 any other frame in the place of CONFIRM makes no session", async () => {
    const stage = await controllerStage();
    await stage.begin(false);
    stage.rogue.send(sealed(stage.rogue.frame("heartbeat", heartbeat)));
    await settled();
    expect(stage.sessions.size).toBe(0);
    expect(stage.rogue.ended).not.toBeNull();
    expect((await stage.store.node(stage.identity.nodeId))?.connectedSince).toBeNull();
  });

  test("16 a second ACCEPT and a second CONFIRM end the session", async () => {
    const stage = daemonStage();
    const session = await stage.begin();
    const body = wire.SealAccept.encode({}).finish();
    stage.rogue.send(sealed(stage.rogue.frame("accept", body)));
    expect(causeOf(await session.ended)).toMatch(/sequence/);
    await controllerRefuses(({ rogue }) => [rogue.frame("confirm", wire.SealConfirm.encode({}).finish())], "sequence");
  });
});

describe("20 a body over the limit", () => {
  test("20 to the daemon", async () => {
    const body = new Uint8Array(maxBodyBytes + 1);
    await daemonRefuses((_, { rogue }) => [rogue.frame("command", body, { seq: 1 })], /body_too_large/);
  });
  test("20 to the controller", () =>
    controllerRefuses(({ rogue }) => [rogue.frame("result", new Uint8Array(maxBodyBytes + 1))], "body_too_large"));
  test("20 ACCEPT", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    stage.rogue.send(sealed(stage.rogue.accept({ body: { serverNonce: new Uint8Array(maxBodyBytes) } })));
    expect(causeOf(await session.ended)).toMatch(/accept_malformed/);
  });
});

describe("after a refused frame nothing is looked at", () => {
  test("a right frame behind a wrong one runs nothing", async () => {
    const { daemon } = await daemonRefuses(
      (frame, { rogue, invoke }) => [
        { ...frame, auth: flipByte(frame.auth, 0) },
        frame,
        rogue.frame("command", invoke()),
      ],
      /authentication/,
    );
    expect(daemon.tool.runs).toHaveLength(0);
  });

  test("the refused stream carries no more calls, also when its peer does not hang up", async () => {
    const stage = await controllerStage();
    await stage.begin();
    stage.rogue.send(sealed(stage.rogue.frame("heartbeat", heartbeat, { seq: 5 })));
    await settled();
    const call = stage.call({ nodeId: stage.identity.nodeId });
    expect(await call.result).toMatchObject({ errorMessage: "the host has no stream; nothing was sent" });
    expect(stage.rogue.commands).toHaveLength(1);
  });
});
