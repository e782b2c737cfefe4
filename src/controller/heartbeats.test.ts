import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { settled } from "../../test/support/scripted-host.ts";
import { createHeartbeats, writeEveryMs } from "./heartbeats.ts";

function stage(failing = false) {
  const clock = fakeClock();
  const log = recordedLog();
  const written: Array<[string, number][]> = [];
  const store = {
    nodeHeartbeats: async (heard: ReadonlyMap<string, number>) => {
      written.push([...heard]);
      if (failing && written.length === 1) throw new Error("disk full");
    },
  };
  return { clock, log, written, heard: createHeartbeats({ store, clock, time: clock.now, log }) };
}

test("the first is written at once, what follows together, each host with its last time", async () => {
  const { clock, written, heard } = stage();
  const start = clock.now();
  heard("a");
  expect(written).toEqual([[["a", start]]]);
  heard("b");
  await settled();
  await clock.advance(writeEveryMs / 2);
  for (const nodeId of ["a", "b", "c"]) heard(nodeId);
  expect(written).toHaveLength(1);
  await settled();
  await clock.advance(writeEveryMs / 2);
  const later = start + writeEveryMs / 2;
  expect(new Map(written[1])).toEqual(
    new Map([
      ["a", later],
      ["b", later],
      ["c", later],
    ]),
  );
  await settled();
  await clock.advance(writeEveryMs);
  expect(written).toHaveLength(2);
  heard("a");
  expect(written).toHaveLength(3);
});

test("a write that fails is told, and the next one is tried", async () => {
  const { clock, log, written, heard } = stage(true);
  heard("a");
  heard("b");
  await settled();
  await clock.advance(writeEveryMs);
  expect(log.find("store_failed")).toMatchObject({ hosts: 1 });
  expect(written.map((batch) => batch.map(([nodeId]) => nodeId))).toEqual([["a"], ["b"]]);
});
