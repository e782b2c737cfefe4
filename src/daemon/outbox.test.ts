/** What leaves the daemon: live output within its credit, and results until they are acknowledged. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { okResult, settled } from "../../test/support/scripted-host.ts";
import { newKey } from "../../test/support/strict-keys.ts";
import { maxBodyBytes } from "../envelope/frame.ts";
import { progressChain, verifyReceipt } from "../envelope/receipt.ts";
import { limits } from "../platform/limits.ts";
import type { ToolResult } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";
import { whole } from "../wire/whole.ts";
import { createOutbox, type FrameSender, maxChunkBytes, outboxLimits } from "./outbox.ts";

const { CommandProgressEvent, CommandResultEvent, SealedResult } = aegis.cluster.v1;

const nodeId = randomUUID();
const never = new AbortController().signal;
const bytes = (length: number) => Buffer.alloc(length, "0123456789");

function stage() {
  const clock = fakeClock();
  const log = recordedLog();
  const nodeKey = newKey();
  const outbox = createOutbox({ nodeId, nodeKey: () => nodeKey, clock, log });
  return { clock, log, nodeKey, outbox };
}

/** A session's writer that remembers, and can be told to be full. */
function session() {
  const sent: Array<{ kind: "progress" | "result"; body: Uint8Array }> = [];
  let full = false;
  let waiting: Array<() => void> = [];
  const sender: FrameSender = {
    send(kind, body) {
      sent.push({ kind, body });
      return !full;
    },
    drained: () => (full ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve()),
  };
  return {
    sender,
    sent,
    progress: () => sent.filter(({ kind }) => kind === "progress").map(({ body }) => CommandProgressEvent.decode(body)),
    results: () =>
      sent
        .filter(({ kind }) => kind === "result")
        .map(({ body }) => CommandResultEvent.decode(SealedResult.decode(body).result)),
    fill() {
      full = true;
    },
    drain() {
      full = false;
      for (const wake of waiting) wake();
      waiting = [];
    },
  };
}

const request = (initialCredit = 0, commandId: string = randomUUID()) => ({
  ...{ commandId, commandBody: Buffer.from("a command"), initialCredit },
});
const finished = (result: Partial<ToolResult> = {}) => ({
  result: { ...okResult, ...result },
  started: true,
  durationMs: 5,
});

/** Whether a promise is settled by now. */
async function over(promise: Promise<void>): Promise<boolean> {
  let done = false;
  void promise.then(() => {
    done = true;
  });
  await settled();
  return done;
}

