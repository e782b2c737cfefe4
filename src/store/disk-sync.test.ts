import { expect, test } from "bun:test";
import type { FileHandle } from "node:fs/promises";
import { diskSync } from "./disk-sync.ts";

/** A disk that finishes an order when told to. */
function slowDisk() {
  const orders: Array<{ done(): void; fail(error: Error): void }> = [];
  let closed = false;
  const handle = {
    datasync: () => new Promise<void>((done, fail) => orders.push({ done, fail })),
    close: async () => {
      closed = true;
    },
  } as unknown as FileHandle;
  return {
    orders,
    disk: diskSync("wal", async () => handle),
    get closed() {
      return closed;
    },
  };
}

const turns = async () => {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
};

test("who waits is told only by an order that began after the write", async () => {
  const { disk, orders } = slowDisk();
  const told: string[] = [];
  const wait = (name: string) => disk.synced().then(() => told.push(name));
  const all = [wait("a"), wait("b"), wait("c"), wait("d")];
  await turns();
  expect(orders).toHaveLength(2);
  orders[0]?.done();
  await turns();
  expect(told).toEqual(["a"]);
  expect(orders).toHaveLength(3);
  orders[2]?.done();
  await turns();
  expect(told.sort()).toEqual(["a", "c", "d"]);
  orders[1]?.done();
  await Promise.all(all);
});

test("a disk that fails says so to everybody who waits, and the next order is a new one", async () => {
  const { disk, orders } = slowDisk();
  const failures = Promise.allSettled([disk.synced(), disk.synced(), disk.synced()]);
  await turns();
  for (const order of orders) order.fail(new Error("EIO"));
  await turns();
  orders[2]?.fail(new Error("EIO again"));
  expect((await failures).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
  const later = disk.synced();
  await turns();
  orders[3]?.done();
  await later;
});

test("closing waits for what is under way", async () => {
  const slow = slowDisk();
  const waited = slow.disk.synced();
  await turns();
  const closing = slow.disk.close();
  await turns();
  expect(slow.closed).toBe(false);
  slow.orders[0]?.done();
  await Promise.all([waited, closing]);
  expect(slow.closed).toBe(true);
});
