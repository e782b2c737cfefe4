/** What a host answered: kept once, proved by its receipt, and acknowledged only when it is in the store. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { importSigningKey, newSeed, type SigningKey } from "../src/envelope/public-key.ts";
import { progressChain, signReceipt } from "../src/envelope/receipt.ts";
import { sha256 } from "../src/envelope/statement.ts";
import { limits } from "../src/platform/limits.ts";
import type { Store } from "../src/store/store.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { toLong } from "../src/wire/whole.ts";
import { honestRelay, memoryLink } from "./support/memory-link.ts";
import { mixedOrderKey } from "./support/mixed-order.ts";
import { frameOf, type RogueDaemon, rogueDaemon, sealed } from "./support/rogue.ts";
import { settled } from "./support/scripted-host.ts";
import { type ControllerStage, controllerStage, daemonStage } from "./support/stages.ts";
import { causeOf } from "./support/strict-daemon.ts";
import { hostIdentity, newKey } from "./support/strict-keys.ts";
import { callRequest, strictPair } from "./support/strict-pair.ts";

const wire = aegis.cluster.v1;

/** A host whose COMMAND has arrived and who has not answered yet. */
async function asked() {
  const stage = await controllerStage();
  await stage.begin();
  const call = stage.call({ nodeId: stage.identity.nodeId });
  await settled();
  return { stage, call, commandBody: frameOf(lastCommand(stage.rogue)).body };
}

function lastCommand(rogue: RogueDaemon) {
  const command = rogue.commands.findLast((one) => one.sealed?.kind === 0x11);
  if (!command) throw new Error("no COMMAND");
  return command;
}

type ResultBody = aegis.cluster.v1.CommandResultEvent.$Properties;

/** The body of a RESULT frame. */
function resultBody(
  key: SigningKey,
  nodeId: string,
  commandId: string,
  commandBody: Uint8Array,
  change: ResultBody = {},
): Uint8Array {
  const result = wire.CommandResultEvent.encode({
    commandId,
    result: { ok: true },
    progressChain: new Uint8Array(32),
    started: true,
    ...change,
  }).finish();
  const receiptSig = signReceipt(key, { nodeId, commandId, commandBody, result });
  return wire.SealedResult.encode({ result, receiptSig, keyId: key.keyId }).finish();
}

const acknowledged = (rogue: RogueDaemon): string[] =>
  rogue.commands
    .filter((command) => command.sealed?.kind === 0x15)
    .flatMap((command) => wire.Ack.decode(frameOf(command).body).commandId);

async function answer(stage: ControllerStage, body: Uint8Array): Promise<void> {
  stage.rogue.send(sealed(stage.rogue.frame("result", body)));
  await settled();
}

test("a result is stored with its proof before it is acknowledged", async () => {
  const { stage, call, commandBody } = await asked();
  const { nodeKey, nodeId } = stage.identity;
  await answer(stage, resultBody(nodeKey, nodeId, call.commandId, commandBody));
  expect(await call.result).toMatchObject({ ok: true, receipt: "verified", output: "complete" });
  expect(acknowledged(stage.rogue)).toEqual([call.commandId]);
  const row = await stage.store.command(call.commandId);
  expect(row).toMatchObject({ outcome: "ok", receipt: "verified", outputComplete: true });
  expect(row?.commandDigest).toEqual(Buffer.from(sha256(commandBody)));
});

test("a result is told as soon as the store has it, and acknowledged when the disk has it too", async () => {
  const { stage, call, commandBody } = await asked();
  const disk = Promise.withResolvers<void>();
  stage.store.synced = () => disk.promise;
  const { nodeKey, nodeId } = stage.identity;
  await answer(stage, resultBody(nodeKey, nodeId, call.commandId, commandBody));
  expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });
  expect(await stage.store.command(call.commandId)).toMatchObject({ outcome: "ok" });
  expect(acknowledged(stage.rogue)).toEqual([]);
  disk.resolve();
  await settled();
  expect(acknowledged(stage.rogue)).toEqual([call.commandId]);
});

test("a result that comes again on the next stream is not acknowledged either before the disk has it", async () => {
  const { stage, call, commandBody } = await asked();
  const disk = Promise.withResolvers<void>();
  stage.store.synced = () => disk.promise;
  const { nodeKey, nodeId } = stage.identity;
  const body = resultBody(nodeKey, nodeId, call.commandId, commandBody);
  await answer(stage, body);
  await call.result;
  await answer(stage, body);
  expect(acknowledged(stage.rogue)).toEqual([]);
  disk.resolve();
  await settled();
  expect(acknowledged(stage.rogue)).toEqual([call.commandId, call.commandId]);
});