describe("results", () => {
  test("carry a receipt over the command and the very bytes sent", () => {
    const { outbox, nodeKey } = stage();
    const { sender, sent } = session();
    outbox.attach(sender);
    const asked = request();
    outbox.open(asked).finish(finished({ exitCode: 0 }));
    const { result, receiptSig, keyId } = SealedResult.decode(sent[0]?.body ?? new Uint8Array());
    const { commandId, commandBody } = asked;
    expect(verifyReceipt(nodeKey, { nodeId, commandId, commandBody, result }, receiptSig)).toBe(true);
    expect(Buffer.from(keyId)).toEqual(Buffer.from(nodeKey.keyId));
  });

  test("wait while there is no session, and go out in order on the next, until they are acknowledged", () => {
    const { outbox } = stage();
    const ids = [randomUUID(), randomUUID(), randomUUID()];
    for (const id of ids) outbox.open(request(0, id)).finish(finished());
    expect(outbox.waiting).toBe(3);
    const first = session();
    outbox.attach(first.sender);
    expect(first.results().map(({ commandId }) => commandId)).toEqual(ids);
    outbox.acknowledge([ids[1] ?? "", randomUUID()]);
    outbox.detach(first.sender);
    const second = session();
    outbox.attach(second.sender);
    expect(second.results().map(({ commandId }) => commandId)).toEqual([ids[0] ?? "", ids[2] ?? ""]);
    outbox.acknowledge(ids);
    expect(outbox.waiting).toBe(0);
  });

  test("64 of them wait; the oldest beyond that is dropped, loudly", () => {
    const { outbox, log } = stage();
    const ids = Array.from({ length: outboxLimits.results + 2 }, () => randomUUID());
    for (const id of ids) outbox.open(request(0, id)).finish(finished());
    expect(outbox.waiting).toBe(outboxLimits.results);
    const dropped = log.lines.filter(({ event }) => event === "result_dropped");
    expect(dropped.map((line) => line.command_id)).toEqual(ids.slice(0, 2));
    expect(dropped[0]).toMatchObject({ level: "error" });
  });

  test("64 MiB of them wait", () => {
    const { outbox } = stage();
    const stdout = { head: bytes(3 * 1024 * 1024), tail: new Uint8Array(), bytes: 3 * 1024 * 1024 };
    for (let n = 0; n < 30; n++) outbox.open(request()).finish(finished({ stdout }));
    expect(outbox.waiting).toBe(Math.floor(outboxLimits.bytes / (3 * 1024 * 1024)));
  });

  test("for ten minutes, but the newest always", async () => {
    const { outbox, clock } = stage();
    outbox.open(request()).finish(finished());
    await clock.advance(outboxLimits.ageMs + 1);
    outbox.open(request()).finish(finished());
    expect(outbox.waiting).toBe(1);
    await clock.advance(outboxLimits.ageMs + 1);
    outbox.attach(session().sender);
    expect(outbox.waiting).toBe(1);
  });

  test("too long for a message are replaced by words, and the call has its ending", () => {
    const { outbox } = stage();
    const { sender, sent, results } = session();
    outbox.attach(sender);
    const stdout = { head: bytes(maxBodyBytes), tail: new Uint8Array(), bytes: maxBodyBytes + 5 };
    outbox.open(request()).finish(finished({ exitCode: 3, stdout }));
    const [result] = results();
    expect(result?.result).toMatchObject({ ok: false, exitCode: 3, errorKind: "internal", stdout: new Uint8Array() });
    expect(result?.result?.errorMessage).toMatch(/its result has \d+ bytes, and a message holds/);
    expect(whole(result?.result?.stdoutBytes)).toBe(maxBodyBytes + 5);
    expect(sent[0]?.body.length).toBeLessThan(maxBodyBytes);
    expect(outbox.waiting).toBe(1);
  });

  test("just short enough go out as they are", () => {
    const { outbox } = stage();
    const { sender, results } = session();
    outbox.attach(sender);
    const length = maxBodyBytes - 1_000;
    outbox.open(request()).finish(finished({ stdout: { head: bytes(length), tail: new Uint8Array(), bytes: length } }));
    expect(results()[0]?.result).toMatchObject({ ok: true });
  });

  test("that cannot be written say so", () => {
    const { outbox } = stage();
    const { sender, results } = session();
    outbox.attach(sender);
    const endless: Record<string, unknown> = {};
    endless.self = endless;
    outbox.open(request()).finish(finished({ structured: endless }));
    expect(results()[0]?.result?.errorMessage).toMatch(/cannot be written/);
  });
});

