/** Hosts of a run that want an operator to sign again: who is asked, for how long, and what becomes of the others. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { type TestNodes, uuidOf } from "../../test/support/controller-rows.ts";
import type { FakeClock } from "../../test/support/fake-clock.ts";
import type { ScriptedCall, ScriptedDispatcher } from "../../test/support/scripted-dispatcher.ts";
import { testFleet } from "../../test/support/test-fleet.ts";
import type { FleetEvent } from "../api/events.ts";
import { runPolicySchema } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { Store } from "../store/store.ts";
import type { ResultEvent } from "./dispatch-types.ts";
import type { FleetRuns } from "./fleet.ts";
import type { Run } from "./fleet-run.ts";
import { maxSignaturesAgain, signaturePatienceMs } from "./fleet-signatures.ts";

const ann = { name: "ann", tenantId: "acme", scopes: [], contexts: ["default"] };
const [a, b, c] = ["a", "b", "c"].map((name) => uuidOf(`acme ${name}`)) as [string, string, string];
const bytes = (text: string): Uint8Array => Buffer.from(text);
const stale: Partial<ResultEvent> = {
  ...{ ok: false, outcome: "err", exitCode: 0, errorKind: "operator_signature_stale", receipt: "verified" },
  receiptProof: { commandBody: bytes("body"), result: bytes("result"), signature: bytes("s"), keyId: bytes("k") },
  signAgain: bytes("challenge"),
};

let store: Store;
let nodes: TestNodes;
let clock: FakeClock;
let dispatcher: ScriptedDispatcher;
let fleet: FleetRuns;
let react: (call: ScriptedCall) => void;

beforeEach(async () => {
  react = () => {};
  ({ store, nodes, clock, dispatcher, fleet } = await testFleet((call) => react(call)));
  for (const name of ["a", "b", "c"]) await nodes.add(store, name);
});
afterEach(() => store.close());

const settle = async () => {
  for (let turn = 0; turn < 100; turn++) await Promise.resolve();
};

/** A run on a, b and c, with its events as they come. */
async function start(policy: object, proofs: Record<string, string>) {
  const run = await fleet.start(
    {
      ...{ target: "All", tool: "cmd.run", argsJson: "{}", context: "default", via: "rest", progress: true },
      policy: runPolicySchema.parse(policy),
      abortOnDisconnect: false,
      operatorProofs: Object.fromEntries(Object.entries(proofs).map(([node, proof]) => [node, bytes(proof)])),
    },
    ann,
  );
  const events: FleetEvent[] = [];
  void (async () => {
    for await (const event of run.events.read(0, new AbortController().signal)) events.push(event);
  })();
  await settle();
  return { run, events };
}

const wanted = (events: readonly FleetEvent[]) =>
  events.flatMap((event) => (event.event === "signature_needed" ? [event.data] : []));
const results = (events: readonly FleetEvent[]) =>
  Object.fromEntries(events.flatMap(({ event, data }) => (event === "command_result" ? [[data.node_id, data]] : [])));
const proofsSent = () =>
  dispatcher.calls.map(({ request }) => [request.nodeId, Buffer.from(request.operator).toString()]);
const sign = (run: Run, node: string, proof: string) => fleet.sign("acme", run.runId, { [node]: bytes(proof) });

test("each host gets its own proof as it came, and no other host's", async () => {
  await start({}, { [a]: "for a", [b]: "for b", [uuidOf("acme elsewhere")]: "for nobody here" });
  expect(proofsSent().sort()).toEqual(
    [
      [a, "for a"],
      [b, "for b"],
      [c, ""],
    ].sort(),
  );
});

test("a stale signature asks for a new one with the host's receipt; the next command carries it, and the host counts once", async () => {
  react = (call) => call.answer(call.request.operator.length === 3 ? stale : {});
  const { run, events } = await start({}, { [a]: "old", [b]: "fresh", [c]: "fresh" });
  expect(wanted(events)).toEqual([
    {
      ...{ node_id: a, reason: "operator_signature_stale", operator_challenge: "Y2hhbGxlbmdl" },
      receipt: { command_body: "Ym9keQ", result: "cmVzdWx0", signature: "cw", key_id: "aw" },
    },
  ]);
  expect(results(events)[a]).toBeUndefined();
  expect(await sign(run, a, "signed again")).toEqual([a]);
  await settle();
  expect(proofsSent().at(-1)).toEqual([a, "signed again"]);
  expect(run.end).toMatchObject({ outcome: "complete", summary: { ok: 3, err: 0, skipped: 0 } });
  const [first, second] = dispatcher.calls.filter(({ request }) => request.nodeId === a);
  expect(second?.request.commandId).not.toBe(first?.request.commandId);
});

