/** A call becomes one signed command, and whatever comes of it exactly one result that is stored. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { frameOf, sealed } from "../../test/support/rogue.ts";
import { settled } from "../../test/support/scripted-host.ts";
import { controllerStage } from "../../test/support/stages.ts";
import { callRequest, strictPair } from "../../test/support/strict-pair.ts";
import { verifyJwt } from "../envelope/jwt.ts";
import { signReceipt } from "../envelope/receipt.ts";
import { sha256 } from "../envelope/statement.ts";
import { aegis } from "../wire/gen/messages.js";
import { whole } from "../wire/whole.ts";

const wire = aegis.cluster.v1;

/** A host that is asked and says nothing by itself. */
async function asked(given: Parameters<Awaited<ReturnType<typeof controllerStage>>["call"]>[0] | object = {}) {
  const stage = await controllerStage();
  await stage.begin();
  await settled();
  /** Timers of the session itself. */
  const timers = stage.clock.sleeping;
  const call = stage.call({ nodeId: stage.identity.nodeId, ...given });
  await settled();
  const commands = () =>
    stage.rogue.commands
      .filter((one) => one.sealed?.kind === 0x11)
      .map((one) => wire.EdgeCommand.decode(frameOf(one).body));
  return { stage, call, commands, timers };
}

async function answer(
  { stage, call }: Awaited<ReturnType<typeof asked>>,
  result: aegis.cluster.v1.EdgeResult.$Properties,
) {
  const { nodeKey, nodeId } = stage.identity;
  const { commandId } = call;
  const body = wire.CommandResultEvent.encode({
    commandId,
    result,
    progressChain: new Uint8Array(32),
    started: true,
  }).finish();
  const command = stage.rogue.commands.find((one) => one.sealed?.kind === 0x11);
  const commandBody = command ? frameOf(command).body : new Uint8Array();
  const receiptSig = signReceipt(nodeKey, { nodeId, commandId, commandBody, result: body });
  const sealedResult = wire.SealedResult.encode({ result: body, receiptSig, keyId: nodeKey.keyId }).finish();
  stage.rogue.send(sealed(stage.rogue.frame("result", sealedResult)));
  await settled();
}

describe("the command", () => {
  test("is stored before it is sent, byte for byte", async () => {
    const { stage, call } = await asked();
    const command = stage.rogue.commands.find((one) => one.sealed?.kind === 0x11);
    const body = command ? frameOf(command).body : new Uint8Array();
    const row = await stage.store.command(call.commandId);
    expect(Buffer.from(row?.commandBody ?? []).equals(body)).toBe(true);
    expect(Buffer.from(row?.commandDigest ?? []).equals(sha256(body))).toBe(true);
    expect(row).toMatchObject({ endedAt: null, outcome: null, result: null, principal: "tester", tool: "test.work" });
  });

  test("is not sent when it cannot be stored", async () => {
    const stage = await controllerStage();
    await stage.begin();
    stage.store.transaction = () => Promise.reject(new Error("disk full"));
    const call = stage.call({ nodeId: stage.identity.nodeId });
    const told = await call.result.catch((error: Error) => error.message);
    await settled();
    expect(told).toBe("disk full");
    expect(stage.rogue.commands).toHaveLength(1);
  });

  test("carries the caller's token, the deadline and the first credit", async () => {
    const { stage, commands } = await asked({ deadlineMs: 12_345, argsJson: '{"a":1}' });
    const invoke = commands()[0]?.invokeTool;
    expect(invoke).toMatchObject({
      toolName: "test.work",
      securityContextName: "default",
      deadline: { nanos: 345_000_000 },
    });
    expect(whole(invoke?.deadline?.seconds)).toBe(12);
    expect(whole(invoke?.initialCredit)).toBe(256 * 1024);
    expect(Buffer.from(invoke?.argsJson ?? []).toString()).toBe('{"a":1}');
    const token = verifyJwt("user", invoke?.sealEnvelope?.userSecurityToken ?? "", {
      keys: stage.strict.keyset.tokenKeys,
      issuer: stage.strict.controllerId,
    });
    expect(token).toMatchObject({ kind: "valid", claims: { sub: "tester", tid: "acme", scp: "default", via: "cli" } });
  });

  test("too long for a message is refused, and leaves no row behind", async () => {
    const stage = await controllerStage();
    await stage.begin();
    const call = stage.call({ nodeId: stage.identity.nodeId, argsJson: `"${"x".repeat(5_000_000)}"` });
    const code = await call.result.catch((error: { code: string }) => error.code);
    expect(code).toBe("too_large");
    expect(await stage.store.command(call.commandId)).toBeNull();
  });

  test("of one run shares a token for four minutes", async () => {
    const stage = await controllerStage();
    await stage.begin();
    const runId = randomUUID();
    const tokens = async () => {
      stage.call({ nodeId: stage.identity.nodeId, runId });
      await settled();
      const last = stage.rogue.commands.findLast((one) => one.sealed?.kind === 0x11);
      return last && wire.EdgeCommand.decode(frameOf(last).body).invokeTool?.sealEnvelope?.userSecurityToken;
    };
    const first = await tokens();
    await stage.clock.advance(239_999);
    expect(await tokens()).toBe(first ?? "");
    await stage.clock.advance(1);
    expect(await tokens()).not.toBe(first ?? "");
  });
});