describe("68 a result from where nothing was asked", () => {
  test("68 from another node of the tenant", async () => {
    const { stage, call, commandBody } = await asked();
    const identity = hostIdentity(stage.strict, stage.time());
    await stage.enroll(identity);
    const link = memoryLink({ doorman: () => stage.doorman, relay: honestRelay(), log: stage.log });
    const other = rogueDaemon(link, stage.strict, identity, stage.time);
    await other.dial();
    other.send(other.hello());
    await settled();
    other.send(sealed(other.frame("confirm", wire.SealConfirm.encode({}).finish())));
    // Its own receipt, and one that names the node that was asked.
    for (const nodeId of [identity.nodeId, stage.identity.nodeId])
      other.send(sealed(other.frame("result", resultBody(identity.nodeKey, nodeId, call.commandId, commandBody))));
    await settled();
    expect(stage.log.events().filter((event) => event === "result_of_no_command")).toHaveLength(2);
    expect(await stage.store.command(call.commandId)).toMatchObject({ endedAt: null, result: null });
    expect(call.events).toHaveLength(0);
    expect(acknowledged(other)).toEqual([]);

    const { nodeKey, nodeId } = stage.identity;
    await answer(stage, resultBody(nodeKey, nodeId, call.commandId, commandBody));
    expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });
  });

  test("68 live output from another node reaches nobody", async () => {
    const { stage, call } = await asked();
    const identity = hostIdentity(stage.strict, stage.time());
    await stage.enroll(identity);
    const link = memoryLink({ doorman: () => stage.doorman, relay: honestRelay(), log: stage.log });
    const other = rogueDaemon(link, stage.strict, identity, stage.time);
    await other.dial();
    other.send(other.hello());
    await settled();
    other.send(sealed(other.frame("confirm", wire.SealConfirm.encode({}).finish())));
    const body = wire.CommandProgressEvent.encode({ commandId: call.commandId, chunk: Buffer.from("x") }).finish();
    other.send(sealed(other.frame("progress", body)));
    await settled();
    expect(call.events).toHaveLength(0);
  });

  test("68 from another session of the same node: the call has ended, the result is kept as a late one", async () => {
    const { stage, call, commandBody } = await asked();
    await stage.begin();
    expect(await call.result).toMatchObject({ outcome: "edge_disconnected", receipt: "missing" });
    const { nodeKey, nodeId } = stage.identity;
    const body = resultBody(nodeKey, nodeId, call.commandId, commandBody);
    await answer(stage, body);
    expect(call.events).toHaveLength(1);
    expect(await stage.store.command(call.commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
    expect(stage.log.find("late_result")).toMatchObject({ command_id: call.commandId });
    expect(acknowledged(stage.rogue)).toEqual([call.commandId]);
  });

  test("68 for a command that nobody gave", async () => {
    const { stage } = await asked();
    const { nodeKey, nodeId } = stage.identity;
    await answer(stage, resultBody(nodeKey, nodeId, randomUUID(), Buffer.from("x")));
    expect(stage.log.find("result_of_no_command")).toBeDefined();
    expect(acknowledged(stage.rogue)).toEqual([]);
    expect(stage.sessions.size).toBe(1);
  });
});

