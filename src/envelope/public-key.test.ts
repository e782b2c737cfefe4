/** Keys for which anyone can sign are no keys, and a signature is what node:crypto says it is. */
import { describe, expect, test } from "bun:test";
import { createPublicKey, randomBytes, verify } from "node:crypto";
import { hashes, verify as nobleVerify, Point } from "@noble/ed25519";
import { mixedOrderKey } from "../../test/support/mixed-order.ts";
import { fingerprint, importPublicKey, importSigningKey, newSeed } from "./public-key.ts";
import { sha256 } from "./statement.ts";

hashes.sha512 = (message) => new Bun.CryptoHasher("sha512").update(message).digest() as Uint8Array<ArrayBuffer>;

const hex = (text: string) => Buffer.from(text, "hex");
/** The eight points of small order, and other spellings of them. */
const weak = [
  "0100000000000000000000000000000000000000000000000000000000000000",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0000000000000000000000000000000000000000000000000000000000000080",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
  "0100000000000000000000000000000000000000000000000000000000000080",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];
const spki = (raw: Uint8Array) =>
  createPublicKey({ key: Buffer.concat([hex("302a300506032b6570032100"), raw]), format: "der", type: "spki" });

describe("importing a public key", () => {
  test("29 none of small order, in any spelling, though node:crypto takes them and a forgery with them", () => {
    const forgery = Buffer.concat([Buffer.from([1]), Buffer.alloc(63)]);
    expect(verify(null, Buffer.from("anything"), spki(hex(weak[0] ?? "")), forgery)).toBe(true);
    for (const key of weak) expect([key, importPublicKey(hex(key))]).toEqual([key, null]);
  });

  test("29 none that has a part of small order", () => {
    const torsion = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    const mixed = Point.fromBytes(Uint8Array.from(importSigningKey(newSeed()).raw))
      .add(torsion)
      .toBytes();
    expect(importPublicKey(mixed)).toBeNull();
  });

  test("none that is no point, and none of another length", () => {
    const good = importSigningKey(newSeed()).raw;
    for (const raw of [
      hex("02".padEnd(64, "0")),
      good.subarray(0, 31),
      Buffer.concat([good, Buffer.from([0])]),
      Buffer.alloc(0),
    ])
      expect(importPublicKey(raw)).toBeNull();
  });

  test("a refusal is not remembered, and a success is", () => {
    const key = importSigningKey(newSeed());
    const imported = importPublicKey(key.raw);
    expect(imported).not.toBeNull();
    expect(importPublicKey(key.raw)).toBe(imported);
    expect(importPublicKey(hex(weak[0] ?? ""))).toBeNull();
  });

  test("the caller's bytes are copied, so that nobody changes a key afterwards", () => {
    const raw = Uint8Array.from(importSigningKey(newSeed()).raw);
    const key = importPublicKey(raw);
    const before = Buffer.from(key?.raw ?? []).toString("hex");
    raw.fill(0);
    expect(Buffer.from(key?.raw ?? []).toString("hex")).toBe(before);
  });
});

describe("verifying", () => {
  const key = importSigningKey(newSeed());
  const message = randomBytes(100);

  test("holds for what was signed, and for nothing one bit away", () => {
    const signature = Buffer.from(key.sign(message));
    expect(key.verify(message, signature)).toBe(true);
    for (let bit = 0; bit < 512; bit += 7) {
      const spoilt = Buffer.from(signature);
      spoilt[bit >> 3] = (spoilt[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(key.verify(message, spoilt)).toBe(false);
    }
  });

  test("is false for another length", () => {
    const signature = key.sign(message);
    for (const one of [new Uint8Array(), signature.subarray(1), Buffer.concat([signature, Buffer.from([0])])])
      expect(key.verify(message, one)).toBe(false);
  });

  test("74 is false for an R with a part of small order, which the second implementation takes", () => {
    const mixed = mixedOrderKey(newSeed());
    const signature = mixed.sign(message);
    expect(
      nobleVerify(Uint8Array.from(signature), Uint8Array.from(message), Uint8Array.from(mixed.raw), { zip215: false }),
    ).toBe(true);
    expect(mixed.verify(message, signature)).toBe(false);
    expect(importPublicKey(mixed.raw)?.verify(message, signature)).toBe(false);
  });

  test("is false for an S above the order of the group", () => {
    const signature = Buffer.from(key.sign(message));
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString("hex")}`) + order;
    const bytes = Buffer.from(s.toString(16).padStart(64, "0"), "hex").reverse();
    expect(key.verify(message, Buffer.concat([signature.subarray(0, 32), bytes]))).toBe(false);
  });

  test("agrees with the second implementation on honest signatures", () => {
    for (let n = 0; n < 20; n++) {
      const one = importSigningKey(newSeed());
      const signature = Uint8Array.from(one.sign(message));
      expect(nobleVerify(signature, Uint8Array.from(message), Uint8Array.from(one.raw))).toBe(true);
    }
  });
});

test("names: the key id is the digest of the raw key, in the three spellings people meet", () => {
  const key = importSigningKey(newSeed());
  expect(key.keyId).toEqual(sha256(key.raw));
  expect(Buffer.from(key.kid, "base64url")).toEqual(Buffer.from(key.keyId));
  expect(fingerprint(key)).toMatch(/^SHA256:[A-Za-z0-9+/]{43}$/);
  expect(() => importSigningKey(new Uint8Array(31))).toThrow(RangeError);
});
