/** So many calls at once, so many in a queue, and each answered exactly once, however it ends. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { type Run, receivedCall, scriptedHost, scriptedTool, settled } from "../../test/support/scripted-host.ts";
import { newKey } from "../../test/support/strict-keys.ts";
import type { StopReason } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";
import { createInvocations, maxQueuedCalls } from "./invocations.ts";
import type { Host } from "./invoke.ts";
import { createOutbox } from "./outbox.ts";
import type { ReceivedCall } from "./received.ts";

const { CommandResultEvent, SealedResult } = aegis.cluster.v1;
const maxConcurrent = 16;

/** The same host as in life, but for its tool and for whom it believes. */
function stage({ obedient = true, host }: { obedient?: boolean; host?: () => Host } = {}) {
  const clock = fakeClock();
  const log = recordedLog();
  const nodeId = randomUUID();
  const { tool, runs } = scriptedTool({ obedient });
  const usual = scriptedHost({ clock, tools: [tool], nodeId });
  const outbox = createOutbox({ nodeId, nodeKey: newKey, clock, log });
  const answers: Array<{ commandId: string; started: boolean; ok: boolean; errorKind: string; message: string }> = [];
  outbox.attach({
    send(kind, body) {
      if (kind !== "result") return true;
      const { commandId, started, result } = CommandResultEvent.decode(SealedResult.decode(body).result);
      const { ok = false, errorKind, errorMessage } = result ?? {};
      answers.push({ commandId, started, ok: ok ?? false, errorKind: errorKind ?? "", message: errorMessage ?? "" });
      return true;
    },
    drained: () => Promise.resolve(),
  });
  const invocations = createInvocations({ host: host ?? (() => usual), outbox, clock, log, maxConcurrent });
  const call = (change?: Partial<ReceivedCall>) => receivedCall(clock, change);
  const submit = async (change: Partial<ReceivedCall> = {}) => {
    const one = call(change);
    invocations.submit(one);
    await settled();
    return one.commandId;
  };
  return { clock, log, runs, invocations, answers, submit, call };
}

const stopOf = (run: Run | undefined) => (run?.context.signal.reason as StopReason | undefined)?.kind;

describe("places", () => {
  test("16 calls run at once; the next begin in the order they came", async () => {
    const { runs, invocations, answers, call } = stage();
    const calls = Array.from({ length: maxConcurrent + 3 }, () => call());
    for (const one of calls) invocations.submit(one);
    await settled();
    expect([runs.length, invocations.active, invocations.queued]).toEqual([16, 16, 3]);
    runs[5]?.end();
    runs[2]?.end();
    await settled();
    expect([runs.length, invocations.active, invocations.queued]).toEqual([18, 16, 1]);
    expect(answers.map(({ commandId }) => commandId)).toEqual([calls[5]?.commandId ?? "", calls[2]?.commandId ?? ""]);
  });

  test("256 wait; the next one is told so at once", async () => {
    const { runs, invocations, answers, submit, call } = stage();
    for (let n = 0; n < maxConcurrent + maxQueuedCalls; n++) invocations.submit(call());
    await settled();
    expect(invocations.queued).toBe(maxQueuedCalls);
    const commandId = await submit();
    expect(answers).toEqual([
      { commandId, started: false, ok: false, errorKind: "overloaded", message: expect.any(String) },
    ]);
    runs[0]?.end();
    await settled();
    await submit();
    expect(answers.filter(({ errorKind }) => errorKind === "overloaded")).toHaveLength(1);
  });

  test("a refused call gives its place back", async () => {
    const { runs, invocations, answers, submit } = stage();
    for (let n = 0; n < 40; n++) await submit({ tool: "no.such" });
    expect(answers.every(({ errorKind, started }) => errorKind === "tool_not_found" && !started)).toBe(true);
    expect([invocations.active, invocations.queued]).toEqual([0, 0]);
    await submit();
    expect(runs).toHaveLength(1);
  });
});

