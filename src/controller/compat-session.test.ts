/** What a compat session holds back: output that nobody reads in time, and capabilities that nobody signed. */
import { describe, expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { type CompatKind, canonicalPayload, innerOf, signCompat } from "../envelope/compat.ts";
import { importSigningKey, newSeed } from "../envelope/public-key.ts";
import { sha256 } from "../envelope/statement.ts";
import { aegis } from "../wire/gen/messages.js";
import type { SessionCallEvent } from "./bus.ts";
import { compatSession, maxWaitingBytes, peerCapabilities } from "./compat-session.ts";
import type { Settlement } from "./result-ledger.ts";

const { EdgeCommand, EdgeEvent, EdgeCapabilities } = aegis.cluster.v1;
const nodeId = "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b";
const streamId = "9e107d9d-372b-4b68-a1b2-c3d4e5f60718";
const commandId = "c0ffee00-1234-4abc-9def-0123456789ab";
const body = EdgeCommand.encode({ invokeTool: { commandId, toolName: "cmd.run" } }).finish();

function session({ store = () => Promise.resolve() }: { store?: () => Promise<void> } = {}) {
  const key = importSigningKey(newSeed());
  const clock = fakeClock();
  const log = recordedLog();
  const sent: aegis.cluster.v1.EdgeCommand.$Properties[] = [];
  const settled: Settlement[] = [];
  const noted: Uint8Array[] = [];
  let ended = false;
  const compat = compatSession({
    ...{ nodeId, tenantId: "acme", nodeKey: key, streamId, nodeToken: "a.b.c", clock, time: clock.now, log },
    stream: {
      send: (command) => void sent.push(command),
      end() {
        ended = true;
      },
    },
    capabilities: peerCapabilities(null),
    ledger: {
      settle: async (settlement) => {
        settled.push(settlement);
        await store();
        return true;
      },
    },
    onHeartbeat: () => {},
    onCapabilities: (bytes) => void noted.push(bytes),
  });
  const envelope = (kind: CompatKind, inner: Uint8Array) => ({
    nodeSecurityToken: "a.b.c",
    ...signCompat(key, canonicalPayload({ kind, timestampMs: clock.now(), nodeId, streamId, inner })),
  });
  /** As it comes off the wire. */
  const say = (event: aegis.cluster.v1.EdgeEvent.$Properties) =>
    compat.event(EdgeEvent.decode(EdgeEvent.encode(event).finish()));
  return {
    ...{ compat, clock, log, sent, settled, noted, envelope, say },
    get ended() {
      return ended;
    },
    progress(sequence: number, chunk: Uint8Array) {
      const signed = envelope("progress", innerOf.progress({ commandId, sequence, stderr: false, chunk }));
      return say({ commandProgress: { envelope: signed, commandId, sequence, chunk } });
    },
    result: () =>
      say({
        commandResult: { envelope: envelope("result", innerOf.result(commandId)), commandId, result: { ok: true } },
      }),
  };
}

async function rest(events: AsyncIterator<SessionCallEvent>): Promise<SessionCallEvent[]> {
  const all: SessionCallEvent[] = [];
  for (;;) {
    const { value, done } = await events.next();
    if (done) return all;
    all.push(value);
  }
}

const call = (one: ReturnType<typeof session>, window = 1, signal = new AbortController().signal) =>
  one.compat.call({ commandId, body, window }, signal)[Symbol.asyncIterator]();

describe("output that is not read", () => {
  test("is kept up to its bound; what is lost is counted where it is missing, and the output is incomplete", async () => {
    const one = session();
    const events = call(one);
    const first = events.next();
    const chunk = new Uint8Array(maxWaitingBytes / 4);
    for (let n = 0; n < 8; n++) expect(one.progress(n, chunk)).toBe(true);
    expect((await first).value).toMatchObject({ kind: "progress", offset: 0, skippedBytes: 0 });
    for (let n = 1; n < 4; n++)
      expect((await events.next()).value).toMatchObject({ offset: n * chunk.length, skippedBytes: 0 });
    expect(one.progress(8, chunk)).toBe(true);
    one.result();
    const [late, result, ...none] = await rest(events);
    expect(late).toMatchObject({ offset: 8 * chunk.length, skippedBytes: 4 * chunk.length });
    expect(result).toMatchObject({ kind: "result", receipt: "peer_id_only", outputComplete: false });
    expect(none).toEqual([]);
  });

  test("is not kept at all when nobody wants it, and that makes no output incomplete", async () => {
    const one = session();
    const events = call(one, 0);
    const first = events.next();
    one.progress(0, Buffer.from("unwanted"));
    one.result();
    expect((await first).value).toMatchObject({ kind: "result", outputComplete: true });
  });
});

describe("capabilities", () => {
  const capabilities = { os: "linux", tools: [{ name: "fs.read", readOnly: true }], paused: true };
  const digest = sha256(EdgeCapabilities.encode(capabilities).finish());

  test("that the host signed are taken", () => {
    const one = session();
    const envelope = one.envelope("capabilities", innerOf.capabilities(digest));
    expect(one.say({ capabilityUpdate: { envelope, capabilities } })).toBe(true);
    expect(one.compat.live.paused).toBe(true);
    expect([...one.compat.live.tools.keys()]).toEqual(["fs.read"]);
    expect(one.noted).toHaveLength(1);
  });

  test("that it did not are left aside, and the stream goes on: the peer has no form for them", () => {
    const one = session();
    const other = one.envelope("capabilities", innerOf.capabilities(sha256("something else")));
    for (const envelope of [null, other]) expect(one.say({ capabilityUpdate: { envelope, capabilities } })).toBe(true);
    expect([...one.compat.live.tools.keys()]).toEqual(["cmd.run"]);
    expect(one.noted).toEqual([]);
  });
});

describe("a call", () => {
  test("that was cancelled and is not answered ends after a while", async () => {
    const one = session();
    const stop = new AbortController();
    const events = call(one, 1, stop.signal);
    const end = events.next();
    stop.abort("caller");
    expect(one.sent[1]).toMatchObject({ cancel: { commandId } });
    await one.clock.advance(10_000);
    expect((await end).value).toEqual({ kind: "disconnected" });
    // Too late: nobody waits for it any more.
    one.result();
    expect(one.settled).toEqual([]);
  });

  test("takes one result, also while that one is being stored", async () => {
    const stored = Promise.withResolvers<void>();
    const one = session({ store: () => stored.promise });
    const end = rest(call(one));
    one.result();
    one.result();
    stored.resolve();
    expect(await end).toHaveLength(1);
    expect(one.settled).toHaveLength(1);
  });

  test("whose result cannot be stored is not told as done: the stream ends instead", async () => {
    const one = session({ store: () => Promise.reject(new Error("disk full")) });
    const events = call(one);
    const end = events.next();
    one.result();
    expect((await end).value).toEqual({ kind: "disconnected" });
    expect(one.ended).toBe(true);
    expect(one.log.find("result_not_stored")).toMatchObject({ command_id: commandId, error: "disk full" });
  });

  test("on a stream that is gone was never sent", async () => {
    const one = session();
    one.compat.closed();
    expect((await call(one).next()).value).toEqual({ kind: "unreachable" });
    expect(one.sent).toEqual([]);
  });
});
