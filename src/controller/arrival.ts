/** A host whose session begins. Who it is by now counts, not who it was at its Hello: until then there was no session to end. */
import type { NodeRow, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";

const { GoodbyeReason } = aegis.cluster.v1;

export interface Arriving {
  /** As it was when the Hello was judged by it. */
  row: Pick<NodeRow, "nodeId" | "publicKey">;
  /** A serialised EdgeCapabilities. */
  capabilities: Uint8Array;
  softwareVersion: string;
  goodbye(reason: aegis.cluster.v1.GoodbyeReason, detail: string): void;
}

/** Notes that the host is here, or sends it away again when it was revoked or got another key since its Hello. */
export async function noteArrival(
  { row, capabilities, softwareVersion, goodbye }: Arriving,
  { store, time }: { store: Store; time: () => number },
): Promise<void> {
  const { nodeId } = row;
  const present = await store.nodeConnected(nodeId, time(), capabilities, softwareVersion);
  if (!present) return goodbye(GoodbyeReason.GOODBYE_REASON_REVOKED, "this host was revoked");
  const now = await store.node(nodeId);
  if (now && Buffer.from(now.publicKey).equals(row.publicKey)) return;
  goodbye(GoodbyeReason.GOODBYE_REASON_REPLACED, "this host was enrolled again, or changed its key");
}