describe("the end of a call", () => {
  test("one answer, with what the tool said", async () => {
    const { runs, answers, submit, log } = stage();
    const commandId = await submit();
    runs[0]?.end({ ok: false, errorKind: "nonzero_exit", errorMessage: "exit code 3" });
    await settled();
    expect(answers).toEqual([
      { commandId, started: true, ok: false, errorKind: "nonzero_exit", message: "exit code 3" },
    ]);
    expect(log.find("call")).toMatchObject({ command_id: commandId, outcome: "nonzero_exit", started: true });
  });

  test("a tool that throws is an internal error of a call that began, and the host's log says why", async () => {
    const { runs, answers, submit, log } = stage();
    await submit();
    runs[0]?.fail(new Error("disk on fire"));
    await settled();
    expect(answers[0]).toMatchObject({ started: true, ok: false, errorKind: "internal" });
    expect(answers[0]?.message).not.toContain("disk on fire");
    expect(log.find("call_failed")).toMatchObject({ error: "disk on fire" });
  });

  test("a host that cannot be asked answers all the same", async () => {
    const { answers, invocations, submit } = stage({
      host: () => {
        throw new Error("config gone");
      },
    });
    await submit();
    expect(answers[0]).toMatchObject({ errorKind: "internal" });
    expect(invocations.active).toBe(0);
  });

  test("a result too long for a message is one answer, and the daemon goes on", async () => {
    const { runs, answers, submit } = stage();
    await submit();
    const head = new Uint8Array(5 * 1024 * 1024);
    runs[0]?.end({ stdout: { head, tail: new Uint8Array(), bytes: head.length } });
    await settled();
    expect(answers).toHaveLength(1);
    await submit();
    runs[1]?.end();
    await settled();
    expect(answers[1]).toMatchObject({ ok: true });
  });

  test("a call that cannot be read is answered too", () => {
    const { invocations, answers } = stage();
    const commandId = randomUUID();
    invocations.reject(commandId, new Uint8Array(), "args must be absent");
    expect(answers).toEqual([
      { commandId, started: false, ok: false, errorKind: "envelope_invalid", message: "args must be absent" },
    ]);
  });
});

describe("cancelling", () => {
  test("a queued call never begins", async () => {
    const { runs, invocations, answers, submit, call } = stage();
    for (let n = 0; n < maxConcurrent; n++) invocations.submit(call());
    const commandId = await submit();
    invocations.cancel(commandId, "by the caller");
    expect(answers).toEqual([
      {
        commandId,
        started: false,
        ok: false,
        errorKind: "cancelled",
        message: expect.stringContaining("by the caller"),
      },
    ]);
    for (const run of [...runs]) run.end();
    await settled();
    expect(runs).toHaveLength(maxConcurrent);
    expect(answers).toHaveLength(maxConcurrent + 1);
  });

  test("a running call is told why, and its own answer counts", async () => {
    const { runs, invocations, answers, submit } = stage({ obedient: false });
    const commandId = await submit();
    invocations.cancel(commandId, "by the caller");
    expect(runs[0]?.context.signal.reason).toEqual({ kind: "cancelled", detail: "by the caller" });
    expect(answers).toHaveLength(0);
    runs[0]?.end({ ok: false, errorKind: "cancelled" });
    await settled();
    expect(answers).toEqual([expect.objectContaining({ commandId, errorKind: "cancelled", started: true })]);
  });

  test("an unknown call, and the same call twice, change nothing", async () => {
    const { runs, invocations, answers, submit } = stage();
    const commandId = await submit();
    invocations.cancel(randomUUID(), "x");
    runs[0]?.end();
    await settled();
    invocations.cancel(commandId, "x");
    await settled();
    expect(answers).toHaveLength(1);
  });
});

describe("deadlines", () => {
  test("a running call is stopped when its time is over, counted from its arrival", async () => {
    const { runs, answers, clock, call, invocations } = stage();
    const one = call({ deadlineMs: 10_000 });
    await clock.advance(4_000);
    invocations.submit(one);
    await settled();
    await clock.advance(5_999);
    expect(runs[0]?.context.signal.aborted).toBe(false);
    await clock.advance(1);
    await settled();
    expect(stopOf(runs[0])).toBe("timeout");
    expect(answers[0]).toMatchObject({ errorKind: "timeout", started: true });
  });

  test("a queued call is told when its time is over, and never begins", async () => {
    const { runs, invocations, answers, clock, submit, call } = stage();
    for (let n = 0; n < maxConcurrent; n++) invocations.submit(call());
    const commandId = await submit({ deadlineMs: 2_000 });
    await clock.advance(2_000);
    await settled();
    expect(answers).toEqual([
      { commandId, started: false, ok: false, errorKind: "timeout", message: expect.stringContaining("2000 ms") },
    ]);
    expect(invocations.queued).toBe(0);
    runs[0]?.end();
    await settled();
    expect(runs).toHaveLength(maxConcurrent);
  });

  test("no timer outlives its call", async () => {
    const { runs, clock, submit, invocations, call } = stage();
    await submit({ deadlineMs: 10_000 });
    runs[0]?.end();
    await settled();
    expect(clock.sleeping).toBe(0);
    for (let n = 0; n < maxConcurrent; n++) invocations.submit(call());
    const queued = await submit({ deadlineMs: 10_000 });
    invocations.cancel(queued, "x");
    await settled();
    expect(clock.sleeping).toBe(0);
  });

  test("a tool that waits for a reader who never comes is stopped all the same", async () => {
    const { runs, answers, clock, submit } = stage({ obedient: false });
    await submit({ deadlineMs: 1_000, initialCredit: 1 });
    let released = false;
    void runs[0]?.context.output("stdout", Buffer.from("more than one byte")).then(() => {
      released = true;
    });
    await settled();
    expect(released).toBe(false);
    await clock.advance(1_000);
    await settled();
    expect(released).toBe(true);
    runs[0]?.end({ ok: false, errorKind: "timeout" });
    await settled();
    expect(answers).toHaveLength(1);
  });
});