describe("live output", () => {
  test("is cut into frames, counted by pipe and chained in the order sealed", async () => {
    const { outbox } = stage();
    const { sender, sent, progress, results } = session();
    outbox.attach(sender);
    const delivery = outbox.open(request(1024 * 1024));
    await delivery.progress("stdout", bytes(maxChunkBytes + 10), never);
    await delivery.progress("stderr", bytes(5), never);
    await delivery.progress("stdout", bytes(1), never);
    delivery.finish(finished());
    const seen = progress().map(({ stderr, sequence, offset, chunk }) => [
      stderr,
      sequence,
      whole(offset),
      chunk.length,
    ]);
    expect(seen).toEqual([
      [false, 0, 0, maxChunkBytes],
      [false, 1, maxChunkBytes, 10],
      [true, 2, 0, 5],
      [false, 3, maxChunkBytes + 10, 1],
    ]);
    const chain = progressChain();
    for (const { kind, body } of sent) if (kind === "progress") chain.add(body);
    const [result] = results();
    expect(whole(result?.progressFrames)).toBe(4);
    expect(Buffer.from(result?.progressChain ?? [])).toEqual(Buffer.from(chain.value));
    expect(whole(result?.progressDroppedBytes)).toBe(0);
  });

  test("stops at its credit, both pipes together, and goes on when more is given", async () => {
    const { outbox } = stage();
    const { sender, progress } = session();
    outbox.attach(sender);
    const asked = request(10);
    const delivery = outbox.open(asked);
    const total = () => progress().reduce((sum, { chunk }) => sum + chunk.length, 0);
    await delivery.progress("stderr", bytes(4), never);
    const wait = delivery.progress("stdout", bytes(20), never);
    expect([await over(wait), total()]).toEqual([false, 10]);
    outbox.credit(asked.commandId, 16);
    expect([await over(wait), total()]).toEqual([false, 16]);
    outbox.credit(asked.commandId, 12);
    outbox.credit(randomUUID(), 1_000);
    expect([await over(wait), total()]).toEqual([false, 16]);
    outbox.credit(asked.commandId, 100);
    expect([await over(wait), total()]).toEqual([true, 24]);
  });

  test("waits for a transport that is full", async () => {
    const { outbox } = stage();
    const { sender, progress, fill, drain } = session();
    outbox.attach(sender);
    const delivery = outbox.open(request(1024 * 1024));
    fill();
    const wait = delivery.progress("stdout", bytes(3 * maxChunkBytes), never);
    expect([await over(wait), progress().length]).toEqual([false, 1]);
    drain();
    expect([await over(wait), progress().length]).toEqual([true, 3]);
  });

  describe("of one of several calls, which nobody may hold up,", () => {
    const dropping = (initialCredit: number) => ({ ...request(initialCredit), onNoCredit: "drop" as const });
    const ringBytes = limits.progressRingBytes;

    test("never waits: the newest is kept, the rest counted, and the gap told", async () => {
      const { outbox } = stage();
      const { sender, progress, results } = session();
      outbox.attach(sender);
      const asked = dropping(10);
      const delivery = outbox.open(asked);
      const much = ringBytes + 100;
      await delivery.progress("stdout", bytes(10), never);
      for (let at = 0; at < much; at += 1_000)
        await delivery.progress("stdout", bytes(Math.min(1_000, much - at)), never);
      await delivery.progress("stderr", bytes(7), never);
      expect(progress().map(({ chunk }) => chunk.length)).toEqual([10]);
      outbox.credit(asked.commandId, 10 + 50);
      await settled();
      const [, second] = progress();
      // 107 bytes had to go: 100 of stdout, and 7 more when stderr came.
      expect([whole(second?.offset), whole(second?.skippedBytes), second?.chunk.length]).toEqual([117, 107, 50]);
      outbox.credit(asked.commandId, 10 + ringBytes);
      await settled();
      expect(progress().reduce((sum, { chunk }) => sum + chunk.length, 0)).toBe(10 + ringBytes);
      expect(progress().at(-1)).toMatchObject({ stderr: true });
      delivery.finish(finished());
      expect(whole(results()[0]?.progressDroppedBytes)).toBe(107);
      expect(whole(results()[0]?.progressFrames)).toBe(progress().length);
    });

    test("sends at its end what credit allows, and counts the rest", async () => {
      const { outbox } = stage();
      const { sender, progress, results, fill } = session();
      outbox.attach(sender);
      const delivery = outbox.open(dropping(60));
      fill();
      await delivery.progress("stdout", bytes(50), never);
      await delivery.progress("stdout", bytes(30), never);
      expect(progress().map(({ chunk }) => chunk.length)).toEqual([50]);
      delivery.finish(finished());
      expect(progress().map(({ chunk }) => chunk.length)).toEqual([50, 10]);
      expect(whole(results()[0]?.progressDroppedBytes)).toBe(20);
    });

    test("goes on when the transport does, and is let go with its session", async () => {
      const { outbox } = stage();
      const { sender, progress, results, fill, drain } = session();
      outbox.attach(sender);
      const delivery = outbox.open(dropping(1_000));
      fill();
      await delivery.progress("stdout", bytes(50), never);
      await delivery.progress("stdout", bytes(30), never);
      drain();
      await settled();
      expect(progress().map(({ chunk }) => chunk.length)).toEqual([50, 30]);
      outbox.detach(sender);
      await delivery.progress("stdout", bytes(5), never);
      outbox.attach(sender);
      delivery.finish(finished());
      expect(progress()).toHaveLength(2);
      expect(whole(results()[0]?.progressDroppedBytes)).toBe(5);
    });
  });

  test("of a call that is stopped waits neither for credit nor for the transport", async () => {
    const { outbox } = stage();
    const { sender, fill, results } = session();
    outbox.attach(sender);
    const stop = new AbortController();
    const thirsty = outbox.open(request(10));
    const blocked = outbox.open(request(1024 * 1024));
    const first = thirsty.progress("stdout", bytes(20), stop.signal);
    fill();
    const second = blocked.progress("stdout", bytes(20), stop.signal);
    expect([await over(first), await over(second)]).toEqual([false, false]);
    stop.abort();
    expect([await over(first), await over(second)]).toEqual([true, true]);
    expect(await over(thirsty.progress("stdout", bytes(7), stop.signal))).toBe(true);
    thirsty.finish(finished());
    expect(whole(results()[0]?.progressDroppedBytes)).toBe(17);
  });

  test("goes nowhere without a session, and is counted; the next session gets no rest of it", async () => {
    const { outbox } = stage();
    const first = session();
    outbox.attach(first.sender);
    const delivery = outbox.open(request(1024));
    await delivery.progress("stdout", bytes(100), never);
    outbox.detach(first.sender);
    await delivery.progress("stdout", bytes(30), never);
    const second = session();
    outbox.attach(second.sender);
    await delivery.progress("stdout", bytes(5), never);
    delivery.finish(finished());
    expect(second.progress()).toHaveLength(0);
    const [result] = second.results();
    expect([whole(result?.progressFrames), whole(result?.progressDroppedBytes)]).toEqual([1, 35]);
  });

  test("that waits for credit when its session goes is let go", async () => {
    const { outbox } = stage();
    const { sender } = session();
    outbox.attach(sender);
    const wait = outbox.open(request(1)).progress("stdout", bytes(5), never);
    expect(await over(wait)).toBe(false);
    outbox.detach(session().sender);
    expect(await over(wait)).toBe(false);
    outbox.detach(sender);
    expect(await over(wait)).toBe(true);
  });

  test("that nobody asked for is not sent, and none is missing", async () => {
    const { outbox } = stage();
    const { sender, progress, results } = session();
    outbox.attach(sender);
    const delivery = outbox.open(request(0));
    expect(await over(delivery.progress("stdout", bytes(100), never))).toBe(true);
    delivery.finish(finished());
    expect(progress()).toHaveLength(0);
    expect(whole(results()[0]?.progressDroppedBytes)).toBe(0);
  });

  test("keeps its credit when another call of the same id comes and goes", async () => {
    const { outbox } = stage();
    const { sender, progress } = session();
    outbox.attach(sender);
    const asked = request(1);
    const wait = outbox.open(asked).progress("stdout", bytes(5), never);
    const again = outbox.open(request(1, asked.commandId));
    const waitsToo = again.progress("stdout", bytes(5), never);
    outbox.credit(asked.commandId, 100);
    expect(await over(wait)).toBe(true);
    expect(progress()).toHaveLength(3);
    again.finish(finished());
    expect(await over(waitsToo)).toBe(true);
  });

  test("that is still waiting when the call ends is let go", async () => {
    const { outbox } = stage();
    outbox.attach(session().sender);
    const delivery = outbox.open(request(1));
    const wait = delivery.progress("stdout", bytes(5), never);
    delivery.finish(finished());
    expect(await over(wait)).toBe(true);
  });
});
