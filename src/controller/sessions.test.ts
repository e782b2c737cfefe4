/** One live session for each node, removed by what it is and not by its name. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { aegis } from "../wire/gen/messages.js";
import { inProcessBus } from "./bus.ts";
import type { LiveSession } from "./node-session.ts";
import { createSessions } from "./sessions.ts";

const { GoodbyeReason } = aegis.cluster.v1;

function stage() {
  let now = 1_000_000;
  const bus = inProcessBus();
  const sessions = createSessions(bus, () => now);
  const pass = (ms: number) => {
    now += ms;
  };
  return { bus, sessions, pass, time: () => now };
}

/** A session that says who it is. */
function live(nodeId: string, at = 1_000_000) {
  const said: Array<{ reason: aegis.cluster.v1.GoodbyeReason; detail: string }> = [];
  const told: aegis.cluster.v1.EdgeCommand.$Properties[] = [];
  const session: LiveSession = {
    live: {
      ...{ nodeId, tenantId: "acme", connectedSince: at, lastHeartbeatAt: at, activeCalls: 0, queuedCalls: 0 },
      ...{ paused: false, draining: false, tools: new Map() },
    } as unknown as LiveSession["live"],
    async *call() {
      yield { kind: "disconnected" };
    },
    tell(command) {
      told.push(command);
      return true;
    },
    bring() {},
    goodbye: (reason, detail) => void said.push({ reason, detail }),
    closed() {},
  };
  return { session, said, told };
}

const nodeId = randomUUID();

async function answerOf({ bus }: ReturnType<typeof stage>): Promise<string | undefined> {
  const call = { commandId: randomUUID(), body: new Uint8Array(), window: 0 };
  for await (const event of bus.call(nodeId, call, new AbortController().signal)) return event.kind;
  return undefined;
}

describe("a newer session", () => {
  test("takes the place of the older, which is told so", async () => {
    const one = stage();
    const [older, newer] = [live(nodeId), live(nodeId)];
    one.sessions.add(older.session, 30_000);
    one.sessions.add(newer.session, 30_000);
    expect(older.said).toEqual([{ reason: GoodbyeReason.GOODBYE_REASON_REPLACED, detail: expect.any(String) }]);
    expect([one.sessions.size, one.sessions.get(nodeId)]).toEqual([1, newer.session.live]);
  });

  test("keeps its place and its calls when the older one ends after it", async () => {
    const one = stage();
    const removeOlder = one.sessions.add(live(nodeId).session, 30_000);
    const newer = live(nodeId);
    const removeNewer = one.sessions.add(newer.session, 30_000);
    removeOlder();
    removeOlder();
    expect(one.sessions.get(nodeId)).toBe(newer.session.live);
    expect(await answerOf(one)).toBe("disconnected");
    removeNewer();
    expect(one.sessions.get(nodeId)).toBeUndefined();
    expect(await answerOf(one)).toBe("unreachable");
  });
});

describe("health", () => {
  test("no heartbeat for 90 s, or three intervals, is unhealthy", () => {
    for (const [intervalMs, patienceMs] of [
      [30_000, 90_000],
      [5_000, 90_000],
      [60_000, 180_000],
    ] as const) {
      const { sessions, pass, time } = stage();
      const { session } = live(nodeId);
      sessions.add(session, intervalMs);
      pass(patienceMs);
      expect(sessions.status(nodeId)).toBe("connected");
      pass(1);
      expect(sessions.status(nodeId)).toBe("unhealthy");
      session.live.lastHeartbeatAt = time();
      expect(sessions.status(nodeId)).toBe("connected");
    }
  });

  test("a new interval is counted with from then on", () => {
    const { sessions, pass } = stage();
    const { session, told } = live(nodeId);
    sessions.add(session, 30_000);
    expect(sessions.tell(nodeId, { drain: {} }, 100_000)).toBe(true);
    expect(told).toEqual([{ drain: {} }]);
    pass(300_000);
    expect(sessions.status(nodeId)).toBe("connected");
  });

  test("draining and absent have their own words", () => {
    const { sessions } = stage();
    expect(sessions.status(nodeId)).toBe("disconnected");
    const { session } = live(nodeId);
    sessions.add(session, 30_000);
    session.live.draining = true;
    expect(sessions.status(nodeId)).toBe("draining");
  });
});

test("one session is ended, or all, each with its reason", () => {
  const { sessions } = stage();
  const all = [live(nodeId), live(randomUUID())];
  for (const { session } of all) sessions.add(session, 30_000);
  sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REVOKED, "revoked");
  sessions.end(randomUUID(), GoodbyeReason.GOODBYE_REASON_REVOKED, "nobody");
  expect(all.map(({ said }) => said.length)).toEqual([1, 0]);
  sessions.closeAll(GoodbyeReason.GOODBYE_REASON_MAINTENANCE, "bye");
  expect(all.map(({ said }) => said.at(-1)?.detail)).toEqual(["bye", "bye"]);
  expect(sessions.nodeIds()).toHaveLength(2);
});

test("two hosts with one key that push each other out raise an alarm, a host that reconnects now and then does not", () => {
  let now = 1_000_000;
  const log = recordedLog();
  const contended: string[] = [];
  const onContended = (nodeId: string) => void contended.push(nodeId);
  const sessions = createSessions(inProcessBus(), () => now, { log, onContended });
  for (let at = 0; at < 12; at++) {
    sessions.add(live("calm").session, 30_000);
    now += 4 * 60_000;
  }
  expect(log.find("node_contended")).toBeUndefined();
  for (let at = 0; at < 4; at++) sessions.add(live("cloned").session, 30_000);
  expect(log.find("node_contended")).toBeUndefined();
  sessions.add(live("cloned").session, 30_000);
  expect(log.find("node_contended")).toMatchObject({ node_id: "cloned", replacements: 4 });
  sessions.add(live("cloned").session, 30_000);
  expect(contended).toEqual(["cloned"]);
});
