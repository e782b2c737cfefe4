import { expect, test } from "bun:test";
import { Secret } from "../platform/log.ts";
import { maskSecrets } from "./mask.ts";

const secrets = ["hunter22", "hunter22-and-more", "ab", "key\n-----\nMIIBVwIB\n"].map((value) => new Secret(value));

function masked(text: string, pieceLength: number, which = secrets): string {
  const mask = maskSecrets(which);
  const bytes = Buffer.from(text);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += pieceLength)
    parts.push(Buffer.from(mask.add(bytes.subarray(at, at + pieceLength))));
  return Buffer.concat([...parts, mask.end()]).toString();
}

const text = "x hunter22 hunter2 hunter22-and-more! ab MIIBVwIB\nhunterhunter22hunter22hunter2";
const shown = "x [secret] hunter2 [secret]! ab [secret]\nhunter[secret][secret]hunter2";

test("a secret is masked wherever its bytes are cut apart, and nothing else is", () => {
  for (let length = 1; length <= text.length; length++) expect(masked(text, length)).toBe(shown);
});

test("what cannot be part of a secret is not held back", () => {
  const mask = maskSecrets(secrets);
  expect(Buffer.from(mask.add(Buffer.from("plain hunt"))).toString()).toBe("plain ");
  expect(Buffer.from(mask.add(Buffer.from("ing\n"))).toString()).toBe("hunting\n");
});

test("without secrets the bytes pass as they are", () => {
  const piece = new Uint8Array([0xff, 0x00]);
  expect(maskSecrets([]).add(piece)).toBe(piece);
  expect(masked("ab abc", 1, [new Secret("ab")])).toBe("ab abc");
});

test("masking megabytes takes no longer than reading them", () => {
  const began = performance.now();
  const mask = maskSecrets([new Secret("needle-in-a-haystack"), new Secret("a".repeat(4000))]);
  for (let i = 0; i < 64; i++) mask.add(new Uint8Array(32 * 1024).fill(0x61));
  mask.end();
  expect(performance.now() - began).toBeLessThan(2_000);
});
