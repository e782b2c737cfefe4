/**
 * The bytes that are signed: every layout of the protocol in one table, and the one function that builds them.
 * A verifier rebuilds a statement from its own state; nothing here parses one. Integers are little-endian.
 */
import { createHash } from "node:crypto";

/** `AEGIS-SEAL/1` and a zero byte: no older format begins with 0x41, so none can be taken for ours. */
export const domain = Buffer.from("AEGIS-SEAL/1\0", "latin1");

/**
 * id: UUID text, 16 bytes on the wire · b16, b32: so many bytes as given · hash: SHA-256 of the bytes given · u32, u64:
 * whole numbers below 2^53 · lp: UTF-8 text or bytes behind their u32 length.
 */
type FieldType = "id" | "b16" | "b32" | "hash" | "u32" | "u64" | "lp";

type Layout = { readonly kind: number; readonly fields: Readonly<Record<string, FieldType>> };

const frameFields = { nodeId: "id", sessionId: "b32", seq: "u64", timeMs: "u64", body: "hash" } as const;

export const layouts = {
  hello: { kind: 0x01, fields: { nodeId: "id", streamId: "id", sealHello: "hash" } },
  session: { kind: 0x02, fields: { nodeId: "id", streamId: "id", sealHello: "hash", acceptBody: "hash" } },
  accept: { kind: 0x10, fields: frameFields },
  command: { kind: 0x11, fields: frameFields },
  credit: { kind: 0x12, fields: frameFields },
  keysetFrame: { kind: 0x13, fields: frameFields },
  goodbye: { kind: 0x14, fields: frameFields },
  ack: { kind: 0x15, fields: frameFields },
  confirm: { kind: 0x20, fields: frameFields },
  heartbeat: { kind: 0x21, fields: frameFields },
  progress: { kind: 0x22, fields: frameFields },
  result: { kind: 0x23, fields: frameFields },
  capabilities: { kind: 0x24, fields: frameFields },
  receipt: { kind: 0x30, fields: { nodeId: "id", commandId: "id", commandBody: "hash", result: "hash" } },
  operatorChallenge: {
    kind: 0x31,
    fields: { nodeId: "id", challenge: "b32", tenant: "lp", hostName: "lp", nodePublicKey: "hash" },
  },
  user: {
    kind: 0x40,
    fields: {
      nodeId: "id",
      commandId: "id",
      userToken: "hash",
      tenant: "lp",
      context: "lp",
      tool: "lp",
      argsJson: "hash",
      deadlineMs: "u64",
      operator: "hash",
    },
  },
  operator: {
    kind: 0x41,
    fields: {
      nodeId: "id",
      challenge: "b32",
      statementId: "b16",
      tenant: "lp",
      context: "lp",
      tool: "lp",
      argsJson: "hash",
      deadlineMs: "u64",
      issuedMs: "u64",
      note: "lp",
    },
  },
  keyset: { kind: 0x50, fields: { controllerId: "id", version: "u64", keyset: "hash" } },
  enrollGrant: {
    kind: 0x51,
    fields: { nodeId: "id", nodePublicKey: "hash", nonce: "hash", nodeToken: "hash", keyset: "hash" },
  },
  rotateGrant: {
    kind: 0x52,
    fields: { nodeId: "id", rotation: "hash", nodeToken: "hash", overlapUntilMs: "u64" },
  },
  enrollProof: {
    kind: 0x53,
    fields: { nodeId: "id", nodePublicKey: "hash", enrollmentToken: "hash", nonce: "b32", rootKeyId: "b32" },
  },
  rekeyProof: { kind: 0x54, fields: { nodeId: "id", oldPublicKey: "hash", newPublicKey: "hash", nonce: "b32" } },
  refusal: { kind: 0x55, fields: { nodeId: "id", sealHello: "hash", reason: "u32", retryAfterMs: "u64" } },
  checkpoint: { kind: 0x60, fields: { controllerId: "id", lastRow: "u64", head: "b32", timeMs: "u64" } },
  // Hashed and not signed: a link of the chain whose head a checkpoint signs.
  auditRow: {
    kind: 0x61,
    fields: {
      previous: "b32",
      row: "u64",
      timeMs: "u64",
      kind: "lp",
      tenant: "lp",
      principal: "lp",
      node: "lp",
      detail: "lp",
      receipt: "lp",
    },
  },
} as const satisfies Record<string, Layout>;