describe("stopping", () => {
  test("what runs may finish; what waits and what comes is told to go elsewhere", async () => {
    const { runs, invocations, answers, submit, call, clock } = stage();
    for (let n = 0; n < maxConcurrent + 1; n++) invocations.submit(call());
    await settled();
    const stopped = invocations.stop(5_000);
    expect(answers).toEqual([expect.objectContaining({ errorKind: "draining", started: false })]);
    await submit();
    expect(answers).toHaveLength(2);
    for (const run of [...runs]) run.end();
    await stopped;
    expect(answers.filter(({ ok }) => ok)).toHaveLength(maxConcurrent);
    expect(clock.sleeping).toBe(0);
    expect(invocations.draining).toBe(true);
  });

  test("after the grace what still runs is stopped, and its answer awaited", async () => {
    const { runs, invocations, answers, submit, clock } = stage({ obedient: false });
    await submit();
    let over = false;
    const stopped = invocations.stop(5_000).then(() => {
      over = true;
    });
    await settled();
    await clock.advance(4_999);
    expect(runs[0]?.context.signal.aborted).toBe(false);
    await clock.advance(1);
    await settled();
    expect(stopOf(runs[0])).toBe("shutdown");
    expect(over).toBe(false);
    runs[0]?.end({ ok: false, errorKind: "cancelled" });
    await stopped;
    expect(answers).toHaveLength(1);
  });

  test("with nothing to do is done at once, also twice", async () => {
    const { invocations } = stage();
    await Promise.all([invocations.stop(5_000), invocations.stop(5_000)]);
  });
});

describe("draining", () => {
  test("what runs and what waits goes on; new calls are told so, until it is over", async () => {
    const { runs, invocations, answers, submit, call } = stage();
    for (let n = 0; n < maxConcurrent + 1; n++) invocations.submit(call());
    await settled();
    const drained = invocations.drain(0);
    expect(invocations.draining).toBe(true);
    await submit();
    expect(answers).toEqual([expect.objectContaining({ errorKind: "draining", started: false })]);
    for (let n = 0; n <= maxConcurrent; n++) {
      runs[n]?.end();
      await settled();
    }
    await drained;
    expect(answers.filter(({ ok }) => ok)).toHaveLength(maxConcurrent + 1);
    invocations.resume();
    await submit();
    expect(runs).toHaveLength(maxConcurrent + 2);
  });

  test("within its time stops what is left, running or not", async () => {
    const { runs, invocations, answers, call, clock } = stage();
    for (let n = 0; n < maxConcurrent + 1; n++) invocations.submit(call());
    await settled();
    const drained = invocations.drain(3_000);
    await clock.advance(3_000);
    await drained;
    expect(runs).toHaveLength(maxConcurrent);
    expect(runs.every((run) => stopOf(run) === "shutdown")).toBe(true);
    expect(answers.filter(({ errorKind }) => errorKind === "draining")).toHaveLength(1);
    expect(answers).toHaveLength(maxConcurrent + 1);
    expect(clock.sleeping).toBe(0);
  });

  test("that is called off stops nothing", async () => {
    const { runs, invocations, submit, clock } = stage();
    await submit();
    const drained = invocations.drain(3_000);
    invocations.resume();
    await drained;
    await clock.advance(10_000);
    expect(runs[0]?.context.signal.aborted).toBe(false);
    expect(invocations.draining).toBe(false);
  });

  test("is not called off for a daemon that stops", async () => {
    const { invocations, answers, submit } = stage();
    await invocations.stop(0);
    invocations.resume();
    await submit();
    expect(answers).toEqual([expect.objectContaining({ errorKind: "draining" })]);
  });
});

test("a controller may ask for fewer calls at once, and never for more than the settings say", async () => {
  const { runs, invocations, call } = stage();
  invocations.limit(2);
  for (let n = 0; n < 20; n++) invocations.submit(call());
  await settled();
  expect(runs).toHaveLength(2);
  invocations.limit(1_000);
  await settled();
  expect(runs).toHaveLength(maxConcurrent);
  invocations.limit(null);
  await settled();
  expect(invocations.active).toBe(maxConcurrent);
});
