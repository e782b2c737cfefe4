/** Where results end up: in the store, with the receipt that proves them, before anybody is told that they arrived. */
import type { PublicKey } from "../envelope/public-key.ts";
import { verifyReceipt } from "../envelope/receipt.ts";
import type { Log } from "../platform/log.ts";
import type { NodeOutcome, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";

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
  settle(settlement: Settlement): Promise<void>;
  /** A result of an earlier session. True when the store has it now, or had it: the host may forget it. */
  late(result: LateResult): Promise<boolean>;
}

export function resultLedger({ store, time, log }: { store: Store; time: () => number; log: Log }): ResultLedger {
  return {
    async settle({ commandId, event, result, signature, keyId, receipt, outputComplete }) {
      await store.endCommand(commandId, {
        endedAt: time(),
        outcome: nodeOutcome(event),
        result,
        receiptSignature: signature,
        receiptKeyId: keyId,
        receipt,
        outputComplete,
      });
    },
    async late({ nodeId, nodeKey, commandId, result, signature, keyId }) {
      const row = await store.command(commandId);
      if (!row || row.nodeId !== nodeId) {
        log.error("result_of_no_command", { node_id: nodeId, command_id: commandId });
        return true;
      }
      if (!verifyReceipt(nodeKey, { nodeId, commandId, commandBody: row.commandBody, result }, signature)) {
        log.error("receipt_invalid", { node_id: nodeId, command_id: commandId, late: true });
        return true;
      }
      if (row.result) {
        if (!Buffer.from(row.result).equals(result))
          log.error("receipt_conflict", { node_id: nodeId, command_id: commandId });
        return true;
      }
      const event = aegis.cluster.v1.CommandResultEvent.decode(result);
      const end = {
        endedAt: row.endedAt ?? time(),
        outcome: nodeOutcome(event),
        result,
        receiptSignature: signature,
        receiptKeyId: keyId,
      };
      await store.endCommand(commandId, { ...end, receipt: "verified", outputComplete: false });
      log.info("late_result", { node_id: nodeId, command_id: commandId, outcome: end.outcome });
      return true;
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
