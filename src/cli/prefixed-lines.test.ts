import { expect, test } from "bun:test";
import { prefixedLines } from "./prefixed-lines.ts";

function collected() {
  const writes: string[] = [];
  const lines = prefixedLines("web-1 | ", async (bytes) => {
    writes.push(Buffer.from(bytes).toString("latin1"));
  });
  const push = (text: string) => lines.push(Buffer.from(text, "latin1"));
  return { writes, push, end: lines.end };
}

test("a line is written once it is whole, whatever the chunks are", async () => {
  const { writes, push, end } = collected();
  await push("one\ntw");
  expect(writes).toEqual(["web-1 | one\n"]);
  await push("o\n\nthr");
  expect(writes[1]).toBe("web-1 | two\nweb-1 | \n");
  await push("");
  await end();
  expect(writes[2]).toBe("web-1 | thr\n");
  await end();
  expect(writes).toHaveLength(3);
});

test("bytes that are no text pass unchanged", async () => {
  const { writes, push } = collected();
  await push("\xff\x00\xe4\n");
  expect(writes).toEqual(["web-1 | \xff\x00\xe4\n"]);
});

test("a line without an end is not held for ever", async () => {
  const { writes, push } = collected();
  for (let chunk = 0; chunk < 64; chunk++) await push("x".repeat(4096));
  expect(writes).toHaveLength(4);
  expect(writes[0]).toHaveLength("web-1 | \n".length + 64 * 1024);
});
