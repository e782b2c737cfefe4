/** A refused Hello, said so that the daemon can believe it: an error of the network has no such effect. */
import type { PublicKey, SigningKey } from "./public-key.ts";
import { statement } from "./statement.ts";

export interface Refusal {
  nodeId: string;
  /** The SealHello it answers: a recorded refusal fits no other. */
  sealHello: Uint8Array;
  /** GoodbyeReason. */
  reason: number;
  retryAfterMs: number;
}

export const maxRetryAfterMs = 15 * 60 * 1000;

export const signRefusal = (key: SigningKey, refusal: Refusal): Uint8Array => key.sign(statement("refusal", refusal));

export const verifyRefusal = (key: PublicKey, refusal: Refusal, signature: Uint8Array): boolean =>
  key.verify(statement("refusal", refusal), signature);