describe("70 a receipt that is not of this command and this result", () => {
  const spoilt: Array<[what: string, (stage: ControllerStage, commandId: string, body: Uint8Array) => Uint8Array]> = [
    [
      "of another command's digest",
      ({ identity: { nodeKey, nodeId } }, commandId, commandBody) =>
        resultBody(nodeKey, nodeId, commandId, Buffer.concat([commandBody, Buffer.from([0])])),
    ],
    [
      "of another node",
      ({ identity: { nodeKey } }, commandId, commandBody) => resultBody(nodeKey, randomUUID(), commandId, commandBody),
    ],
    [
      "by another key",
      ({ identity: { nodeId } }, commandId, commandBody) => resultBody(newKey(), nodeId, commandId, commandBody),
    ],
    [
      "of another result",
      ({ identity: { nodeKey, nodeId } }, commandId, commandBody) => {
        const right = wire.SealedResult.decode(resultBody(nodeKey, nodeId, commandId, commandBody));
        const wrong = wire.SealedResult.decode(
          resultBody(nodeKey, nodeId, commandId, commandBody, { result: { ok: false } }),
        );
        return wire.SealedResult.encode({ ...right, receiptSig: wrong.receiptSig }).finish();
      },
    ],
    [
      "by the right key, naming another",
      ({ identity: { nodeKey, nodeId } }, commandId, commandBody) => {
        const right = wire.SealedResult.decode(resultBody(nodeKey, nodeId, commandId, commandBody));
        return wire.SealedResult.encode({ ...right, keyId: newKey().keyId }).finish();
      },
    ],
    [
      "without a signature",
      ({ identity: { nodeKey, nodeId } }, commandId, commandBody) => {
        const right = wire.SealedResult.decode(resultBody(nodeKey, nodeId, commandId, commandBody));
        return wire.SealedResult.encode({ ...right, receiptSig: new Uint8Array() }).finish();
      },
    ],
  ];
  for (const [what, make] of spoilt) {
    test(`70 ${what}: reported as invalid, never as verified`, async () => {
      const { stage, call, commandBody } = await asked();
      await answer(stage, make(stage, call.commandId, commandBody));
      expect(await call.result).toMatchObject({ receipt: "invalid" });
      expect(await stage.store.command(call.commandId)).toMatchObject({ receipt: "invalid" });
      expect(stage.log.find("receipt_invalid")).toMatchObject({ command_id: call.commandId });
    });

    test(`70 ${what}, late: not kept, and not acknowledged`, async () => {
      const { stage, call, commandBody } = await asked();
      await stage.begin();
      await call.result;
      await answer(stage, make(stage, call.commandId, commandBody));
      expect(await stage.store.command(call.commandId)).toMatchObject({ result: null, receipt: "missing" });
      expect(stage.log.find("receipt_invalid")).toMatchObject({ command_id: call.commandId, late: true });
      expect(acknowledged(stage.rogue)).toEqual([]);
    });
  }
});

