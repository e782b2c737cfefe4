/** Protocol buffers by hand, so that nothing our generator believes can hide in the peers. */

/** A message as a list of fields, in the order they stand on the wire. */
export type Field = readonly [number: number, value: FieldValue];
export type FieldValue = string | number | boolean | Uint8Array;

export function varint(value: number | bigint): Buffer {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest > 0x7fn) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Buffer.from(out);
}

/** Text and bytes are length-delimited, numbers and booleans are varints; `[3, double(x)]` is a 64-bit float. */
export function message(...fields: readonly (Field | readonly [number, Double])[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const [number, value] of fields) {
    if (value instanceof Double) parts.push(varint((number << 3) | 1), value.bytes);
    else if (typeof value === "number" || typeof value === "boolean")
      parts.push(varint(number << 3), varint(Number(value)));
    else {
      const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
      parts.push(varint((number << 3) | 2), varint(bytes.length), bytes);
    }
  }
  return Buffer.concat(parts);
}

class Double {
  readonly bytes = Buffer.alloc(8);
  constructor(value: number) {
    this.bytes.writeDoubleLE(value);
  }
}

/** google.protobuf.Struct of plain JSON. */
export function struct(object: Record<string, unknown>): Buffer {
  return message(
    ...Object.entries(object).map(([key, value]): Field => [1, message([1, key], [2, structValue(value)])]),
  );
}

function structValue(value: unknown): Buffer {
  if (typeof value === "number") return message([2, new Double(value)]);
  if (typeof value === "string") return message([3, value]);
  if (typeof value === "boolean") return message([4, value]);
  if (Array.isArray(value)) return message([6, message(...value.map((item): Field => [1, structValue(item)]))]);
  if (typeof value === "object" && value !== null) return message([5, struct(value as Record<string, unknown>)]);
  return message([1, 0]);
}

/** What a message holds, by field number; a field that came twice is there twice. */
export class Fields {
  readonly #fields = new Map<number, (bigint | Buffer)[]>();

  constructor(data: Uint8Array) {
    const bytes = Buffer.from(data);
    let at = 0;
    const readVarint = (): bigint => {
      let value = 0n;
      for (let shift = 0n; ; shift += 7n) {
        const byte = bytes[at++];
        if (byte === undefined) throw new Error("the message ends inside a number");
        value |= BigInt(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
      }
    };
    const take = (length: number): Buffer => {
      if (at + length > bytes.length) throw new Error("the message ends inside a field");
      at += length;
      return bytes.subarray(at - length, at);
    };
    while (at < bytes.length) {
      const tag = Number(readVarint());
      const values = this.#fields.get(tag >> 3) ?? [];
      this.#fields.set(tag >> 3, values);
      const type = tag & 7;
      if (type === 0) values.push(readVarint());
      else if (type === 1) values.push(take(8));
      else if (type === 2) values.push(take(Number(readVarint())));
      else if (type === 5) values.push(take(4));
      else throw new Error(`wire type ${type}`);
    }
  }

  get numbers(): number[] {
    return [...this.#fields.keys()].sort((a, b) => a - b);
  }
  has(number: number): boolean {
    return this.#fields.has(number);
  }
  all(number: number): Buffer[] {
    return (this.#fields.get(number) ?? []).filter((value) => typeof value !== "bigint");
  }
  bytes(number: number): Buffer {
    return this.all(number).at(-1) ?? Buffer.alloc(0);
  }
  text(number: number): string {
    return this.bytes(number).toString("utf8");
  }
  number(number: number): number {
    const value = this.#fields.get(number)?.at(-1);
    return typeof value === "bigint" ? Number(BigInt.asIntN(64, value)) : 0;
  }
  sub(number: number): Fields {
    return new Fields(this.bytes(number));
  }
}

/** A google.protobuf.Struct as plain JSON. */
export function readStruct(fields: Fields): Record<string, unknown> {
  return Object.fromEntries(
    fields
      .all(1)
      .map((entry) => new Fields(entry))
      .map((one) => [one.text(1), readValue(one.sub(2))]),
  );
}

function readValue(value: Fields): unknown {
  if (value.has(2)) return value.bytes(2).readDoubleLE();
  if (value.has(3)) return value.text(3);
  if (value.has(4)) return value.number(4) === 1;
  if (value.has(5)) return readStruct(value.sub(5));
  if (value.has(6))
    return value
      .sub(6)
      .all(1)
      .map((item) => readValue(new Fields(item)));
  return null;
}
