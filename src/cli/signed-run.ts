/**
 * One run of signed calls as its operator sees it: which statements were given out, whether a host may have another one,
 * and whether what the controller tells of a host is what that host has signed.
 */
import { createHash, type Hash, randomBytes } from "node:crypto";
import type { CommandResult, FleetEvent } from "../api/events.ts";
import { capturedText } from "../controller/output-text.ts";
import { type OperatorCall, readOperatorChallenge, signOperatorProof } from "../envelope/operator.ts";
import { type ProvenOutput, type ProvenResult, proveResult } from "../envelope/proven-result.ts";
import type { PublicKey, SigningKey } from "../envelope/public-key.ts";

/** How often in a run a host's call is signed again without asking. */
export const maxAgain = 3;

export interface SignedHost {
  nodeId: string;
  /** As it was known before this run, or trusted for it. */
  key: PublicKey;
  challenge: Uint8Array;
}

export interface SignedRunOptions {
  operator: SigningKey;
  call: Omit<OperatorCall, "nodeId">;
  hosts: readonly SignedHost[];
  /** The operator's clock, for the record in the statement. */
  now: () => number;
}

type EventData<N extends FleetEvent["event"]> = Extract<FleetEvent, { event: N }>["data"];

export interface SignedRun {
  /** Node id -> base64url of its OperatorProof. */
  readonly proofs: Readonly<Record<string, string>>;
  /** A new proof, only for a host that proves that the last one ran nothing and never will. */
  again(wanted: EventData<"signature_needed">): { kind: "signed"; proof: string } | { kind: "declined"; why: string };
  /** Takes note of output that was shown. */
  shown(progress: EventData<"command_progress">): void;
  /** What is wrong with a result, or null. Hosts that nobody signed for are not judged. */
  judge(result: CommandResult): string | null;
}

interface Issued {
  host: SignedHost;
  /** In hexadecimal; the last one is the only one that may be replaced. */
  statementIds: string[];
}

export function signedRun({ operator, call, hosts, now }: SignedRunOptions): SignedRun {
  const issued = new Map<string, Issued>();
  const shown = new Map<string, { hash: Hash; bytes: number; whole: boolean }>();

  function sign({ nodeId }: SignedHost, challenge: Uint8Array): string {
    const statementId = randomBytes(16);
    issued.get(nodeId)?.statementIds.push(statementId.toString("hex"));
    const proof = signOperatorProof(
      operator,
      { ...call, nodeId },
      { challenge, statementId, issuedMs: now(), note: "" },
    );
    return Buffer.from(proof).toString("base64url");
  }

  const proofs = Object.fromEntries(
    hosts.map((host) => {
      issued.set(host.nodeId, { host, statementIds: [] });
      return [host.nodeId, sign(host, host.challenge)];
    }),
  );

  const prove = ({ host }: Issued, receipt: EventData<"signature_needed">["receipt"]): ProvenResult | null =>
    proveResult(
      {
        commandBody: Buffer.from(receipt.command_body, "base64url"),
        result: Buffer.from(receipt.result, "base64url"),
        signature: Buffer.from(receipt.signature, "base64url"),
      },
      host,
    );

  const isOurs = ({ call: said }: ProvenResult): boolean =>
    said.tenant === call.tenant &&
    said.context === call.context &&
    said.tool === call.tool &&
    said.deadlineMs === call.deadlineMs &&
    Buffer.from(said.argsJson).equals(call.argsJson);

  const idOf = ({ proof }: ProvenResult): string => Buffer.from(proof?.statementId ?? []).toString("hex");

  return {
    proofs,
    again({ node_id: nodeId, receipt }) {
      const declined = (why: string) => ({ kind: "declined", why: `not signed again: ${why}` }) as const;
      const one = issued.get(nodeId);
      if (!one) return declined("nothing was signed for it in this run");
      const proven = prove(one, receipt);
      if (!proven) return declined("the receipt is not by the key this host is known by");
      if (!isOurs(proven) || idOf(proven) !== one.statementIds.at(-1))
        return declined("the receipt is about something else than what was signed last");
      if (proven.started || proven.errorKind !== "operator_signature_stale")
        return declined("the host does not say that its challenge had changed");
      if (!proven.statementVoid)
        return declined(
          "the host has restarted, so whether the call ran is not known; look, and run it again if it did not",
        );
      const challenge = proven.challenge && readOperatorChallenge(proven.challenge, { nodeId, tenant: call.tenant });
      if (!challenge || challenge.key.kid !== one.host.key.kid)
        return declined("its new challenge is not by its own key");
      if (one.statementIds.length > maxAgain) return declined(`it asked ${maxAgain} times before`);
      return { kind: "signed", proof: sign(one.host, challenge.challenge) };
    },
    shown({ command_id, stream, data, base64, skipped_bytes: skipped }) {
      const pipe = `${command_id} ${stream}`;
      const account = shown.get(pipe) ?? { hash: createHash("sha256"), bytes: 0, whole: true };
      const bytes = base64 === undefined ? Buffer.from(data ?? "", "utf8") : Buffer.from(base64, "base64");
      account.hash.update(bytes);
      account.bytes += bytes.length;
      if (skipped > 0) account.whole = false;
      shown.set(pipe, account);
    },
    judge(result) {
      const one = issued.get(result.node_id);
      if (!one) return null;
      const { receipt_proof: receipt } = result;
      if (!receipt) return result.ok ? "the controller says that it succeeded, and shows no receipt of the host" : null;
      const proven = prove(one, receipt);
      if (!proven)
        return "its receipt is not by the key this host is known by: the result is the controller's word alone";
      if (!isOurs(proven) || !one.statementIds.includes(idOf(proven)))
        return "its receipt is about another call: the result is the controller's word alone";
      const differing = differences(proven, result);
      if (differing.length > 0)
        return `the controller tells it otherwise than the host signed it: ${differing.join(", ")}`;
      for (const stream of ["stdout", "stderr"] as const) {
        const account = shown.get(`${result.command_id} ${stream}`);
        const { kept, bytes } = proven[stream];
        // What the host did not keep, and what was never sent live, cannot be compared.
        if (!account?.whole || kept.length !== bytes || account.bytes < bytes) continue;
        if (account.hash.copy().digest("hex") !== createHash("sha256").update(kept).digest("hex"))
          return `the ${stream} shown above is not what the host signed`;
      }
      return null;
    },
  };
}

/** Fields of a told result that are not what the host's own bytes say. */
function differences(proven: ProvenResult, told: CommandResult): string[] {
  const text = ({ kept, head, bytes }: ProvenOutput) =>
    capturedText({ head: kept.subarray(0, head), tail: kept.subarray(head), bytes });
  const said = {
    ...{ command_id: proven.commandId, ok: proven.ok, exit_code: proven.exitCode, signal: proven.signal },
    ...{ error_kind: proven.errorKind, error_message: proven.errorMessage, structured: proven.structured },
    ...{ stdout: text(proven.stdout), stderr: text(proven.stderr) },
  } satisfies Partial<CommandResult>;
  const names = Object.keys(said) as (keyof typeof said)[];
  const differing: string[] = names.filter((name) => !Bun.deepEquals(said[name], told[name]));
  return (told.outcome === "ok") === proven.ok ? differing : [...differing, "outcome"];
}
