import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { acquireLock, lockHolder } from "./lock.ts";
import { processStart } from "./status.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "aegis-lock-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

const file = () => join(dir, "run", "daemon.json");
const refusal = (promise: Promise<unknown>) => promise.then(() => null).catch((error: unknown) => error);

test("a second daemon is refused while the first lives, and let in once it is gone", async () => {
  const first = await acquireLock(dir);
  expect(await refusal(acquireLock(dir))).toMatchObject({
    code: "conflict",
    message: expect.stringContaining(`a daemon runs with ${dir} already: process ${process.pid}`),
  });
  expect(await lockHolder(dir)).toEqual({ pid: process.pid });
  await first.release();
  expect(await lockHolder(dir)).toBeNull();
  const second = await acquireLock(dir);
  expect(await second.held()).toBe(true);
  await second.release();
  expect(readdirSync(join(dir, "run"))).toEqual([]);
});

test("what a killed daemon left behind does not keep the next one out, even when its pid is in use again", async () => {
  mkdirSync(join(dir, "run"));
  const dead = Bun.spawn(["true"]);
  await dead.exited;
  for (const content of [
    JSON.stringify({ pid: dead.pid, started: "long ago", id: "a" }),
    JSON.stringify({ pid: process.pid, started: `not ${await processStart(process.pid)}`, id: "a" }),
    "{ half a fi",
    "",
  ]) {
    writeFileSync(file(), content);
    expect(await lockHolder(dir)).toBeNull();
    const lock = await acquireLock(dir);
    expect(JSON.parse(readFileSync(file(), "utf8"))).toMatchObject({ pid: process.pid });
    await lock.release();
  }
});

test("of many that start at once, over a dead one's lock, exactly one gets in", async () => {
  mkdirSync(join(dir, "run"));
  for (let round = 0; round < 10; round++) {
    writeFileSync(file(), JSON.stringify({ pid: 2 ** 22 + 1, started: "x", id: "a" }));
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => acquireLock(dir)));
    const won = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    expect(won).toHaveLength(1);
    expect(await won[0]?.held()).toBe(true);
    await won[0]?.release();
  }
});

test("releasing a lock that another has taken over leaves the other's alone", async () => {
  const lock = await acquireLock(dir);
  writeFileSync(file(), JSON.stringify({ pid: process.pid, started: await processStart(process.pid), id: "0b" }));
  expect(await lock.held()).toBe(false);
  await lock.release();
  expect(await lockHolder(dir)).not.toBeNull();
});
