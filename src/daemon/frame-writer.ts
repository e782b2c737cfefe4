/** Seals what the daemon says and writes it in that order; finds the frame in what it hears. */
import type { DaemonChannel, EventFrameKind, Frame } from "../envelope/frame.ts";
import { frameOf, sealedOf } from "../envelope/sealed-frame.ts";
import type { Digest } from "../envelope/statement.ts";
import type { EdgeCommand, EdgeStream } from "./link.ts";
import type { FrameSender } from "./outbox.ts";

export interface FrameWriter extends FrameSender {
  send(kind: EventFrameKind, body: Uint8Array, digest?: Digest): boolean;
}

/** The one place that seals: what is numbered is written at once, in that order. */
export function frameWriter(stream: EdgeStream, channel: DaemonChannel, timeMs: () => number): FrameWriter {
  return {
    send(kind, body, digest) {
      const frame = channel.seal(kind, body, Math.max(0, Math.round(timeMs())), digest);
      return stream.send({ sealed: sealedOf(frame) });
    },
    drained: () => stream.drained(),
  };
}

/** The frame of a message that holds one and nothing else. */
export const sealedFrame = ({ command, sealed }: EdgeCommand): Frame | null =>
  command === "sealed" ? frameOf(sealed) : null;
