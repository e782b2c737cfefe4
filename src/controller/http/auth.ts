/** Who is asking: an operator's opaque bearer token, looked up by its hash, as the principal it stands for. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

/** By this a scanner of leaked secrets knows one of ours. */
export const apiTokenPrefix = "aegis_";

/** 256 random bits behind the prefix, in base64url. */
export const newApiToken = (): string => `${apiTokenPrefix}${randomBytes(32).toString("base64url")}`;

/** What is kept of a token: random enough that a plain SHA-256 cannot be searched. */
export const hashApiToken = (token: string): Uint8Array => createHash("sha256").update(token).digest();

export const sameHash = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b);
