/** Where results end up: in the store, with the receipt that proves them, before anybody is told that they arrived. */
import type { PublicKey } from "../envelope/public-key.ts";
import { verifyReceipt } from "../envelope/receipt.ts";
import { sha256 } from "../envelope/statement.ts";
import type { Log } from "../platform/log.ts";
import type { CommandRow, NodeOutcome, Queries, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { recordAudit } from "./audit.ts";
import { resultKey } from "./rotation.ts";

type CommandResultEvent = ReturnType<typeof aegis.cluster.v1.CommandResultEvent.decode>;

export interface Settlement {
  commandId: string;
  event: CommandResultEvent;
  result: Uint8Array;
  signature: Uint8Array;
  keyId: Uint8Array;
  receipt: "verified" | "invalid" | "peer_id_only";
  outputComplete: boolean;
}

export interface LateResult {
  nodeId: string;
  nodeKey: PublicKey;
  commandId: string;
  result: Uint8Array;
  signature: Uint8Array;
  keyId: Uint8Array;
}

export interface ResultLedger {
  /**
   * The result of a pending call. True when the store has it now, or had it. A host that keeps its results until it is told
   * to forget them gives it again after a loss of power: with `wait: "commit"` the caller need not wait for the disk.
   */
  settle(settlement: Settlement, options?: { wait?: "disk" | "commit" }): Promise<boolean>;
  /** Resolves once what is settled is on disk: only then may the host forget it. */
  synced(): Promise<void>;
  /** A result of an earlier session. True when it is on disk, now or before. */
  late(result: LateResult): Promise<boolean>;
}

export function resultLedger({ store, time, log }: { store: Store; time: () => number; log: Log }): ResultLedger {
  /** A command has one result for ever: the first that is kept. The same again is welcome, another one is an alarm. */
  function settled(row: CommandRow | null, result: Uint8Array): "open" | "same" | "other" {
    if (!row?.result) return "open";
    if (Buffer.from(row.result).equals(result)) return "same";
    log.error("receipt_conflict", { node_id: row.nodeId, command_id: row.commandId });
    return "other";
  }

  /** The audit holds what proves a result, and not what it says. */
  async function written(
    tx: Queries,
    { commandId, commandDigest, nodeId, tenantId, principal }: CommandRow,
    { event, result, signature, keyId, receipt, outputComplete }: Omit<Settlement, "commandId">,
    more: { late?: true } = {},
  ): Promise<void> {
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64url");
    const output = outputComplete ? "complete" : "incomplete";
    const detail = { command_id: commandId, outcome: nodeOutcome(event), receipt, output, ...more };
    const proof = { command_digest: text(commandDigest), result_digest: text(sha256(result)) };
    await recordAudit(tx, {
      ...{ at: time(), kind: "result", tenantId, principal, nodeId, detail },
      receipt: { ...proof, signature: text(signature), key_id: text(keyId) },
    });
  }

  return {
    synced: () => store.synced(),
    settle: ({ commandId, event, result, signature, keyId, receipt, outputComplete }, options) =>
      store.transaction(async (tx) => {
        const row = await tx.command(commandId);
        const before = settled(row, result);
        if (before !== "open") return before === "same";
        await tx.endCommand(commandId, {
          endedAt: time(),
          outcome: nodeOutcome(event),
          result,
          receiptSignature: signature,
          receiptKeyId: keyId,
          receipt,
          outputComplete,
        });
        if (row) await written(tx, row, { event, result, signature, keyId, receipt, outputComplete });
        return true;
      }, options),
    async late({ nodeId, nodeKey, commandId, result, signature, keyId }) {
      const kept = await store.transaction(async (tx) => {
        const row = await tx.command(commandId);
        if (!row || row.nodeId !== nodeId) {
          log.error("result_of_no_command", { node_id: nodeId, command_id: commandId });
          return false;
        }
        // Signed before the host got the key of this session, perhaps.
        const ownKey = Buffer.from(nodeKey.keyId).equals(keyId);
        const signer = ownKey ? nodeKey : await resultKey(tx, nodeId, keyId, time());
        if (!signer || !verifyReceipt(signer, { nodeId, commandId, commandBody: row.commandBody, result }, signature)) {
          log.error("receipt_invalid", { node_id: nodeId, command_id: commandId, late: true });
          return false;
        }
        const before = settled(row, result);
        if (before !== "open") return before === "same";
        const event = aegis.cluster.v1.CommandResultEvent.decode(result);
        const end = {
          endedAt: row.endedAt ?? time(),
          outcome: nodeOutcome(event),
          result,
          receiptSignature: signature,
          receiptKeyId: keyId,
        };
        await tx.endCommand(commandId, { ...end, receipt: "verified", outputComplete: false });
        const judged = { receipt: "verified", outputComplete: false } as const;
        await written(tx, row, { event, result, signature, keyId, ...judged }, { late: true });
        log.info("late_result", { node_id: nodeId, command_id: commandId, outcome: end.outcome });
        return true;
      });
      // It may have been settled a moment ago, by the session before this one.
      await store.synced();
      return kept;
    },
  };
}

export function nodeOutcome({ result }: { result?: aegis.cluster.v1.EdgeResult.$Properties | null }): NodeOutcome {
  if (result?.ok) return "ok";
  switch (result?.errorKind) {
    case "timeout":
      return "timed_out";
    case "cancelled":
      return "cancelled";
    case "edge_disconnected":
      return "edge_disconnected";
    default:
      return "err";
  }
}
