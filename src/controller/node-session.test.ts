/** What one session of a host makes of its frames, and what it says in return. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { frameOf, sealed } from "../../test/support/rogue.ts";
import { settled } from "../../test/support/scripted-host.ts";
import { type ControllerStage, controllerStage } from "../../test/support/stages.ts";
import { limits } from "../platform/limits.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";

const wire = aegis.cluster.v1;

async function stage() {
  const one = await controllerStage();
  await one.begin();
  const { nodeId } = one.identity;
  const say = async (kind: "heartbeat" | "progress" | "capabilities", body: Uint8Array) => {
    one.rogue.send(sealed(one.rogue.frame(kind, body)));
    await settled();
  };
  return { ...one, nodeId, say, live: () => one.sessions.get(nodeId) };
}

const framesOf = ({ rogue }: ControllerStage, kind: number) =>
  rogue.commands.map(frameOf).filter((frame) => frame.kind === kind);

describe("a heartbeat", () => {
  test("is the time of the host's last word, and says how busy it is", async () => {
    const { clock, say, live, time, store, nodeId } = await stage();
    await clock.advance(20_000);
    await say("heartbeat", wire.HeartbeatEvent.encode({ activeInvocations: 3, queued: 2 }).finish());
    expect(live()).toMatchObject({ lastHeartbeatAt: time(), activeCalls: 3, queuedCalls: 2 });
    expect((await store.node(nodeId))?.lastHeartbeatAt).toBe(time());
  });

  test("that comes with a thousand others is written a few times, and the last one counts", async () => {
    let writes = 0;
    const one = await stage();
    const { nodeHeartbeats } = one.store;
    one.store.nodeHeartbeats = (...given) => {
      writes++;
      return nodeHeartbeats(...given);
    };
    for (let n = 0; n < 1_000; n++) one.rogue.send(sealed(one.rogue.frame("heartbeat", new Uint8Array())));
    await settled();
    expect(writes).toBeGreaterThan(0);
    expect(writes).toBeLessThan(10);
  });
});

describe("capabilities", () => {
  test("are seen and stored when they change", async () => {
    const { say, live, store, nodeId } = await stage();
    const tools = [{ name: "fs.read", readOnly: true }];
    const body = wire.EdgeCapabilities.encode({ hostName: "web-1", paused: true, tools }).finish();
    await say("capabilities", body);
    expect(live()?.paused).toBe(true);
    expect([...(live()?.tools.keys() ?? [])]).toEqual(["fs.read"]);
    expect(Buffer.from((await store.node(nodeId))?.capabilities ?? []).equals(body)).toBe(true);
  });

  test("of which many come at once: the newest is what stays", async () => {
    const one = await stage();
    for (let n = 0; n <= 50; n++) {
      const body = wire.EdgeCapabilities.encode({ hostName: `web-${n}` }).finish();
      one.rogue.send(sealed(one.rogue.frame("capabilities", body)));
    }
    await settled();
    const stored = (await one.store.node(one.nodeId))?.capabilities ?? new Uint8Array();
    expect(wire.EdgeCapabilities.decode(stored).hostName).toBe("web-50");
  });
});

describe("credit", () => {
  test("is renewed when the output is taken, and not when it arrives", async () => {
    const one = await stage();
    const commandId = randomUUID();
    const asked = { commandId, body: Buffer.from("a command"), window: limits.firstCreditBytes };
    const events = one.bus.call(one.nodeId, asked, new AbortController().signal)[Symbol.asyncIterator]();
    const next = events.next();
    await settled();
    const chunk = new Uint8Array(limits.firstCreditBytes);
    await one.say("progress", wire.CommandProgressEvent.encode({ commandId, chunk }).finish());
    const { value } = await next;
    expect(framesOf(one, 0x12)).toHaveLength(0);
    if (value?.kind === "progress") value.taken?.();
    await settled();
    const [credit] = framesOf(one, 0x12).map(({ body }) => wire.Credit.decode(body));
    expect(credit?.commandId).toBe(commandId);
    expect(whole(credit?.limit)).toBe(limits.firstCreditBytes + limits.creditPerCommandBytes);
    one.rogue.hangUp();
  });
});

describe("words to the host", () => {
  test("a command without an answer is sealed like any other; without a stream it is not sent", async () => {
    const one = await stage();
    expect(one.sessions.tell(one.nodeId, { drain: { finishWithinMs: toLong(5) } })).toBe(true);
    await settled();
    const [frame] = framesOf(one, 0x11);
    expect(frame && wire.EdgeCommand.decode(frame.body).drain).toBeDefined();
    one.rogue.hangUp();
    await settled();
    expect(one.sessions.tell(one.nodeId, { drain: {} })).toBe(false);
  });

  test("a goodbye says why and for how long, and is the last one", async () => {
    const one = await stage();
    const call = one.call({ nodeId: one.nodeId });
    await settled();
    one.sessions.closeAll(wire.GoodbyeReason.GOODBYE_REASON_MAINTENANCE, "back soon");
    await settled();
    const last = frameOf(one.rogue.commands.at(-1) ?? ({} as never));
    expect(wire.Goodbye.decode(last.body)).toMatchObject({ reason: 1, detail: "back soon" });
    expect(one.rogue.ended).toMatchObject({ status: 0 });
    expect((await call.result).outcome).toBe("edge_disconnected");
    expect(one.sessions.size).toBe(0);
  });
});

test("the end of a stream ends every call it carried, and the host is no longer connected", async () => {
  const one = await stage();
  const calls = Array.from({ length: 20 }, () => one.call({ nodeId: one.nodeId, commandId: randomUUID() }));
  await settled();
  one.rogue.hangUp();
  for (const call of calls) expect((await call.result).outcome).toBe("edge_disconnected");
  expect((await one.store.node(one.nodeId))?.connectedSince).toBeNull();
});