export type StatementName = keyof typeof layouts;

/** The SHA-256 of bytes that are not at hand, for a `hash` field. */
export class Digest {
  readonly sha256: Uint8Array;
  constructor(digest: Uint8Array) {
    if (digest.length !== 32) throw new RangeError(`a SHA-256 has 32 bytes, this one has ${digest.length}`);
    this.sha256 = digest;
  }
}

/** So that bytes which stand in several statements are hashed once. */
export const digestOf = (bytes: Uint8Array): Digest => new Digest(sha256(bytes));

type ValueOf<T extends FieldType> = T extends "id"
  ? string
  : T extends "u32" | "u64"
    ? number
    : T extends "lp"
      ? string | Uint8Array
      : T extends "hash"
        ? Uint8Array | Digest
        : Uint8Array;

/** What each statement is made of, by field name; order and encoding are the table's business. */
export type StatementValues<N extends StatementName> = {
  readonly [F in keyof (typeof layouts)[N]["fields"]]: (typeof layouts)[N]["fields"][F] extends FieldType
    ? ValueOf<(typeof layouts)[N]["fields"][F]>
    : never;
};

/** Each layout as it is needed for every frame. */
const prepared = {} as Record<StatementName, { head: Uint8Array; fields: readonly [string, FieldType][] }>;
for (const name of Object.keys(layouts) as StatementName[]) {
  const { kind, fields }: Layout = layouts[name];
  prepared[name] = { head: Buffer.concat([domain, Uint8Array.of(kind)]), fields: Object.entries(fields) };
}

/** The exact bytes to sign or verify. Throws RangeError on a value its field cannot hold. */
export function statement<N extends StatementName>(name: N, values: StatementValues<N>): Uint8Array {
  const { head, fields } = prepared[name];
  const parts: Uint8Array[] = [head];
  for (const [field, type] of fields) {
    const value = (values as Record<string, unknown>)[field];
    for (const part of encode(type, value, `${name}.${field}`)) parts.push(part);
  }
  return Buffer.concat(parts);
}

export const sha256 = (data: string | Uint8Array): Uint8Array => createHash("sha256").update(data).digest();

const uuidText = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The 16 raw bytes of a UUID in lower-case hyphenated text, or null: no other spelling is anybody's id. */
export function uuidBytes(text: string): Uint8Array | null {
  return uuidText.test(text) ? Buffer.from(text.replaceAll("-", ""), "hex") : null;
}

export function uuidFromBytes(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function encode(type: FieldType, value: unknown, where: string): Uint8Array[] {
  switch (type) {
    case "id": {
      const bytes = typeof value === "string" ? uuidBytes(value) : null;
      if (!bytes) throw new RangeError(`${where} is not a UUID`);
      return [bytes];
    }
    case "b16":
    case "b32": {
      const length = type === "b16" ? 16 : 32;
      if (!(value instanceof Uint8Array) || value.length !== length)
        throw new RangeError(`${where} is not ${length} bytes`);
      return [value];
    }
    case "hash":
      if (value instanceof Digest) return [value.sha256];
      if (!(value instanceof Uint8Array)) throw new RangeError(`${where} is not bytes`);
      return [sha256(value)];
    case "u32":
    case "u64": {
      const limit = type === "u32" ? 2 ** 32 - 1 : Number.MAX_SAFE_INTEGER;
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > limit) {
        throw new RangeError(`${where} is not a whole number from 0 to ${limit}`);
      }
      return [littleEndian(value, type === "u32" ? 4 : 8)];
    }
    case "lp": {
      const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
      if (!(bytes instanceof Uint8Array)) throw new RangeError(`${where} is neither text nor bytes`);
      return [littleEndian(bytes.length, 4), bytes];
    }
  }
}

function littleEndian(value: number, bytes: 4 | 8): Uint8Array {
  const out = Buffer.alloc(bytes);
  out.writeUInt32LE(value % 2 ** 32);
  if (bytes === 8) out.writeUInt32LE(Math.floor(value / 2 ** 32), 4);
  return out;
}
