import { Writable } from "node:stream";

export interface Sink extends Writable {
  /** All that was written so far. */
  text(): string;
}

/** A stream that remembers what was written to it. */
export function sink(): Sink {
  const chunks: Uint8Array[] = [];
  const stream = new Writable({
    decodeStrings: true,
    write(chunk: Uint8Array, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
  return Object.assign(stream, { text: () => Buffer.concat(chunks).toString("utf8") });
}
