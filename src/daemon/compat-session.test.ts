/** The moments of a compat session that no socket can be made to hit: silence that means yes, and ends at the wrong time. */
import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { importSigningKey, newSeed } from "../envelope/public-key.ts";
import { nothingCaptured } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";
import { acceptedAfterMs, runCompatSession } from "./compat-session.ts";
import type { Invocations } from "./invocations.ts";
import type { ControllerLink, EdgeEvent, StreamHandlers } from "./link.ts";
import { createOutbox } from "./outbox.ts";

const nodeId = "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b";
const commandId = "c0ffee00-1234-4abc-9def-0123456789ab";
const result = { ok: true, exitCode: 0, stdout: nothingCaptured, stderr: nothingCaptured };

function daemon() {
  const clock = fakeClock();
  const log = recordedLog();
  const nodeKey = importSigningKey(newSeed());
  const outbox = createOutbox({ nodeId, nodeKey: () => nodeKey, clock, log });
  const states: string[] = [];
  const streams: { handlers: StreamHandlers; sent: EdgeEvent[]; closed: boolean }[] = [];
  const link = {
    async open(handlers: StreamHandlers) {
      const stream = { handlers, sent: [] as EdgeEvent[], closed: false };
      streams.push(stream);
      return {
        send: (event: EdgeEvent) => stream.sent.push(event) > 0,
        drained: () => Promise.resolve(),
        close: () => {
          stream.closed = true;
        },
      };
    },
  } as unknown as ControllerLink;
  const invocations = { active: 0, queued: 0, draining: false, resume: () => {} } as unknown as Invocations;
  return {
    ...{ clock, log, outbox, states, streams },
    async connect() {
      const stop = new AbortController();
      const ended = runCompatSession(
        {
          ...{ link, clock, log, nodeId, nodeKey, nodeToken: "a.b.c", outbox, invocations },
          capabilities: () => aegis.cluster.v1.EdgeCapabilities.encode({ os: "linux" }).finish(),
          heartbeatIntervalMs: 30_000,
          newStreamId: () => crypto.randomUUID(),
          onState: ({ kind }) => states.push(kind),
        },
        stop.signal,
      );
      await settled();
      const stream = streams.at(-1);
      if (!stream) throw new Error("no stream");
      return { ended, stop: () => stop.abort(), stream };
    },
  };
}

const settled = async () => {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
};

const ending = { status: 0, message: "", refusal: null };
const resultsOf = (sent: readonly EdgeEvent[]) => sent.filter((event) => event.commandResult).length;

test("silence for three seconds after Hello is a yes; a stream that ends before was a no", async () => {
  const one = daemon();
  const refused = await one.connect();
  await one.clock.advance(acceptedAfterMs - 1);
  refused.stream.handlers.onEnd(ending);
  expect(await refused.ended).toMatchObject({ kind: "lost" });
  expect(one.states).toEqual(["connecting"]);
  const accepted = await one.connect();
  await one.clock.advance(acceptedAfterMs);
  expect(one.states).toEqual(["connecting", "connecting", "connected"]);
  expect(accepted.stream.sent).toHaveLength(1);
  accepted.stop();
  expect(await accepted.ended).toEqual({ kind: "shutdown" });
  expect(accepted.stream.closed).toBe(true);
});

test("a result that is ready just as the stream ends waits for the next one", async () => {
  const one = daemon();
  const first = await one.connect();
  await one.clock.advance(acceptedAfterMs);
  const delivery = one.outbox.open({ commandId, commandBody: new Uint8Array(), initialCredit: 0 });
  first.stream.handlers.onEnd(ending);
  delivery.finish({ result, started: true, durationMs: 1 });
  await first.ended;
  expect([resultsOf(first.stream.sent), one.outbox.waiting]).toEqual([0, 1]);
  const second = await one.connect();
  await one.clock.advance(acceptedAfterMs);
  await settled();
  expect([resultsOf(second.stream.sent), one.outbox.waiting]).toEqual([1, 0]);
  second.stop();
  await second.ended;
});

test("every result that waited is written once: none is skipped because another was", async () => {
  const one = daemon();
  for (let n = 0; n < 5; n++) {
    const id = `${commandId.slice(0, -1)}${n}`;
    const delivery = one.outbox.open({ commandId: id, commandBody: new Uint8Array(), initialCredit: 0 });
    delivery.finish({ result, started: true, durationMs: 1 });
  }
  const first = await one.connect();
  await one.clock.advance(acceptedAfterMs);
  await settled();
  expect([resultsOf(first.stream.sent), one.outbox.waiting]).toEqual([5, 0]);
  first.stream.handlers.onEnd(ending);
  await first.ended;
  const second = await one.connect();
  await one.clock.advance(acceptedAfterMs);
  expect(resultsOf(second.stream.sent)).toBe(0);
  second.stop();
  await second.ended;
});
