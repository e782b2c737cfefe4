/**
 * Receipts: a node's signature over what it was told and what it answered, good for ever and in no session.
 * A receipt proves authorship, not truth.
 */
import type { PublicKey, SigningKey } from "./public-key.ts";
import { Digest, digestOf, sha256, statement } from "./statement.ts";

export interface ReceiptContent {
  nodeId: string;
  commandId: string;
  /** The EdgeCommand as it stood in the COMMAND frame. */
  commandBody: Uint8Array;
  /** The CommandResultEvent as it stands in SealedResult.result. */
  result: Uint8Array;
}

export const signReceipt = (key: SigningKey, content: ReceiptContent): Uint8Array =>
  key.sign(statement("receipt", content));

export const verifyReceipt = (key: PublicKey, content: ReceiptContent, signature: Uint8Array): boolean =>
  key.verify(statement("receipt", content), signature);

/** The same, of what only the SHA-256 is known: years later the words may be gone, and the proof still stands. */
export const verifyReceiptDigests = (
  key: PublicKey,
  {
    nodeId,
    commandId,
    commandDigest,
    resultDigest,
  }: Record<"nodeId" | "commandId", string> & Record<"commandDigest" | "resultDigest", Uint8Array>,
  signature: Uint8Array,
): boolean =>
  key.verify(
    statement("receipt", {
      ...{ nodeId, commandId },
      ...{ commandBody: new Digest(commandDigest), result: new Digest(resultDigest) },
    }),
    signature,
  );

/** Binds every progress frame of a command, in the order sealed, into the receipt. */
export interface ProgressChain {
  readonly frames: number;
  readonly value: Uint8Array;
  add(body: Uint8Array | Digest): void;
}

export function progressChain(): ProgressChain {
  let value: Uint8Array = new Uint8Array(32);
  let frames = 0;
  return {
    get frames() {
      return frames;
    },
    get value() {
      return value;
    },
    add(body) {
      const digest = body instanceof Digest ? body : digestOf(body);
      value = sha256(Buffer.concat([value, digest.sha256]));
      frames++;
    },
  };
}
