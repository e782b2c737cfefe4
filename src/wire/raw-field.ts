/**
 * Messages inside a message, as the bytes they came in: decoding one and encoding it again loses what this version does
 * not know, so what is kept or passed on is never made that way.
 */
import protobuf from "protobufjs/minimal.js";

const lengthDelimited = 2;

/** Every value of a length-delimited field, in order. Throws on bytes that are no message. */
export function rawFields(message: Uint8Array, field: number): Uint8Array[] {
  const reader = protobuf.Reader.create(message);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === ((field << 3) | lengthDelimited)) found.push(Uint8Array.from(reader.bytes()));
    else reader.skipType(tag & 7);
  }
  return found;
}

/** A message with these values of a repeated field behind what it holds. */
export function withRawFields(message: Uint8Array, field: number, values: readonly Uint8Array[]): Uint8Array {
  const writer = protobuf.Writer.create();
  for (const value of values) writer.uint32((field << 3) | lengthDelimited).bytes(value);
  return Buffer.concat([message, writer.finish()]);
}
