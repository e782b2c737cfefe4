import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { openSpill } from "./spill.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "aegis-spill-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

const open = (sizes: { head: number; tail: number }) => openSpill(join(directory, `${Math.random()}`), sizes as never);
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
const produced = (length: number) => Array.from({ length }, (_, i) => String.fromCharCode(97 + (i % 26))).join("");

test("whatever the pieces, the beginning and the latest are kept at their places", async () => {
  for (const length of [5, 10, 11, 17, 18, 26, 61])
    for (const size of [1, 3, 7, 8, 9, 40]) {
      const spill = await open({ head: 10, tail: 8 });
      const whole = produced(length);
      for (let at = 0; at < length; at += size) await spill.add(Buffer.from(whole.slice(at, at + size)));
      expect(spill.bytes).toBe(length);
      for (let offset = 0; offset <= length + 1; offset++) {
        const { bytes, offset: from } = await spill.read(offset, 1_000);
        const isKept = offset < 10 || offset >= length - 8;
        expect(from).toBe(isKept ? offset : length - 8);
        // What lies between beginning and end is gone: a read from the beginning stops before it.
        const end = from < 10 && length > 18 ? 10 : length;
        expect(text(bytes)).toBe(whole.slice(from, end));
      }
      const { head, tail, bytes } = await spill.captured(6);
      expect(bytes).toBe(length);
      expect(text(head) + text(tail)).toBe(length <= 6 ? whole : whole.slice(0, 3) + whole.slice(-3));
      await spill.close();
    }
});

test("all of it comes back as long as it fits", async () => {
  const spill = await open({ head: 10, tail: 8 });
  await spill.add(Buffer.from(produced(18)));
  const { head, tail } = await spill.captured(100);
  expect(text(head) + text(tail)).toBe(produced(18));
  await spill.add(Buffer.from("!"));
  const cut = await spill.captured(100);
  expect(text(cut.head) + text(cut.tail)).toBe(`${produced(10)}${produced(18).slice(11)}!`);
  await spill.close();
});

needs("linux")("its file is no longer than what is kept, and has no name that could stay behind", async () => {
  const spill = await open({ head: 100, tail: 100 });
  for (let i = 0; i < 50; i++) await spill.add(Buffer.alloc(77));
  const [descriptor] = readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return statSync(`/proc/self/fd/${fd}`).size === 200;
    } catch {
      return false;
    }
  });
  expect(descriptor).toBeDefined();
  expect(readdirSync(directory)).toEqual([]);
  await spill.close();
});
