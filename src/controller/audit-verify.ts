/** Checks an audit record by itself: the chain, the seals, the receipts, and what the database says beside it. */
import { z } from "zod";
import { type AuditLink, auditHash, auditStart, verifyCheckpoint } from "../envelope/audit.ts";
import { type TrustedKeyset, trustFirst } from "../envelope/keyset.ts";
import { fingerprint, importPublicKey, type PublicKey } from "../envelope/public-key.ts";
import { verifyReceiptDigests } from "../envelope/receipt.ts";
import { sha256, uuidBytes } from "../envelope/statement.ts";
import { aegis } from "../wire/gen/messages.js";
import { readSealedHead, sealedHeadPath, sealing } from "./audit.ts";
import { auditLineSchemas, auditLines } from "./audit-record.ts";
import { onDatabase } from "./database.ts";

export interface AuditProblem {
  /** The row it shows at; 0 for the head. */
  row: number;
  message: string;
}

export interface AuditReport {
  controllerId: string;
  /** Of the first root key; compare it with the one told at `controller init`. */
  rootFingerprint: string;
  rows: number;
  /** How many of them a good seal covers; the rest rests on the chain alone. */
  sealedRows: number;
  seals: number;
  receipts: Record<"verified" | "peer_id_only" | "missing" | "invalid" | "unknown_key", number>;
  /** Calls without a result row. */
  unanswered: number;
  problems: AuditProblem[];
  /** Problems beyond those that are listed. */
  moreProblems: number;
}

export interface VerifyOptions {
  /** `SHA256:...` of the root key that must be at the beginning. */
  rootFingerprint?: string;
  /** What an earlier look saw: that row must still be there, with that hash. */
  seen?: { row: number; hash: Uint8Array };
  /** What the database has of a call, if it is at hand. */
  stored?(commandId: string): Promise<{ commandBody: Uint8Array; result: Uint8Array | null } | null>;
}

const maxProblems = 100;
/** Rows that may come between the thousandth and its seal. */
const sealSlackRows = 2_000;
/** Calls without a result that are remembered. */
const maxOpen = 1_000_000;

const detailSchema = z.looseObject({
  command_id: z.string().optional(),
  command_digest: z.string().optional(),
  public_key: z.string().optional(),
  receipt: z.string().optional(),
});
const receiptSchema = z.object({
  command_digest: z.string(),
  result_digest: z.string(),
  signature: z.string(),
  key_id: z.string(),
});
type Row = z.output<typeof auditLineSchemas.row>;

const bytesOf = (text: string): Uint8Array => Buffer.from(text, "base64url");
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(b);