describe("a host without a stream", () => {
  test("is an answer at once: nothing was sent", async () => {
    const stage = await controllerStage();
    const call = stage.call({ nodeId: stage.identity.nodeId });
    expect(await call.result).toMatchObject({
      outcome: "edge_disconnected",
      errorMessage: expect.stringContaining("nothing was sent"),
    });
    expect(await stage.store.command(call.commandId)).toMatchObject({
      outcome: "edge_disconnected",
      receipt: "missing",
    });
  });

  test("that goes while the call runs: whether it ran is not known", async () => {
    const begun = await asked();
    begun.stage.rogue.hangUp();
    expect(await begun.call.result).toMatchObject({
      outcome: "edge_disconnected",
      errorMessage: expect.stringContaining("not known"),
    });
  });
});

describe("cancelling", () => {
  const { CancelReason } = wire;
  const reasons = {
    caller: CancelReason.CANCEL_REASON_CALLER,
    client_gone: CancelReason.CANCEL_REASON_CLIENT_GONE,
    fleet_halted: CancelReason.CANCEL_REASON_FLEET_HALTED,
    shutdown: CancelReason.CANCEL_REASON_SHUTDOWN,
  };
  for (const [why, reason] of Object.entries(reasons))
    test(`tells the host why: ${why}`, async () => {
      const { call, commands } = await asked();
      call.abort(why);
      await settled();
      expect(commands()[1]?.cancel).toMatchObject({ commandId: call.commandId, reason });
    });

  test("waits for the host's own answer, which counts", async () => {
    const begun = await asked();
    begun.call.abort("caller");
    await settled();
    await begun.stage.clock.advance(9_000);
    await answer(begun, { ok: false, errorKind: "cancelled", errorMessage: "stopped", exitCode: 143 });
    expect(await begun.call.result).toMatchObject({ outcome: "cancelled", receipt: "verified", exitCode: 143 });
  });

  test("ends without the host after 10 s", async () => {
    const { stage, call, timers } = await asked();
    call.abort("caller");
    await settled();
    await stage.clock.advance(10_000);
    expect(await call.result).toMatchObject({
      outcome: "cancelled",
      errorMessage: expect.stringContaining("may still be running"),
    });
    expect(stage.clock.sleeping).toBe(timers);
    expect(stage.sessions.size).toBe(1);
  });

  test("before it is sent sends nothing at all", async () => {
    const stage = await controllerStage();
    await stage.begin();
    const call = stage.call({ nodeId: stage.identity.nodeId });
    call.abort("caller");
    expect(await call.result).toMatchObject({
      outcome: "cancelled",
      errorMessage: "cancelled before it was sent; nothing ran",
    });
    expect(stage.rogue.commands).toHaveLength(1);
  });

  test("a result that comes after the call was given up is kept as a late one", async () => {
    const begun = await asked();
    begun.call.abort("caller");
    await settled();
    await begun.stage.clock.advance(10_000);
    await begun.call.result;
    await answer(begun, { ok: true });
    expect(await begun.stage.store.command(begun.call.commandId)).toMatchObject({ outcome: "ok", receipt: "verified" });
  });
});

describe("the deadline", () => {
  test("is the host's own business for five seconds more; then it is cancelled", async () => {
    const { stage, call, commands, timers } = await asked({ deadlineMs: 20_000 });
    await stage.clock.advance(24_999);
    await settled();
    expect(commands()).toHaveLength(1);
    await stage.clock.advance(1);
    await settled();
    expect(commands()[1]?.cancel).toMatchObject({ reason: wire.CancelReason.CANCEL_REASON_DEADLINE });
    await stage.clock.advance(10_000);
    expect(await call.result).toMatchObject({ outcome: "timed_out", errorKind: "timeout" });
    expect(stage.clock.sleeping).toBe(timers);
  });

  test("that the host kept is its own answer", async () => {
    const begun = await asked({ deadlineMs: 20_000 });
    await answer(begun, { ok: false, errorKind: "timeout", errorMessage: "stopped after 20000 ms" });
    expect(await begun.call.result).toMatchObject({ outcome: "timed_out", receipt: "verified" });
    expect(begun.stage.clock.sleeping).toBe(begun.timers);
  });
});

test("progress comes before the one result, also when the reader is slow", async () => {
  const pair = await strictPair();
  await pair.connected();
  const request = callRequest({ nodeId: pair.identity.nodeId });
  const reader = pair.dispatcher.call(request, new AbortController().signal)[Symbol.asyncIterator]();
  const first = reader.next();
  await settled();
  const [run] = pair.daemon.tool.runs;
  await run?.context.output("stdout", Buffer.from("one"));
  await run?.context.output("stderr", Buffer.from("two"));
  run?.end({ exitCode: 4, ok: false, errorKind: "nonzero_exit" });
  await settled();
  const events = [(await first).value];
  for (let next = await reader.next(); !next.done; next = await reader.next()) events.push(next.value);
  expect(events).toEqual([
    expect.objectContaining({ kind: "progress", stream: "stdout", offset: 0 }),
    expect.objectContaining({ kind: "progress", stream: "stderr", offset: 0 }),
    expect.objectContaining({ kind: "result", outcome: "err", exitCode: 4, receipt: "verified", output: "complete" }),
  ]);
});

test("a reader that stops reading leaves nothing behind that waits", async () => {
  const { stage } = await asked();
  const request = callRequest({ nodeId: stage.identity.nodeId, deadlineMs: 1_000 });
  const reader = stage.dispatcher.call(request, new AbortController().signal)[Symbol.asyncIterator]();
  void reader.next();
  await settled();
  stage.rogue.hangUp();
  await reader.return?.(undefined);
  await settled();
  expect(stage.clock.sleeping).toBe(0);
});
