/** Writes down what happened, in the same transaction in which it happens, and seals the record from time to time. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { type AuditLink, auditHash, auditStart, signCheckpoint } from "../envelope/audit.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { writeFileAtomic } from "../platform/private-file.ts";
import type { AuditRow, Queries, Store } from "../store/store.ts";
import type { ControllerKeys } from "./keys.ts";

export type AuditKind =
  | "controller_started"
  | "controller_stopped"
  | "backup_made"
  | "backup_restored"
  | "keyset_changed"
  | "tenant_removed"
  | "token_created"
  | "token_revoked"
  | "enrollment_token_issued"
  | "host_enrolled"
  | "host_rekeyed"
  | "host_token_refreshed"
  | "host_changed"
  | "host_told"
  | "host_revoked"
  | "host_contended"
  | "group_changed"
  | "dispatch"
  | "result"
  | "run_cancelled";

export interface AuditEntry {
  at: number;
  kind: AuditKind;
  tenantId?: string;
  principal?: string;
  nodeId?: string;
  /** Values for people and programs; nothing secret. */
  detail: Readonly<Record<string, unknown>>;
  receipt?: AuditReceipt;
}

/** What proves a result without its words; each in base64url. */
export interface AuditReceipt {
  command_digest: string;
  result_digest: string;
  signature: string;
  key_id: string;
}

/** `tx` is the transaction of the change itself: both happen or neither. */
export function recordAudit(tx: Queries, entry: AuditEntry): Promise<void> {
  const { at, kind, tenantId = "", principal = "", nodeId = "", detail, receipt } = entry;
  const texts = { detail: JSON.stringify(detail), receipt: receipt ? JSON.stringify(receipt) : "" };
  return tx.appendAudit({ at, kind, tenantId, principal, nodeId, ...texts }, (row) => auditHash(linkOf(row)));
}

const linkOf = (row: Omit<AuditRow, "hash">): AuditLink => ({
  previous: row.previous,
  row: row.row,
  timeMs: row.at,
  kind: row.kind,
  tenant: row.tenantId,
  principal: row.principal,
  node: row.nodeId,
  detail: row.detail,
  receipt: row.receipt,
});

/** The record is sealed after so many rows or so much time, and looked at this often. */
export const sealing = { rows: 1_000, everyMs: 5 * 60_000, lookEveryMs: 5_000 };

export interface AuditSeal {
  /** Signs the chain as it is now, unless nothing was added. */
  seal(): Promise<void>;
  /** Seals in time until `signal` aborts. */
  keepSealed(signal: AbortSignal): Promise<void>;
}

export interface AuditSealOptions {
  store: Store;
  keys: Pick<ControllerKeys, "command">;
  controllerId: string;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  /** A file beside the database that remembers what was sealed last. */
  headPath: string;
}

export interface SealedHead {
  row: number;
  hash: Uint8Array;
}

export const sealedHeadPath = (dataDir: string): string => join(dataDir, "audit.head");

const sealedHeadSchema = z.object({ row: z.number().int().positive(), hash: z.string().regex(/^[A-Za-z0-9_-]{43}$/) });

/** Null when nothing was ever sealed here. */
export async function readSealedHead(path: string): Promise<SealedHead | null> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw new AegisError("config_invalid", `cannot read ${path}: ${cause.message}`, { cause });
  });
  if (text === null) return null;
  try {
    const { row, hash } = sealedHeadSchema.parse(JSON.parse(text));
    return { row, hash: Buffer.from(hash, "base64url") };
  } catch (cause) {
    throw new AegisError("config_invalid", `${path} is damaged`, { cause, hint: "restore it from a backup" });
  }
}

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** What is about to be signed must follow, row by row, from what was signed before: a rewritten past is never sealed. */
async function requireUnbroken(tx: Queries, sealed: SealedHead): Promise<void> {
  const broken = (row: number) =>
    new AegisError(
      "config_invalid",
      `the audit was changed at row ${row}, after it was sealed; it is not sealed again`,
      {
        hint: "look at it: aegis controller audit verify",
      },
    );
  let { row, hash } = sealed;
  if (row > 0) {
    const [kept] = await tx.audit({ after: row - 1 }, 1);
    if (kept?.row !== row || !Buffer.from(kept.hash).equals(hash)) throw broken(row);
  }
  for (;;) {
    const rows = await tx.audit({ after: row }, 500);
    for (const next of rows) {
      const follows = next.row === row + 1 && Buffer.from(next.previous).equals(hash);
      if (!follows || !Buffer.from(auditHash(linkOf(next))).equals(next.hash)) throw broken(next.row);
      ({ row, hash } = next);
    }
    if (rows.length === 0) return;
  }
}

export function createAuditSeal(options: AuditSealOptions): AuditSeal {
  const { store, keys, controllerId, clock, time, log, headPath } = options;
  /** What was sealed last, as this process or the file remembers it, and not as the database says. */
  let sealed: SealedHead | null | undefined;

  async function seal(): Promise<void> {
    if (sealed === undefined) sealed = await readSealedHead(headPath);
    const checkpoint = await store.transaction(async (tx) => {
      const head = await tx.auditHead();
      if (!head || head.row === sealed?.row) return null;
      await requireUnbroken(tx, sealed ?? { row: 0, hash: auditStart });
      const said = { controllerId, lastRow: head.row, head: head.hash, timeMs: time() };
      const signature = signCheckpoint(keys.command, said);
      const { lastRow, timeMs } = said;
      await tx.insertCheckpoint({ lastRow, timeMs, head: head.hash, signature, keyId: keys.command.keyId });
      return { ...said, signature };
    });
    if (!checkpoint) return;
    const { lastRow, head, timeMs, signature } = checkpoint;
    sealed = { row: lastRow, hash: head };
    await writeFileAtomic(headPath, `${JSON.stringify({ row: lastRow, hash: base64url(head) })}\n`);
    // Said outside this machine's database and files too, wherever the log goes.
    log.info("audit_sealed", {
      ...{ last_row: lastRow, head: base64url(head), time_ms: timeMs, signature: base64url(signature) },
    });
  }

  return {
    seal,
    async keepSealed(signal) {
      let sealedAt = clock.monotonic();
      while (!signal.aborted) {
        await clock.sleep(sealing.lookEveryMs, signal);
        if (signal.aborted) return;
        try {
          const added = ((await store.auditHead())?.row ?? 0) - ((await store.newestCheckpoint())?.lastRow ?? 0);
          if (added < sealing.rows && clock.monotonic() - sealedAt < sealing.everyMs) continue;
          await seal();
          sealedAt = clock.monotonic();
        } catch (error) {
          log.error("audit_not_sealed", { error: AegisError.from(error) });
        }
      }
    },
  };
}