export async function verifyAudit(lines: AsyncIterable<string>, options: VerifyOptions = {}): Promise<AuditReport> {
  const report: AuditReport = {
    ...{ controllerId: "", rootFingerprint: "", rows: 0, sealedRows: 0, seals: 0, unanswered: 0 },
    receipts: { verified: 0, peer_id_only: 0, missing: 0, invalid: 0, unknown_key: 0 },
    ...{ problems: [], moreProblems: 0 },
  };
  const problem = (row: number, message: string) => {
    if (report.problems.length < maxProblems) report.problems.push({ row, message });
    else report.moreProblems++;
  };
  let commandKeys: ReadonlyMap<string, PublicKey> = new Map();
  const nodeKeys = new Map<string, PublicKey>();
  const open = new Map<string, string>();
  let at = 0;
  let last: Uint8Array = auditStart;
  let seenThere = options.seen === undefined;
  let first = true;
  let ran = false;

  for await (const line of lines) {
    if (line.trim() === "") continue;
    const value = parsed(line);
    if (first) {
      first = false;
      const head = auditLineSchemas.head.safeParse(value);
      if (!head.success || !uuidBytes(head.data.controller_id)) {
        problem(0, "the first line is no head of an audit record");
        return report;
      }
      report.controllerId = head.data.controller_id;
      const chain = keyChain(head.data.keysets);
      if (chain.length < head.data.keysets.length)
        problem(0, `keyset ${chain.length + 1} is not vouched for by the one before`);
      const [root] = chain;
      if (root) report.rootFingerprint = fingerprint(root.rootKey);
      if (root && root.controllerId !== report.controllerId) problem(0, "the keysets are another controller's");
      if (options.rootFingerprint !== undefined && options.rootFingerprint !== report.rootFingerprint)
        problem(
          0,
          `the root key is ${report.rootFingerprint || "missing"}, and ${options.rootFingerprint} was expected`,
        );
      commandKeys = new Map(chain.map(({ commandKey }) => [commandKey.kid, commandKey]));
      continue;
    }
    const row = auditLineSchemas.row.safeParse(value);
    if (row.success) {
      await takeRow(row.data);
      continue;
    }
    const seal = auditLineSchemas.seal.safeParse(value);
    if (seal.success) takeSeal(seal.data);
    else problem(at, `the line after row ${at} cannot be read`);
  }
  if (first) problem(0, "there is nothing in it");
  if (ran && report.seals === 0) problem(at, "nothing is sealed, though a controller ran");
  if (at - report.sealedRows > sealing.rows + sealSlackRows)
    problem(at, `the last good seal is of row ${report.sealedRows}; a controller seals every ${sealing.rows} rows`);
  if (!seenThere) problem(options.seen?.row ?? 0, "the row that an earlier look saw is not there any more");
  report.unanswered = open.size;
  return report;

  async function takeRow(row: Row): Promise<void> {
    if (row.row !== at + 1)
      problem(row.row, row.row > at + 1 ? `rows ${at + 1} to ${row.row - 1} are missing` : `it stands after row ${at}`);
    if (!same(row.previous, last)) problem(row.row, "it does not follow from the row before");
    if (!same(auditHash(linkOf(row)), row.hash)) problem(row.row, "it was changed: its hash is another");
    if (options.seen?.row === row.row) {
      seenThere = true;
      if (!same(options.seen.hash, row.hash)) problem(row.row, "an earlier look saw another row here");
    }
    at = row.row;
    last = row.hash;
    report.rows++;
    ran ||= row.kind === "controller_started";
    const detail = detailSchema.safeParse(parsed(row.detail));
    if (!detail.success) return problem(row.row, "its detail cannot be read");
    const { command_id: commandId = "", command_digest: digest = "", public_key: publicKey } = detail.data;
    if (publicKey !== undefined && uuidBytes(row.node_id)) {
      const key = importPublicKey(bytesOf(publicKey));
      if (key) nodeKeys.set(`${row.node_id} ${key.kid}`, key);
    }
    if (row.kind === "dispatch" && open.size < maxOpen) open.set(commandId, digest);
    if (row.kind === "result") await takeResult(row, commandId, detail.data.receipt);
  }

  async function takeResult(row: Row, commandId: string, judged: string | undefined): Promise<void> {
    const asked = open.get(commandId);
    open.delete(commandId);
    const receipt = row.receipt === "" ? null : receiptSchema.safeParse(parsed(row.receipt));
    if (receipt === null) {
      report.receipts.missing++;
      return;
    }
    if (!receipt.success) return problem(row.row, "its receipt cannot be read");
    const { command_digest, result_digest, signature, key_id } = receipt.data;
    if (asked !== undefined && asked !== command_digest)
      problem(row.row, "its receipt is for another command than was sent");
    if (judged === "peer_id_only") report.receipts.peer_id_only++;
    else {
      const key = nodeKeys.get(`${row.node_id} ${key_id}`);
      const digests = { commandDigest: bytesOf(command_digest), resultDigest: bytesOf(result_digest) };
      const genuine =
        key !== undefined &&
        uuidBytes(commandId) !== null &&
        [digests.commandDigest, digests.resultDigest].every(({ length }) => length === 32) &&
        verifyReceiptDigests(key, { nodeId: row.node_id, commandId, ...digests }, bytesOf(signature));
      if (!key) report.receipts.unknown_key++;
      else if (genuine) report.receipts.verified++;
      else {
        report.receipts.invalid++;
        if (judged === "verified") problem(row.row, "its receipt does not verify, and was said to");
      }
    }
    const stored = await options.stored?.(commandId);
    if (!stored) return;
    if (!same(sha256(stored.commandBody), bytesOf(command_digest)))
      problem(row.row, `the command ${commandId} was changed in the database`);
    if (!stored.result || !same(sha256(stored.result), bytesOf(result_digest)))
      problem(row.row, `the result of ${commandId} was changed in the database`);
  }

  function takeSeal(seal: z.output<typeof auditLineSchemas.seal>): void {
    report.seals++;
    const wrong = wrongSeal(seal);
    if (wrong) problem(at, wrong);
    else report.sealedRows = seal.seal;
  }

  function wrongSeal(seal: z.output<typeof auditLineSchemas.seal>): string | null {
    if (seal.seal !== at) return `a seal of row ${seal.seal} stands after row ${at}`;
    if (!same(seal.head, last)) return "the chain is not the one that was sealed here";
    const key = commandKeys.get(Buffer.from(seal.key_id).toString("base64url"));
    const said = { controllerId: report.controllerId, lastRow: seal.seal, head: seal.head, timeMs: seal.time_ms };
    const genuine = key && seal.head.length === 32 && verifyCheckpoint(key, said, seal.signature);
    return genuine ? null : "the seal is not this controller's";
  }
}

/** The record of a data directory, against its own database and what was last sealed there. */
export async function verifyDataDir({
  dataDir,
  controllerId,
  rootFingerprint,
}: {
  dataDir: string;
  controllerId: string;
  rootFingerprint?: string;
}): Promise<AuditReport> {
  return await onDatabase(dataDir, async (store) => {
    const seen = await readSealedHead(sealedHeadPath(dataDir));
    return await verifyAudit(auditLines(store, controllerId), {
      ...(rootFingerprint === undefined ? {} : { rootFingerprint }),
      ...(seen ? { seen } : {}),
      stored: (commandId) => store.command(commandId),
    });
  });
}

/** Every keyset that follows from the first, whose root is taken as it is: the report names it. */
function keyChain(signed: readonly Uint8Array[]): TrustedKeyset[] {
  const root = firstRoot(signed[0]);
  const trusted: TrustedKeyset[] = [];
  for (let count = 1; root && count <= signed.length; count++) {
    const outcome = trustFirst(root.keyId, signed.slice(0, count));
    if (outcome.kind === "refused") break;
    trusted.push(outcome.keyset);
  }
  return trusted;
}

function firstRoot(signed: Uint8Array | undefined): PublicKey | null {
  try {
    const { SignedKeySet, ControllerKeySet } = aegis.cluster.v1;
    return importPublicKey(ControllerKeySet.decode(SignedKeySet.decode(signed ?? new Uint8Array()).keyset).rootKey);
  } catch {
    return null;
  }
}

const linkOf = (row: Row): AuditLink => ({
  previous: row.previous.length === 32 ? row.previous : auditStart,
  row: row.row,
  timeMs: row.at,
  kind: row.kind,
  tenant: row.tenant_id,
  principal: row.principal,
  node: row.node_id,
  detail: row.detail,
  receipt: row.receipt,
});

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
