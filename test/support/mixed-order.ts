/** Signatures that some libraries take and others refuse: their R has a part of small order. */
import { createHash } from "node:crypto";
import { Point } from "@noble/ed25519";
import { importSigningKey, type SigningKey } from "../../src/envelope/public-key.ts";

const order = 2n ** 252n + 27742317777372353535851937790883648493n;
/** A point of order 8. */
const torsion = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");

const sha512 = (...parts: Uint8Array[]): Uint8Array => createHash("sha512").update(Buffer.concat(parts)).digest();
const littleEndian = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).reverse().toString("hex")}`);

/** The key of this seed; its signatures hold in the cofactored equation and not in the other. */
export function mixedOrderKey(seed: Uint8Array): SigningKey {
  const key = importSigningKey(seed);
  const expanded = sha512(seed);
  const head = Uint8Array.from(expanded.subarray(0, 32));
  head[0] = (head[0] ?? 0) & 248;
  head[31] = ((head[31] ?? 0) & 127) | 64;
  const scalar = littleEndian(head) % order;
  return {
    ...key,
    sign(message) {
      const nonce = littleEndian(sha512(expanded.subarray(32), message)) % order;
      const mixed = Point.BASE.multiply(nonce).add(torsion).toBytes();
      const challenge = littleEndian(sha512(mixed, key.raw, message)) % order;
      const s = Buffer.from(((nonce + challenge * scalar) % order).toString(16).padStart(64, "0"), "hex").reverse();
      return Buffer.concat([mixed, s]);
    },
  };
}
