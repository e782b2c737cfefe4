import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type TestNodes, uuidOf } from "../../test/support/controller-rows.ts";
import type { FakeClock } from "../../test/support/fake-clock.ts";
import type { ScriptedCall, ScriptedDispatcher } from "../../test/support/scripted-dispatcher.ts";
import { testFleet } from "../../test/support/test-fleet.ts";
import type { CommandResult, FleetEvent } from "../api/events.ts";
import { apiLimits } from "../api/limits.ts";
import { runPolicySchema } from "../api/types.ts";
import { silentLog } from "../platform/log.ts";
import type { Store } from "../store/store.ts";
import { createFleet, type FleetRequest, type FleetRuns } from "./fleet.ts";
import type { Run } from "./fleet-run.ts";
import { createTargets } from "./targets.ts";

const ann = { name: "ann", tenantId: "acme", scopes: [], contexts: ["default"] };
const never = new AbortController().signal;
const failed = { ok: false, outcome: "err", exitCode: 1, errorKind: "nonzero_exit" } as const;

describe("a run", () => {
  let store: Store;
  let nodes: TestNodes;
  let clock: FakeClock;
  let dispatcher: ScriptedDispatcher;
  let fleet: FleetRuns;
  let react: (call: ScriptedCall) => void;

  beforeEach(async () => {
    react = () => {};
    ({ store, nodes, clock, dispatcher, fleet } = await testFleet((call) => react(call)));
  });
  afterEach(() => store.close());

  const hosts = async (...names: string[]) => {
    for (const name of names) await nodes.add(store, name);
  };
  const request = (policy: object = {}, change: Partial<FleetRequest> = {}): FleetRequest => ({
    target: "All",
    tool: "cmd.run",
    argsJson: '{"command":"true"}',
    context: "default",
    policy: runPolicySchema.parse(policy),
    abortOnDisconnect: false,
    progress: true,
    via: "rest",
    ...change,
  });
  const eventsOf = async (run: Run, after = 0): Promise<FleetEvent[]> => {
    const events: FleetEvent[] = [];
    for await (const event of run.events.read(after, never)) events.push(event);
    return events;
  };
  const results = (events: readonly FleetEvent[]): CommandResult[] =>
    events.flatMap((event) => (event.event === "command_result" ? [event.data] : []));
  const outcomes = (events: readonly FleetEvent[]) =>
    Object.fromEntries(results(events).map((result) => [result.node_id, result.outcome]));
  const settle = async () => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  };
  const nodeNames = (calls: readonly ScriptedCall[]) =>
    calls.map(({ request: { nodeId } }) => ["a", "b", "c", "d", "e"].find((name) => uuidOf(`acme ${name}`) === nodeId));

  test("tells who is asked, what is printed, one result for each host and how it ended, and stores it", async () => {
    await hosts("a", "b");
    await nodes.add(store, "c", { status: "disconnected" });
    react = (call) => {
      call.print("hello\n");
      call.answer();
    };
    const run = await fleet.start(request(), ann);
    const events = await eventsOf(run);
    expect(events.map(({ id }) => id)).toEqual(events.map((_, at) => at + 1));
    expect(events[0]).toMatchObject({
      event: "started",
      data: {
        resolved: [uuidOf("acme a"), uuidOf("acme b")],
        skipped: [{ name: "c", reason: "disconnected" }],
        waves: null,
      },
    });
    for (const host of ["a", "b"]) {
      const mine = events.filter(({ data }) => "node_id" in data && data.node_id === uuidOf(`acme ${host}`));
      expect(mine.map(({ event }) => event)).toEqual(["node_started", "command_progress", "command_result"]);
    }
    const last = events.at(-1);
    expect(last).toMatchObject({
      event: "fleet_result",
      data: { outcome: "complete", summary: { ok: 2, err: 0, skipped: 1, not_started: 0 } },
    });
    expect(await store.run(run.runId)).toMatchObject({
      ...{ outcome: "complete", tool: "cmd.run", principal: "ann", target: '"All"' },
      resolved: [{ name: "a" }, { name: "b" }],
      skipped: [{ name: "c", reason: "disconnected" }],
    });
    expect(JSON.parse((await store.run(run.runId))?.summary ?? "")).toMatchObject({ ok: 2, skipped: 1 });
  });

  test("goes on with nobody listening", async () => {
    await hosts("a");
    const run = await fleet.start(request(), ann);
    const gone = new AbortController();
    await run.events.read(0, gone.signal).next();
    gone.abort();
    dispatcher.open[0]?.answer();
    expect((await run.done).outcome).toBe("complete");
  });

  test("hands the host exactly what was asked", async () => {
    await hosts("a");
    const proof = new Uint8Array([1, 2, 3]);
    const argsJson = '{ "command" : "true" }';
    const operatorProofs = { [uuidOf("acme a")]: proof };
    await fleet.start(request({ deadline_secs: 1.5 }, { argsJson, operatorProofs, progress: false }), ann);
    expect(dispatcher.calls[0]?.request).toMatchObject({
      ...{ nodeId: uuidOf("acme a"), tool: "cmd.run", argsJson, deadlineMs: 1_500, progress: false },
      ...{ operator: proof, context: "default", principal: { name: "ann" } },
    });
    dispatcher.open[0]?.answer();
  });

  test("the deadline is a minute and 64 hosts are asked at a time, unless it is said", async () => {
    await hosts(...Array.from({ length: 70 }, (_, at) => `h${at}`));
    const run = await fleet.start(request({ on_error: "continue" }), ann);
    await settle();
    expect(dispatcher.open.length).toBe(64);
    expect(dispatcher.calls[0]?.request.deadlineMs).toBe(60_000);
    dispatcher.open[0]?.answer();
    await settle();
    expect(dispatcher.calls.length).toBe(65);
    react = (call) => call.answer();
    for (const call of dispatcher.open) call.answer();
    expect((await run.done).summary.ok).toBe(70);
  });

  test("sequential asks one host after the other", async () => {
    await hosts("a", "b", "c");
    const run = await fleet.start(request({ mode: "sequential" }), ann);
    for (const name of ["a", "b", "c"]) {
      await settle();
      expect(nodeNames(dispatcher.open)).toEqual([name]);
      dispatcher.open[0]?.answer();
    }
    expect((await run.done).outcome).toBe("complete");
  });

  test("rolling ends a wave before the next starts, and says so", async () => {
    await hosts("a", "b", "c", "d", "e");
    const run = await fleet.start(request({ mode: "rolling", batch: 2 }), ann);
    await settle();
    expect(nodeNames(dispatcher.open)).toEqual(["a", "b"]);
    dispatcher.open[1]?.answer();
    await settle();
    expect(nodeNames(dispatcher.open)).toEqual(["a"]);
    dispatcher.open[0]?.answer();
    await settle();
    expect(nodeNames(dispatcher.open)).toEqual(["c", "d"]);
    react = (call) => call.answer();
    for (const call of dispatcher.open) call.answer();
    const events = await eventsOf(run);
    expect(events[0]).toMatchObject({ data: { waves: 3 } });
    const waves = events.flatMap((event) => (event.event === "wave_started" ? [event.data] : []));
    expect(waves.map(({ wave, of, nodes: members }) => [wave, of, members.length])).toEqual([
      [1, 3, 2],
      [2, 3, 2],
      [3, 3, 1],
    ]);
    const startOfThird = events.findIndex((event) => event.event === "wave_started" && event.data.wave === 3);
    expect(results(events.slice(0, startOfThird)).length).toBe(4);
  });

  test("fail-fast stops what is under way and starts nothing more", async () => {
    await hosts("a", "b", "c", "d");
    const run = await fleet.start(request({ on_error: "fail-fast", max_concurrency: 2 }), ann);
    await settle();
    const [first, second] = dispatcher.open;
    first?.answer(failed);
    const events = await eventsOf(run);
    expect(second?.signal.reason).toBe("fleet_halted");
    expect(outcomes(events)).toEqual({
      [uuidOf("acme a")]: "err",
      [uuidOf("acme b")]: "cancelled",
      [uuidOf("acme c")]: "not_started",
      [uuidOf("acme d")]: "not_started",
    });
    expect(results(events).map(({ name }) => name)).toEqual(expect.arrayContaining(["c", "d"]));
    expect(run.end).toMatchObject({ outcome: "halted", summary: { ok: 0, err: 1, cancelled: 1, not_started: 2 } });
  });

  test("continue asks everyone, whatever fails", async () => {
    await hosts("a", "b", "c");
    react = (call) => call.answer(failed);
    const run = await fleet.start(request({ on_error: "continue", max_concurrency: 1 }), ann);
    expect(await run.done).toMatchObject({ outcome: "complete", summary: { err: 3, not_started: 0 } });
  });

  test("stop-after starts nothing more once so many failed, and lets the others finish", async () => {
    await hosts("a", "b", "c", "d", "e");
    const run = await fleet.start(request({ on_error: "stop-after", stop_after: 2, max_concurrency: 3 }), ann);
    await settle();
    const [a, b, c] = dispatcher.open;
    a?.answer(failed);
    await settle();
    expect(dispatcher.calls.length).toBe(4);
    b?.answer({ ...failed, outcome: "timed_out" });
    await settle();
    expect(dispatcher.calls.length).toBe(4);
    expect(c?.signal.aborted).toBe(false);
    for (const call of dispatcher.open) call.answer();
    expect(await run.done).toMatchObject({
      outcome: "halted",
      summary: { ok: 2, err: 1, timed_out: 1, cancelled: 0, not_started: 1 },
    });
  });

  test("without a word about failures, a tool that only reads goes on and any other fails fast", async () => {
    await hosts("a", "b");
    react = (call) => call.answer(failed);
    const reads = await fleet.start(request({ max_concurrency: 1 }, { tool: "host.info" }), ann);
    expect((await reads.done).summary).toMatchObject({ err: 2, not_started: 0 });
    const changes = await fleet.start(request({ max_concurrency: 1 }), ann);
    expect((await changes.done).summary).toMatchObject({ err: 1, not_started: 1 });
    // A host that does not say what its tool does is taken to be changed by it.
    await nodes.add(store, "c", { tools: [] });
    const unknown = await fleet.start(request({ max_concurrency: 1 }, { tool: "host.info" }), ann);
    expect((await unknown.done).summary).toMatchObject({ err: 1, not_started: 2 });
  });

  test("with fewer hosts than required nobody is asked", async () => {
    await hosts("a", "b");
    const run = await fleet.start(request({ require_min: 3 }), ann);
    const events = await eventsOf(run);
    expect(events.map(({ event }) => event)).toEqual(["started", "error", "fleet_result"]);
    expect(events[1]?.data).toEqual({ code: "require_min_not_met", message: "matched 2, required 3" });
    expect(events[2]?.data).toMatchObject({ outcome: "refused", summary: { not_started: 2 } });
    expect(dispatcher.calls).toEqual([]);
    const enough = await fleet.start(request({ require_min: 2 }), ann);
    await settle();
    expect(dispatcher.calls.length).toBe(2);
    await fleet.cancel("acme", enough.runId);
  });

  test("a cancel reaches every host that is asked, and two operators may both give it", async () => {
    await hosts("a", "b", "c", "d");
    const run = await fleet.start(request({ max_concurrency: 3 }), ann);
    await settle();
    dispatcher.open[0]?.answer();
    await settle();
    const under = [...dispatcher.open];
    expect(under.length).toBe(3);
    const answers = await Promise.all([fleet.cancel("acme", run.runId), fleet.cancel("acme", run.runId)]);
    expect(answers[0]).toEqual({ run_id: run.runId, cancelled: 3, already_terminal: 1 });
    expect(under.map(({ signal }) => signal.reason)).toEqual(["caller", "caller", "caller"]);
    expect(await run.done).toMatchObject({ outcome: "cancelled", summary: { ok: 1, cancelled: 3 } });
    expect(await fleet.cancel("acme", run.runId)).toMatchObject({ cancelled: 0, already_terminal: 4 });
    await expect(fleet.cancel("other", run.runId)).rejects.toMatchObject({ code: "not_found" });
    await expect(fleet.cancel("acme", uuidOf("no run"))).rejects.toMatchObject({ code: "not_found" });
  });

  test("whatever the dispatcher does, each host has exactly one result", async () => {
    await hosts("a", "b", "c");
    const targets = createTargets({ store, nodes });
    const odd = createFleet({
      ...{ store, nodes, targets, clock, time: clock.now, log: silentLog },
      dispatcher: {
        async *call({ nodeId }) {
          if (nodeId === uuidOf("acme a")) throw new Error("the database is gone");
          if (nodeId === uuidOf("acme b")) return;
          yield { ...(await import("../../test/support/scripted-dispatcher.ts")).okResult };
          yield { ...(await import("../../test/support/scripted-dispatcher.ts")).okResult, outcome: "err" };
        },
      },
    });
    const run = await odd.start(request({ on_error: "continue" }), ann);
    const told = results(await eventsOf(run));
    expect(told.length).toBe(3);
    const messages = Object.fromEntries(told.map((one) => [one.node_id, one.error_message]));
    expect(messages[uuidOf("acme a")]).toContain("the database is gone");
    expect(messages[uuidOf("acme b")]).toContain("without a result");
    expect(run.end?.summary).toMatchObject({ ok: 1, err: 2 });
  });

  test("a token may use its own contexts only", async () => {
    await hosts("a");
    await expect(fleet.start(request({}, { context: "operator" }), ann)).rejects.toMatchObject({
      code: "forbidden",
      message: expect.stringContaining('"operator", only: default'),
    });
    expect(dispatcher.calls).toEqual([]);
  });

  test("arguments may be so long and no longer", async () => {
    await hosts("a");
    const argsOf = (bytes: number) => `{"x":"${"y".repeat(bytes - 8)}"}`;
    const run = await fleet.start(request({}, { argsJson: argsOf(apiLimits.argsBytes) }), ann);
    dispatcher.open[0]?.answer();
    await run.done;
    await expect(fleet.start(request({}, { argsJson: argsOf(apiLimits.argsBytes + 1) }), ann)).rejects.toMatchObject({
      code: "too_large",
      message: expect.stringContaining(String(apiLimits.argsBytes)),
    });
  });

  test("a repeated request leads to the same run, another one under its key is refused", async () => {
    await hosts("a");
    const key = { key: "k1", bodyHash: new Uint8Array([1]) };
    const first = await fleet.start(request(), ann, key);
    expect(await fleet.start(request(), ann, key)).toBe(first);
    expect(dispatcher.calls.length).toBe(1);
    await expect(fleet.start(request(), ann, { ...key, bodyHash: new Uint8Array([2]) })).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining(first.runId),
    });
    const other = await fleet.start(request(), { ...ann, name: "bob" }, key);
    expect(other).not.toBe(first);
    for (const call of dispatcher.open) call.answer();
  });

  test("closing lets runs end in peace for a while, then stops them as interrupted", async () => {
    await hosts("a", "b");
    const run = await fleet.start(request(), ann);
    await settle();
    dispatcher.open[0]?.answer();
    let closed = false;
    const closing = fleet.close(5_000).then(() => {
      closed = true;
    });
    await expect(fleet.start(request(), ann)).rejects.toMatchObject({ code: "unavailable" });
    await clock.advance(4_999);
    expect([closed, run.end]).toEqual([false, null]);
    await clock.advance(1);
    await closing;
    expect(run.end).toMatchObject({ outcome: "interrupted", summary: { ok: 1, cancelled: 1 } });
    expect(await store.run(run.runId)).toMatchObject({ outcome: "interrupted" });
  });
});
