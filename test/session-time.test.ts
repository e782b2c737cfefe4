/** How old a command may be when it runs, whatever a relay holds back and whatever the clocks say. */
import { describe, expect, test } from "bun:test";
import type { EdgeCommand } from "../src/daemon/link.ts";
import { maxCommandAgeMs, maxSuspendMs } from "../src/envelope/freshness.ts";
import { settled } from "./support/scripted-host.ts";
import { causeOf } from "./support/strict-daemon.ts";
import { type StrictPair, strictPair } from "./support/strict-pair.ts";

const yearMs = 365.25 * 86_400_000;
const isCommand = (command: EdgeCommand) => command.sealed?.kind === 0x11;
const isAccept = (command: EdgeCommand) => command.sealed?.kind === 0x10;

/** Holds what `which` names until it is let go. */
function holdBack(pair: StrictPair, which: (command: EdgeCommand) => boolean): () => void {
  const held: Array<() => void> = [];
  let holding = true;
  const before = pair.relay.down;
  pair.relay.down = (command, forward) => {
    if (holding && which(command)) held.push(() => forward(command));
    else before(command, forward);
  };
  return () => {
    holding = false;
    for (const release of held) release();
  };
}

/** A session whose ACCEPT a relay held for so long. */
async function connectedAfter(pair: StrictPair, heldMs: number) {
  const release = holdBack(pair, isAccept);
  const session = pair.daemon.connect();
  await settled();
  await pair.pass(heldMs);
  release();
  await settled();
  expect(pair.daemon.states).toContain("connected");
  return session;
}

/** Whether a command that was held for so long still runs. */
async function runsAfter(
  pair: StrictPair,
  heldMs: number,
  hold: (pair: StrictPair) => Promise<void> | void = () => {},
) {
  const release = holdBack(pair, isCommand);
  const call = pair.call({ nodeId: pair.identity.nodeId });
  await settled();
  await pair.pass(heldMs);
  await hold(pair);
  release();
  await settled();
  pair.daemon.tool.runs[0]?.end();
  const { outcome } = await call.result;
  return { outcome, ran: pair.daemon.tool.runs.length > 0 };
}

const ran = { outcome: "ok", ran: true } as const;
const refused = { outcome: "edge_disconnected", ran: false } as const;

describe("17 a COMMAND held back by a relay", () => {
  test("17 for 31 s: it does not run, and the session ends", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    expect(await runsAfter(pair, maxCommandAgeMs + 1_000)).toEqual(refused);
    expect(causeOf(await session.ended)).toMatch(/held back for longer than 30 s/);
  });

  test("17 for 29 s: it runs", async () => {
    const pair = await strictPair();
    await pair.connected();
    expect(await runsAfter(pair, maxCommandAgeMs - 1_000)).toEqual(ran);
  });

  test("17 for 31 s, a day into the session", async () => {
    const pair = await strictPair({ heartbeatIntervalMs: 3_600_000 });
    await pair.connected();
    await pair.pass(86_400_000);
    expect(await runsAfter(pair, maxCommandAgeMs + 1_000)).toEqual(refused);
  });
});

describe("17b an ACCEPT held back, and then a COMMAND", () => {
  test("17b ACCEPT 9 s, COMMAND 25 s: refused, because a relay has 30 s in all", async () => {
    const pair = await strictPair();
    await connectedAfter(pair, 9_000);
    expect(await runsAfter(pair, 25_000)).toEqual(refused);
  });

  test("17b ACCEPT 9 s, COMMAND 20 s: runs", async () => {
    const pair = await strictPair();
    await connectedAfter(pair, 9_000);
    expect(await runsAfter(pair, 20_000)).toEqual(ran);
  });

  test("17b a Hello held back turns the estimate back no more than an ACCEPT does", async () => {
    const pair = await strictPair();
    const honest = pair.relay.up;
    let release: () => void = () => {};
    pair.relay.up = (event, forward) => {
      if (event.hello) release = () => forward(event);
      else honest(event, forward);
    };
    pair.daemon.connect();
    await settled();
    await pair.pass(9_000);
    release();
    await settled();
    expect(pair.daemon.states).toContain("connected");
    expect(await runsAfter(pair, 25_000)).toEqual(refused);
  });
});