describe("71 two results of one command", () => {
  const bodies = ({ stage, call, commandBody }: Awaited<ReturnType<typeof asked>>) => {
    const { nodeKey, nodeId } = stage.identity;
    return {
      first: resultBody(nodeKey, nodeId, call.commandId, commandBody),
      other: resultBody(nodeKey, nodeId, call.commandId, commandBody, { result: { ok: false, errorKind: "signal" } }),
    };
  };

  test("71 another receipt is an alarm, and the first stays", async () => {
    const begun = await asked();
    const { stage, call } = begun;
    const { first, other } = bodies(begun);
    await answer(stage, first);
    await answer(stage, other);
    expect(stage.log.find("receipt_conflict")).toMatchObject({ command_id: call.commandId });
    expect((await call.result).ok).toBe(true);
    expect(await stage.store.command(call.commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
    expect(acknowledged(stage.rogue)).toEqual([call.commandId]);
  });

  test("71 both at once", async () => {
    const begun = await asked();
    const { stage, call } = begun;
    const { first, other } = bodies(begun);
    for (const body of [first, other]) stage.rogue.send(sealed(stage.rogue.frame("result", body)));
    await settled();
    expect(stage.log.find("receipt_conflict")).toBeDefined();
    expect(await stage.store.command(call.commandId)).toMatchObject({ outcome: "ok" });
  });

  test("71 both late and at once", async () => {
    const begun = await asked();
    const { stage, call } = begun;
    const { first, other } = bodies(begun);
    await stage.begin();
    await call.result;
    for (const body of [first, other]) stage.rogue.send(sealed(stage.rogue.frame("result", body)));
    await settled();
    expect(stage.log.find("receipt_conflict")).toBeDefined();
    expect(await stage.store.command(call.commandId)).toMatchObject({ outcome: "ok" });
    expect(acknowledged(stage.rogue)).toEqual([call.commandId]);
  });

  test("71 the same again is acknowledged again, also on another session", async () => {
    const begun = await asked();
    const { stage, call } = begun;
    const { first } = bodies(begun);
    await answer(stage, first);
    await answer(stage, first);
    expect(acknowledged(stage.rogue)).toEqual([call.commandId, call.commandId]);
    await stage.begin();
    await answer(stage, first);
    expect(acknowledged(stage.rogue)).toEqual([call.commandId]);
    expect(stage.log.find("receipt_conflict")).toBeUndefined();
  });
});

describe("72 live output that is not all the host sealed", () => {
  const progress = (commandId: string, chunk: string, sequence: number) =>
    wire.CommandProgressEvent.encode({ commandId, chunk: Buffer.from(chunk), sequence }).finish();

  /** The host seals `sealedBodies`, and of them only `sent` come. */
  async function outcome(sentBodies: number[], claimed: number[]) {
    const { stage, call, commandBody } = await asked();
    const { nodeKey, nodeId } = stage.identity;
    const bodies = ["one", "two", "three"].map((chunk, index) => progress(call.commandId, chunk, index));
    const chain = progressChain();
    for (const index of claimed) chain.add(bodies[index] ?? new Uint8Array());
    for (const index of sentBodies)
      stage.rogue.send(sealed(stage.rogue.frame("progress", bodies[index] ?? new Uint8Array())));
    const change = { progressFrames: toLong(chain.frames), progressChain: chain.value };
    await answer(stage, resultBody(nodeKey, nodeId, call.commandId, commandBody, change));
    return { result: await call.result, stage };
  }

  test("72 all of it: complete", async () => {
    const { result, stage } = await outcome([0, 1, 2], [0, 1, 2]);
    expect(result).toMatchObject({ receipt: "verified", output: "complete" });
    expect(stage.log.find("progress_chain_mismatch")).toBeUndefined();
  });

  const mismatches: Array<[what: string, sent: number[], claimed: number[]]> = [
    ["one frame removed", [0, 2], [0, 1, 2]],
    ["the last one removed", [0, 1], [0, 1, 2]],
    ["all of them removed", [], [0, 1, 2]],
    ["two swapped", [1, 0, 2], [0, 1, 2]],
    ["one more than was sealed", [0, 1, 2], [0, 1]],
    ["one replaced", [0, 0, 2], [0, 1, 2]],
  ];
  for (const [what, sent, claimed] of mismatches) {
    test(`72 ${what}: the mismatch is reported and the output incomplete`, async () => {
      const { result, stage } = await outcome(sent, claimed);
      expect(result).toMatchObject({ receipt: "verified", output: "incomplete" });
      expect(stage.log.find("progress_chain_mismatch")).toBeDefined();
    });
  }

  test("72 bytes the host says it dropped: incomplete, and nobody's fault", async () => {
    const { stage, call, commandBody } = await asked();
    const { nodeKey, nodeId } = stage.identity;
    const change = { progressDroppedBytes: toLong(1) };
    await answer(stage, resultBody(nodeKey, nodeId, call.commandId, commandBody, change));
    expect(await call.result).toMatchObject({ receipt: "verified", output: "incomplete" });
    expect(stage.log.find("progress_chain_mismatch")).toBeUndefined();
  });

  test("72 a call that wants no live output misses none", async () => {
    const pair = await strictPair();
    await pair.connected();
    const call = pair.call({ nodeId: pair.identity.nodeId, progress: false });
    await settled();
    await pair.daemon.tool.runs[0]?.context.output("stdout", Buffer.from("hello"));
    pair.daemon.tool.runs[0]?.end();
    expect(await call.result).toMatchObject({ ok: true, output: "complete" });
    expect(call.events).toHaveLength(1);
  });
});

describe("74 a signature whose R has a part of small order", () => {
  test("74 the daemon takes no ACCEPT and no COMMAND with one", async () => {
    const seed = newSeed();
    const command = importSigningKey(seed);
    const stage = daemonStage({ command });
    const signer = mixedOrderKey(seed);
    const first = await stage.begin(false);
    stage.rogue.send(sealed(stage.rogue.accept({ signer })));
    expect(causeOf(await first.ended)).toMatch(/accept_authentication/);
    const second = await stage.begin();
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke(), { signer })));
    expect(causeOf(await second.ended)).toMatch(/authentication/);
    expect(stage.daemon.tool.runs).toHaveLength(0);
  });

  test("74 the controller takes no Hello, no CONFIRM and no receipt with one", async () => {
    const seed = newSeed();
    const mixed = mixedOrderKey(seed);
    const nodeKey = importSigningKey(seed);
    const stage = await controllerStage({ nodeKey });
    await stage.rogue.dial();
    stage.rogue.send(stage.rogue.hello({ signer: mixed }));
    await settled();
    expect(stage.log.find("hello_refused")).toMatchObject({ reason: "hello_signature" });

    await stage.begin(false);
    stage.rogue.send(sealed(stage.rogue.frame("confirm", new Uint8Array(), { signer: mixed })));
    await settled();
    expect(stage.log.find("seal_frame")).toMatchObject({ reason: "authentication" });
    expect(stage.sessions.size).toBe(0);

    await stage.begin();
    const call = stage.call({ nodeId: stage.identity.nodeId });
    await settled();
    const { body } = frameOf(lastCommand(stage.rogue));
    await answer(stage, resultBody(mixed, stage.identity.nodeId, call.commandId, body));
    expect(await call.result).toMatchObject({ receipt: "invalid" });
  });
});

