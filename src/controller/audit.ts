/** Writes down what happened, in the same transaction in which it happens, and seals the record from time to time. */
import { type AuditLink, auditHash, signCheckpoint } from "../envelope/audit.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { AuditRow, Queries, Store } from "../store/store.ts";
import type { ControllerKeys } from "./keys.ts";

export type AuditKind =
  | "controller_started"
  | "controller_stopped"
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

export const linkOf = (row: Omit<AuditRow, "hash">): AuditLink => ({
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
}

export function createAuditSeal({ store, keys, controllerId, clock, time, log }: AuditSealOptions): AuditSeal {
  const seal = (): Promise<void> =>
    store.transaction(async (tx) => {
      const head = await tx.auditHead();
      if (!head || (await tx.newestCheckpoint())?.lastRow === head.row) return;
      const checkpoint = { controllerId, lastRow: head.row, head: head.hash, timeMs: time() };
      const signature = signCheckpoint(keys.command, checkpoint);
      const { lastRow, timeMs } = checkpoint;
      await tx.insertCheckpoint({ lastRow, timeMs, head: head.hash, signature, keyId: keys.command.keyId });
      // Said outside the database too, where who changes that cannot reach.
      const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64url");
      log.info("audit_sealed", {
        last_row: lastRow,
        head: text(head.hash),
        time_ms: timeMs,
        signature: text(signature),
      });
    });
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
