import { expect, test } from "bun:test";
import { quote } from "./quote.ts";

test("what somebody else wrote cannot act on a terminal, reorder a line or flood a message", () => {
  expect(quote("/home/ann/a b")).toBe('"/home/ann/a b"');
  expect(quote("\u001b[2J\n\u0000")).toBe('"\\u001b[2J\\n\\u0000"');
  expect(quote("a\u202egnp.exe")).toBe('"a\\u{202e}gnp.exe"');
  expect(quote("a\u009b31m\u2028\u{e0041}")).toBe('"a\\u{9b}31m\\u{2028}\\u{e0041}"');
  expect(quote("x".repeat(1_000_000))).toBe(`"${"x".repeat(120)}" and 999880 more characters`);
});