describe("results and the ends of sessions", () => {
  test("a result that comes while the host has no session waits for the next, and is acknowledged there", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    session.stop();
    await session.ended;
    expect(await call.result).toMatchObject({ outcome: "edge_disconnected" });
    pair.daemon.tool.runs[0]?.end({ exitCode: 7 });
    await settled();
    expect(pair.daemon.outbox.waiting).toBe(1);
    await pair.connected();
    await settled();
    expect(pair.daemon.outbox.waiting).toBe(0);
    expect(await pair.store.command(call.commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
  });

  test("an acknowledgement that was lost is sent again on the next session", async () => {
    const pair = await strictPair();
    const first = await pair.connected();
    pair.relay.down = (command, forward) => {
      if (command.sealed?.kind !== 0x15) forward(command);
    };
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    pair.daemon.tool.runs[0]?.end();
    expect((await call.result).ok).toBe(true);
    expect(pair.daemon.outbox.waiting).toBe(1);
    first.stop();
    await first.ended;
    pair.relay.down = (command, forward) => forward(command);
    await pair.connected();
    await settled();
    expect(pair.daemon.outbox.waiting).toBe(0);
    expect(pair.log.find("receipt_conflict")).toBeUndefined();
  });

  test("a store that fails while a result is kept: the caller is told, the host keeps it and it arrives late", async () => {
    let broken = false;
    const wrapStore = (store: Store): Store => ({
      ...store,
      transaction: (change) => (broken ? Promise.reject(new Error("disk full")) : store.transaction(change)),
    });
    const pair = await strictPair({ wrapStore });
    const session = await pair.connected();
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    broken = true;
    pair.daemon.tool.runs[0]?.end();
    // The dispatcher cannot write either; what matters is that nobody waits for ever.
    const told = call.result.then(
      () => "a result",
      (error: Error) => error.message,
    );
    expect(await told).toBe("disk full");
    expect(causeOf(await session.ended)).toBe("the controller closed the stream");
    expect(pair.log.find("result_not_stored")).toBeDefined();
    expect(pair.daemon.outbox.waiting).toBe(1);
    broken = false;
    await pair.connected();
    await settled();
    expect(pair.daemon.outbox.waiting).toBe(0);
    expect(await pair.store.command(call.commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
  });

  test("a result that came on a new stream is what a slow reader of the old one is told, and stays stored", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    const request = callRequest({ nodeId: pair.identity.nodeId });
    const reader = pair.dispatcher.call(request, new AbortController().signal)[Symbol.asyncIterator]();
    const first = reader.next();
    await settled();
    const [run] = pair.daemon.tool.runs;
    await run?.context.output("stdout", Buffer.from("x"));
    expect((await first).value).toMatchObject({ kind: "progress" });
    session.stop();
    await session.ended;
    run?.end({ exitCode: 0 });
    await pair.connected();
    await settled();
    expect((await reader.next()).value).toMatchObject({ kind: "result", ok: true, late: true, receipt: "verified" });
    expect(await pair.store.command(request.commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
  });

  test("a newer stream ends the calls of the older one at once, though its peer does not hang up", async () => {
    const { stage, call } = await asked();
    const link = memoryLink({ doorman: () => stage.doorman, relay: honestRelay(), log: stage.log });
    const newer = rogueDaemon(link, stage.strict, stage.identity, stage.time);
    await newer.dial();
    newer.send(newer.hello());
    await settled();
    newer.send(sealed(newer.frame("confirm", wire.SealConfirm.encode({}).finish())));
    expect(await call.result).toMatchObject({ outcome: "edge_disconnected" });
    await settled();
    const goodbye = stage.rogue.commands.findLast((command) => command.sealed?.kind === 0x14);
    expect(goodbye && wire.Goodbye.decode(frameOf(goodbye).body).reason).toBe(
      wire.GoodbyeReason.GOODBYE_REASON_REPLACED,
    );
    expect(stage.sessions.size).toBe(1);
    // The older one ends later, and takes nothing of the newer one with it.
    stage.rogue.hangUp();
    await settled();
    expect(stage.sessions.size).toBe(1);
    expect((await stage.store.node(stage.identity.nodeId))?.connectedSince).not.toBeNull();
  });
});

describe("live output", () => {
  test("comes in order, with its offsets, far beyond the first credit", async () => {
    const pair = await strictPair();
    await pair.connected();
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    const [run] = pair.daemon.tool.runs;
    const total = limits.creditPerCommandBytes * 2 + 12_345;
    const whole = Buffer.alloc(total, "0123456789");
    for (let at = 0; at < total; at += 300_000) {
      await run?.context.output("stdout", whole.subarray(at, at + 300_000));
      await settled();
    }
    run?.end();
    const result = await call.result;
    expect(result).toMatchObject({ output: "complete", receipt: "verified" });
    const chunks = call.events.flatMap((event) => (event.kind === "progress" ? [event] : []));
    expect(Buffer.concat(chunks.map(({ chunk }) => chunk)).equals(whole)).toBe(true);
    let at = 0;
    for (const { offset, chunk } of chunks) {
      expect(offset).toBe(at);
      at += chunk.length;
    }
  });

  test("beyond its credit ends the session: nothing else bounds what waits for a reader", async () => {
    const { stage, call } = await asked();
    const progress = (bytes: number) =>
      wire.CommandProgressEvent.encode({ commandId: call.commandId, chunk: new Uint8Array(bytes) }).finish();
    stage.rogue.send(sealed(stage.rogue.frame("progress", progress(limits.firstCreditBytes))));
    await settled();
    expect(stage.sessions.size).toBe(1);
    // What was taken is granted anew, and a whole window with it: one byte more is too many.
    for (const bytes of [limits.creditPerCommandBytes / 2, limits.creditPerCommandBytes / 2 + 1])
      stage.rogue.send(sealed(stage.rogue.frame("progress", progress(bytes))));
    expect((await call.result).outcome).toBe("edge_disconnected");
    expect(stage.log.find("credit_exceeded")).toMatchObject({ command_id: call.commandId });
    expect(stage.sessions.size).toBe(0);
  });

  test("that nobody asked for, or that is empty, ends the session", async () => {
    for (const chunk of [Buffer.from("x"), new Uint8Array()]) {
      const stage = await controllerStage();
      await stage.begin();
      const call = stage.call({ nodeId: stage.identity.nodeId, progress: chunk.length === 0 });
      await settled();
      const body = wire.CommandProgressEvent.encode({ commandId: call.commandId, chunk }).finish();
      stage.rogue.send(sealed(stage.rogue.frame("progress", body)));
      expect((await call.result).outcome).toBe("edge_disconnected");
      expect(stage.log.find("credit_exceeded")).toMatchObject({ command_id: call.commandId });
    }
  });

  test("of a call that has ended here is no reason to end the session", async () => {
    const { stage, call, commandBody } = await asked();
    const { nodeKey, nodeId } = stage.identity;
    await answer(stage, resultBody(nodeKey, nodeId, call.commandId, commandBody));
    const body = wire.CommandProgressEvent.encode({ commandId: call.commandId, chunk: Buffer.from("x") }).finish();
    stage.rogue.send(sealed(stage.rogue.frame("progress", body)));
    await settled();
    expect(stage.sessions.size).toBe(1);
  });
});

describe("bodies that say nothing", () => {
  const kinds = ["heartbeat", "progress", "result", "capabilities"] as const;
  for (const kind of kinds) {
    test(`a ${kind} that cannot be read ends the session`, async () => {
      const stage = await controllerStage();
      await stage.begin();
      stage.rogue.send(sealed(stage.rogue.frame(kind, Buffer.from("ff", "hex"))));
      await settled();
      expect(stage.sessions.size).toBe(0);
    });
  }

  test("more results of no pending call than an honest host keeps end the session", async () => {
    const stage = await controllerStage();
    await stage.begin();
    const { nodeKey, nodeId } = stage.identity;
    for (let n = 0; n < 300; n++)
      stage.rogue.send(
        sealed(stage.rogue.frame("result", resultBody(nodeKey, nodeId, randomUUID(), new Uint8Array()))),
      );
    await settled();
    expect(stage.sessions.size).toBe(0);
  });
});
