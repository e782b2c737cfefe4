/** The audit as a file of JSON lines, which anyone can check without the controller: a head, rows, and the seals between them. */
import { z } from "zod";
import { openStore } from "../store/open.ts";
import type { AuditRow, CheckpointRow, Store } from "../store/store.ts";
import { databasePath } from "./database.ts";

const bytes = z
  .string()
  // One spelling only: spare bits of the last character would be bits that nothing covers.
  .refine((text) => Buffer.from(text, "base64url").toString("base64url") === text)
  .transform((text): Uint8Array => Buffer.from(text, "base64url"));
const whole = z.number().int().nonnegative();

const auditFormat = 1;

export const auditLineSchemas = {
  head: z.strictObject({
    aegis_audit: z.literal(auditFormat),
    controller_id: z.uuid(),
    /** Every keyset there ever was, oldest first: the seals are checked with their command keys. */
    keysets: z.array(bytes).min(1),
  }),
  row: z.strictObject({
    row: whole,
    at: whole,
    kind: z.string(),
    tenant_id: z.string(),
    principal: z.string(),
    node_id: z.string(),
    /** Exact JSON texts, as hashed. */
    detail: z.string(),
    receipt: z.string(),
    previous: bytes,
    hash: bytes,
  }),
  seal: z.strictObject({ seal: whole, head: bytes, time_ms: whole, signature: bytes, key_id: bytes }),
};

const text = (value: Uint8Array): string => Buffer.from(value).toString("base64url");

function rowLine({ row, at, kind, tenantId, principal, nodeId, detail, receipt, previous, hash }: AuditRow): string {
  return JSON.stringify({
    ...{ row, at, kind, tenant_id: tenantId, principal, node_id: nodeId, detail, receipt },
    ...{ previous: text(previous), hash: text(hash) },
  });
}

const sealLine = ({ lastRow, head, timeMs, signature, keyId }: CheckpointRow): string =>
  JSON.stringify({
    ...{ seal: lastRow, head: text(head), time_ms: timeMs },
    ...{ signature: text(signature), key_id: text(keyId) },
  });

/** Rows read at a time. */
const stride = 500;

/** The whole record, line by line without newlines. */
export async function* auditLines(store: Store, controllerId: string): AsyncGenerator<string> {
  const keysets = (await store.keysetsAfter(0)).map(({ signed }) => text(signed));
  yield JSON.stringify({ aegis_audit: auditFormat, controller_id: controllerId, keysets });
  for (let after = 0; ; ) {
    const rows = await store.audit({ after }, stride);
    const last = rows.at(-1);
    if (!last) return;
    const seals = new Map((await store.checkpoints(after + 1, last.row)).map((seal) => [seal.lastRow, seal]));
    for (const row of rows) {
      yield rowLine(row);
      const seal = seals.get(row.row);
      if (seal) yield sealLine(seal);
    }
    after = last.row;
  }
}

/** The record of a data directory, whether its controller runs or not. */
export async function* exportAudit({
  dataDir,
  controllerId,
}: {
  dataDir: string;
  controllerId: string;
}): AsyncGenerator<string> {
  const store = await openStore(databasePath(dataDir));
  try {
    yield* auditLines(store, controllerId);
  } finally {
    await store.close();
  }
}