test("nobody signs again: the host is skipped as operator_gone, and so are the others whose signatures have aged, unasked", async () => {
  react = (call) => call.answer(call.request.operator.length > 0 ? stale : {});
  const { run, events } = await start({ mode: "sequential" }, { [a]: "old", [b]: "old" });
  await clock.advance(signaturePatienceMs - 1);
  await settle();
  expect(run.end).toBeNull();
  await clock.advance(1);
  await settle();
  expect(run.end).toMatchObject({ outcome: "complete", summary: { ok: 1, err: 0, skipped: 2, not_started: 0 } });
  for (const node of [a, b])
    expect(results(events)[node]).toMatchObject({
      ...{ outcome: "not_started", command_id: "", error_kind: "operator_signature_stale" },
      error_message: expect.stringContaining("operator_gone"),
    });
  // c, which nobody had to sign for, ran.
  expect(proofsSent().map(([node]) => node)).toEqual([a, c]);
});

test("an operator who declines is not waited for: the host's own answer is the result", async () => {
  react = (call) => call.answer(call.request.operator.length > 0 ? stale : {});
  const { run, events } = await start({ on_error: "continue" }, { [a]: "old" });
  expect(await sign(run, a, "")).toEqual([a]);
  await settle();
  expect(results(events)[a]).toMatchObject({ outcome: "err", error_kind: "operator_signature_stale" });
  expect(run.end).toMatchObject({ summary: { ok: 2, err: 1, skipped: 0 } });
});

test("a host that is never satisfied is asked three times, then its answer is the result", async () => {
  react = (call) => call.answer(call.request.operator.length > 0 ? stale : {});
  const { run, events } = await start({ on_error: "continue" }, { [a]: "old" });
  for (let again = 0; again < maxSignaturesAgain; again++) {
    expect(await sign(run, a, `try ${again}`)).toEqual([a]);
    await settle();
  }
  expect(wanted(events)).toHaveLength(maxSignaturesAgain);
  expect(results(events)[a]).toMatchObject({ error_kind: "operator_signature_stale" });
});

test("a stale answer to a call that nobody signed, and one whose receipt does not verify, ask nobody", async () => {
  const { signAgain: _none, ...unproven } = stale;
  react = (call) => call.answer(call.request.nodeId === a ? unproven : call.request.nodeId === b ? stale : {});
  const { events } = await start({ on_error: "continue" }, { [a]: "signed" });
  expect(wanted(events)).toEqual([]);
  for (const node of [a, b]) expect(results(events)[node]).toMatchObject({ error_kind: "operator_signature_stale" });
});

test("a cancelled run waits for no signature", async () => {
  react = (call) => call.answer(call.request.operator.length > 0 ? stale : {});
  const { run } = await start({}, { [a]: "old" });
  run.cancel("caller");
  await settle();
  expect(run.end?.outcome).toBe("cancelled");
  expect(await sign(run, a, "too late")).toEqual([]);
});

test("a proof for a host that waits for none is not kept, and another tenant's run is not found", async () => {
  const { run } = await start({}, {});
  expect(await sign(run, a, "unasked")).toEqual([]);
  const foreign = await fleet.sign("other", run.runId, { [a]: bytes("x") }).catch((error: unknown) => error);
  expect(foreign).toBeInstanceOf(AegisError);
  expect(foreign).toMatchObject({ code: "not_found" });
});

test("preview hands out each host's challenge as the host gave it", async () => {
  const live = nodes.get(a);
  if (live) live.operatorChallenge = bytes("challenge");
  const { resolved } = await fleet.preview("acme", "All");
  expect(resolved.map(({ operator_challenge }) => operator_challenge)).toEqual(["Y2hhbGxlbmdl", null, null]);
});
