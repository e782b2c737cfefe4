/** A frame as the message that carries it, and back: the same at both ends. */
import type { aegis } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";
import type { Frame } from "./frame.ts";

type SealedFrame = aegis.cluster.v1.SealedFrame.$Properties;

export const sealedOf = (frame: Frame): SealedFrame => ({
  ...frame,
  seq: toLong(frame.seq),
  timeMs: toLong(frame.timeMs),
});

/** With plain numbers; null for one whose numbers no frame can have, and for none. */
export function frameOf(sealed: SealedFrame | null | undefined): Frame | null {
  const seq = whole(sealed?.seq);
  const timeMs = whole(sealed?.timeMs);
  if (!sealed || seq === null || timeMs === null) return null;
  return {
    kind: sealed.kind ?? 0,
    seq,
    timeMs,
    body: sealed.body ?? new Uint8Array(),
    auth: sealed.auth ?? new Uint8Array(),
  };
}
