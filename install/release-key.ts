/**
 * The key that signs releases: ECDSA P-256 over SHA-256, which plain openssl and LibreSSL both verify. Without a key of
 * its own a release is signed with one that everybody knows, and its manifest says so.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { p256 } from "@noble/curves/nist.js";

export interface ReleaseKey {
  /** True: anybody can sign with it. */
  isTestKey: boolean;
  publicPem: string;
  /** DER, as `openssl dgst -sha256 -verify` takes it. The same bytes for the same message. */
  sign(message: Uint8Array): Uint8Array;
}

/**
 * From the file AEGIS_RELEASE_KEY_FILE, else the PEM text AEGIS_RELEASE_KEY, else the key that everybody knows. Throws for
 * one that is empty: a secret that a build machine was not given must not end in a release that anybody can sign.
 */
export function releaseKey(env: Readonly<Record<string, string | undefined>>): ReleaseKey {
  for (const name of ["AEGIS_RELEASE_KEY_FILE", "AEGIS_RELEASE_KEY"])
    if (env[name] === "") throw new Error(`${name} is empty; unset it to sign with the key that everybody knows`);
  const pem = env.AEGIS_RELEASE_KEY_FILE ? readFileSync(env.AEGIS_RELEASE_KEY_FILE, "utf8") : env.AEGIS_RELEASE_KEY;
  if (pem === undefined) return { ...signer(wellKnownSecret), isTestKey: true };
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyDetails?.namedCurve !== "prime256v1")
    throw new Error(
      "the release key is not an EC key on P-256; make one with: openssl ecparam -name prime256v1 -genkey -noout",
    );
  return { ...signer(secretOf(key)), isTestKey: false };
}

/** Derived from a sentence, so that it is no secret and no file. */
const wellKnownSecret = createHash("sha256").update("aegis: the release key that everybody knows").digest();

const secretOf = (key: KeyObject): Uint8Array => Buffer.from(String(key.export({ format: "jwk" }).d), "base64url");

function signer(secret: Uint8Array): Pick<ReleaseKey, "publicPem" | "sign"> {
  const point = p256.getPublicKey(secret, false);
  const coordinate = (from: number) => Buffer.from(point.subarray(from, from + 32)).toString("base64url");
  const jwk = { kty: "EC", crv: "P-256", x: coordinate(1), y: coordinate(33) };
  const publicPem = createPublicKey({ key: jwk, format: "jwk" }).export({ format: "pem", type: "spki" }).toString();
  // RFC 6979: the nonce comes from key and message, so two builds sign alike.
  return { publicPem, sign: (message) => p256.sign(message, secret, { format: "der", prehash: true, lowS: false }) };
}
