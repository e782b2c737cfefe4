/** What a controller may tell a host besides calls: settings for as long as its stream lasts, to drain, to move, to end. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { CommandResult } from "../src/api/events.ts";
import { type Clock, systemClock } from "../src/platform/clock.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { jsonToStruct } from "../src/wire/json.ts";
import { toLong } from "../src/wire/whole.ts";
import { eventually } from "./support/aegis.ts";
import { type BareHost, bareHost, type Enrolling, enrolling } from "./support/enrolling.ts";
import { settled } from "./support/scripted-host.ts";
import { type StrictPair, strictPair } from "./support/strict-pair.ts";

setDefaultTimeout(30_000);
const { DRAIN_REASON_MAINTENANCE, DRAIN_REASON_REBALANCE, DRAIN_REASON_UPGRADE } = aegis.cluster.v1.DrainReason;
const never = new AbortController().signal;

describe("a drain", () => {
  const drain = (pair: StrictPair, reason: aegis.cluster.v1.DrainReason, finishWithinMs = 0) =>
    pair.sessions.tell(pair.identity.nodeId, { drain: { reason, finishWithinMs: toLong(finishWithinMs) } });
  const connected = async (maxConcurrent = 16) => {
    const pair = await strictPair({ maxConcurrent });
    return { pair, session: await pair.connected(), nodeId: pair.identity.nodeId };
  };

  test("refuses new calls and lets those it has finish, those that wait for a place too", async () => {
    const { pair, nodeId } = await connected(1);
    const [running, waiting] = [pair.call({ nodeId }), pair.call({ nodeId })];
    await settled();
    drain(pair, DRAIN_REASON_MAINTENANCE);
    await settled();
    expect(await pair.call({ nodeId }).result).toMatchObject({ ok: false, errorKind: "draining" });
    pair.daemon.tool.runs[0]?.end();
    expect(await running.result).toMatchObject({ ok: true });
    await settled();
    pair.daemon.tool.runs[1]?.end();
    expect(await waiting.result).toMatchObject({ ok: true });
    expect(pair.daemon.log.events()).toContain("drained");
    expect(pair.daemon.invocations.draining).toBe(true);
  });

  test("stops what has not finished in time, and says so of each", async () => {
    const { pair, nodeId } = await connected(1);
    const [running, waiting] = [pair.call({ nodeId }), pair.call({ nodeId })];
    await settled();
    drain(pair, DRAIN_REASON_MAINTENANCE, 5_000);
    await pair.pass(4_000);
    expect(pair.daemon.tool.runs[0]?.context.signal.aborted).toBe(false);
    await pair.pass(2_000);
    expect(pair.daemon.tool.runs[0]?.context.signal.reason).toEqual({ kind: "shutdown" });
    expect(await running.result).toMatchObject({ ok: false, errorMessage: "shutdown" });
    expect(await waiting.result).toMatchObject({ ok: false, errorKind: "draining" });
    expect(pair.daemon.tool.runs).toHaveLength(1);
  });

  test("ends with the stream that asked for it: the next one takes calls again, and its time-out stops nothing there", async () => {
    const { pair, nodeId, session } = await connected();
    drain(pair, DRAIN_REASON_MAINTENANCE, 5_000);
    await settled();
    session.stop();
    await session.ended;
    await pair.connected();
    const call = pair.call({ nodeId });
    await pair.pass(10_000);
    expect(pair.daemon.tool.runs[0]?.context.signal.aborted).toBe(false);
    pair.daemon.tool.runs[0]?.end();
    expect(await call.result).toMatchObject({ ok: true });
  });

  test("to move a host elsewhere ends its session once its calls are done, and not before", async () => {
    const { pair, nodeId, session } = await connected();
    const call = pair.call({ nodeId });
    await settled();
    drain(pair, DRAIN_REASON_REBALANCE);
    await settled();
    let over = false;
    void session.ended.then(() => {
      over = true;
    });
    await pair.pass(60_000);
    expect(over).toBe(false);
    pair.daemon.tool.runs[0]?.end();
    expect(await call.result).toMatchObject({ ok: true });
    expect(await session.ended).toMatchObject({ kind: "lost" });
  });

  test("for any other reason leaves the session up", async () => {
    const { pair, session } = await connected();
    drain(pair, DRAIN_REASON_UPGRADE);
    let over = false;
    void session.ended.then(() => {
      over = true;
    });
    await pair.pass(60_000);
    expect(over).toBe(false);
  });
});

test("pushed settings hold as long as the stream they came on", async () => {
  const pair = await strictPair();
  const session = await pair.connected();
  const mergedConfigDelta = jsonToStruct({ log_level: "debug" });
  pair.sessions.tell(pair.identity.nodeId, { pushConfig: { mergedConfigDelta } });
  await settled();
  expect(pair.daemon.pushed).toEqual([{ logLevel: "debug" }]);
  session.stop();
  await session.ended;
  expect(pair.daemon.pushed).toEqual([]);
});

test("fewer calls at once: those that run go on, and no more begin until there is room", async () => {
  const pair = await strictPair({ maxConcurrent: 3 });
  await pair.connected();
  const { nodeId } = pair.identity;
  const calls = [1, 2, 3, 4].map(() => pair.call({ nodeId }));
  await settled();
  const { runs } = pair.daemon.tool;
  expect(runs).toHaveLength(3);
  pair.daemon.invocations.limit(1);
  runs[0]?.end();
  runs[1]?.end();
  await settled();
  expect(runs).toHaveLength(3);
  runs[2]?.end();
  await settled();
  expect(runs).toHaveLength(4);
  runs[3]?.end();
  await Promise.all(calls.map(({ result }) => result));
  // Nobody raises it above what the settings say.
  pair.daemon.invocations.limit(100);
  const many = [1, 2, 3, 4].map(() => pair.call({ nodeId }));
  await settled();
  expect(runs).toHaveLength(7);
  for (const run of runs) run.end();
  await settled();
  for (const run of runs) run.end();
  await Promise.all(many.map(({ result }) => result));
});

describe("a whole daemon", () => {
  let controller: Enrolling;
  let host: BareHost;
  let nodeId: string;
  beforeAll(async () => {
    controller = await enrolling();
  });
  afterAll(() => controller.remove());
  beforeEach(async () => {
    host = bareHost();
    const flags = { fullAccess: true, labels: { region: "us", rack: "7" } };
    ({ nodeId } = await host.enroll(await controller.issue(), flags));
  });
  afterEach(() => host.remove());

  /** The same clock, on which a reconnect is soon. */
  const hasty: Clock = {
    ...systemClock,
    sleep: (ms, signal) => systemClock.sleep(ms > 0 && ms <= 1_000 ? 5 : ms, signal),
  };
  const run = async () => {
    const daemon = await host.run({ clock: hasty });
    await eventually("it is connected", async () => (await controller.api.host(nodeId)).status === "connected");
    return daemon;
  };
  const labels = async () => (await controller.api.host(nodeId)).capabilities.labels;
  const call = async (script: string, begun = () => {}) => {
    const request = { target: { Node: nodeId }, tool: "cmd.run", args: { command: "sh", args: ["-c", script] } };
    let result: CommandResult | null = null;
    for await (const event of controller.api.invoke({ ...request, context: "operator" }, { signal: never }))
      if (event.event === "command_progress") begun();
      else if (event.event === "command_result") result = event.data;
    return result as CommandResult | null;
  };

  test("shows pushed labels and writes what the pushed level lets through, and forgets both with the stream", async () => {
    const daemon = await run();
    expect(await labels()).toEqual({ region: "us", rack: "7" });
    await controller.api.pushConfig(nodeId, { custom_labels: { region: "eu" }, log_level: "error" });
    await eventually("the labels change", async () => (await labels()).region === "eu");
    expect(await labels()).toEqual({ region: "eu", rack: "7" });
    const before = daemon.log.lines.length;
    expect(await call("exit 0")).toMatchObject({ ok: true });
    expect(daemon.log.lines.slice(before).map(({ event }) => event)).not.toContain("call");
    await daemon.stop();
    const again = await run();
    expect(await labels()).toEqual({ region: "us", rack: "7" });
    await eventually("a call", async () => (await call("exit 0"))?.ok === true);
    expect(again.log.events()).toContain("call");
    await again.stop();
  });

  test("that is told to end finishes what runs, delivers it, refuses what is new, and ends", async () => {
    const daemon = await run();
    const begun = Promise.withResolvers<void>();
    const slow = call("echo begun; sleep 1; echo done", begun.resolve);
    await begun.promise;
    await controller.api.shutdown(nodeId);
    expect(await slow).toMatchObject({ ok: true, stdout: { head: "begun\ndone\n" } });
    await eventually("the end", () => daemon.log.events().includes("stopped"));
    expect(daemon.log.find("shutdown_asked")).toBeDefined();
    expect(JSON.parse(host.text("run/status.json"))).toMatchObject({ state: "stopped" });
    await daemon.stop();
  });
});