describe("17c a machine that sleeps", () => {
  test("17c for an hour with a COMMAND held: it does not run, and the session ends", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    const sleep = () => {
      pair.host.suspend(3_600_000);
    };
    expect(await runsAfter(pair, 5_000, sleep)).toEqual(refused);
    expect(causeOf(await session.ended)).toMatch(/stood still/);
  });

  test("17c for an hour with nothing to do: the next tick ends the session", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    pair.host.suspend(3_600_000);
    await pair.pass(5_000);
    expect(causeOf(await session.ended)).toMatch(/stood still/);
  });

  test("17c during the handshake, which no timer of the daemon notices", async () => {
    const pair = await strictPair();
    const release = holdBack(pair, isAccept);
    const session = pair.daemon.connect();
    await settled();
    pair.host.suspend(9_000);
    await pair.clock.advance(9_000);
    release();
    await settled();
    expect(await runsAfter(pair, 1_000)).toEqual(refused);
    expect(causeOf(await session.ended)).toMatch(/stood still/);
  });

  test("17c many short times add up", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    for (let nap = 0; nap < 4; nap++) {
      pair.host.suspend(maxSuspendMs / 2);
      await pair.pass(10_000);
    }
    expect(causeOf(await session.ended)).toMatch(/stood still/);
  });

  test("17c a stopped process: time went on, and no tick came", async () => {
    const pair = await strictPair();
    const session = await pair.connected();
    const stopped = () => {
      pair.host.sleep = () => new Promise(() => {});
    };
    stopped();
    expect(await runsAfter(pair, 27_000)).toEqual(refused);
    expect(causeOf(await session.ended)).toMatch(/stood still/);
  });
});

describe("18 a host whose clock is wrong", () => {
  for (const years of [10, -10]) {
    test(`18 by ${years} years: a call works, also when the clock is then set right`, async () => {
      const pair = await strictPair();
      pair.host.step(years * yearMs);
      await pair.connected();
      expect(await runsAfter(pair, 10)).toEqual(ran);
      pair.host.step(-years * yearMs);
      const call = pair.call({ nodeId: pair.identity.nodeId });
      await settled();
      pair.daemon.tool.runs[1]?.end();
      expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });
    });
  }
});

describe("19 a controller whose clock is stepped mid-session", () => {
  for (const hours of [-1, 1]) {
    test(`19 by ${hours} h: a call works, and so does a new session`, async () => {
      const pair = await strictPair();
      const session = await pair.connected();
      pair.clock.step(hours * 3_600_000);
      expect(await runsAfter(pair, 10)).toEqual(ran);
      session.stop();
      await session.ended;
      await settled();
      await pair.connected();
      const call = pair.call({ nodeId: pair.identity.nodeId });
      await settled();
      pair.daemon.tool.runs[1]?.end();
      expect(await call.result).toMatchObject({ ok: true });
    });
  }
});

test("a host whose owner lets it say less often that it is there counts as connected in between, and as unhealthy when it stops", async () => {
  const pair = await strictPair({ heartbeatIntervalMs: 300_000 });
  const session = await pair.connected();
  const { nodeId } = pair.identity;
  for (let minute = 1; minute < 12; minute++) {
    await pair.pass(60_000);
    expect([minute, pair.sessions.status(nodeId)]).toEqual([minute, "connected"]);
  }
  // Its process stands still, and nothing on the way notices.
  await pair.clock.advance(13 * 60_000);
  expect(pair.sessions.status(nodeId)).toBe("connected");
  await pair.clock.advance(2 * 60_000);
  expect(pair.sessions.status(nodeId)).toBe("unhealthy");
  session.stop();
  await session.ended;
});

test("a session lives for days, and its calls come through on time", async () => {
  const pair = await strictPair({ heartbeatIntervalMs: 3_600_000 });
  const session = await pair.connected();
  for (let day = 0; day < 2; day++) {
    for (let hour = 0; hour < 24; hour++) await pair.pass(3_600_000);
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    pair.daemon.tool.runs.at(-1)?.end();
    expect((await call.result).ok).toBe(true);
  }
  session.stop();
  expect(await session.ended).toEqual({ kind: "shutdown" });
});
