/**
 * Fields of a message as bytes. A message inside another is kept and passed on like this, because decoding it and encoding it
 * again loses what this version does not know; and what is long is put into a message like this, because the generated
 * encoder copies it several times.
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

/** What stands before the value of a length-delimited field. */
export const fieldHead = (field: number, bytes: number): Uint8Array =>
  protobuf.Writer.create()
    .uint32((field << 3) | lengthDelimited)
    .uint32(bytes)
    .finish();

/** A message with these values of a length-delimited field behind what it holds; each is copied once. */
export function withRawFields(message: Uint8Array, field: number, values: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat([message, ...values.flatMap((value) => [fieldHead(field, value.length), value])]);
}
