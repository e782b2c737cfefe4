/** An operator with a key, for a host that trusts it: statements as an honest desk makes them, or with any part wrong. */
import { randomBytes } from "node:crypto";
import type { TrustedOperator } from "../../src/config/edge.ts";
import type { CallRequest, ResultEvent } from "../../src/controller/dispatch-types.ts";
import {
  type HostChallenge,
  type OperatorCall,
  readOperatorChallenge,
  signOperatorProof,
} from "../../src/envelope/operator.ts";
import { type ProvenResult, proveResult } from "../../src/envelope/proven-result.ts";
import type { SigningKey } from "../../src/envelope/public-key.ts";
import { settled } from "./scripted-host.ts";
import type { StrictDaemon } from "./strict-daemon.ts";
import { type HostIdentity, newKey } from "./strict-keys.ts";
import { type StrictPair, strictPair } from "./strict-pair.ts";

export const ann = newKey();

export const trusting = (change: Partial<TrustedOperator> = {}): TrustedOperator[] => [
  { name: "ann", key: ann, contexts: null, notAfterMs: null, ...change },
];

export interface SignedPair extends StrictPair {
  /** The challenge as the controller has it now. */
  challenge(identity?: HostIdentity): HostChallenge;
  /** A serialised OperatorProof for a call that is right unless told otherwise. */
  proof(change?: ProofChange): Uint8Array;
  /** Calls, lets what began end, and answers the result and what its receipt proves. */
  ask(operator: Uint8Array, request?: Partial<CallRequest>, other?: AskedHost): Promise<Asked>;
}

/** Another host or another process of it than the pair's. */
export interface AskedHost {
  daemon: StrictDaemon;
  identity: HostIdentity;
}

export interface ProofChange extends Partial<OperatorCall> {
  key?: SigningKey;
  challenge?: Uint8Array;
  statementId?: Uint8Array;
}

export interface Asked {
  /** How many calls of the tool this one began. */
  ran: number;
  errorKind: string | null;
  message: string;
  result: ResultEvent;
  proven: ProvenResult;
}

/** A connected pair whose host runs `signed` only with a signature of `trusted`. */
export async function signedPair(trusted: readonly TrustedOperator[] = trusting()): Promise<SignedPair> {
  const pair = await strictPair({ trusted });
  await pair.connected();
  const { identity, sessions } = pair;
  const challenge: SignedPair["challenge"] = ({ nodeId, tenantId } = identity) => {
    const bytes = sessions.get(nodeId)?.operatorChallenge;
    const read = bytes && readOperatorChallenge(bytes, { nodeId, tenant: tenantId });
    if (!read) throw new Error("the controller has no challenge of this host");
    return read;
  };
  return Object.assign(pair, {
    challenge,
    proof({ key = ann, challenge: given, statementId = randomBytes(16), ...change }: ProofChange = {}) {
      const call = { nodeId: identity.nodeId, tenant: "acme", context: "signed", tool: "test.work", ...change };
      const { argsJson = Buffer.from("{}"), deadlineMs = 0 } = change;
      const said = { challenge: given ?? challenge().challenge, statementId, issuedMs: pair.time(), note: "" };
      return signOperatorProof(key, { ...call, argsJson, deadlineMs }, said);
    },
    async ask(
      operator: Uint8Array,
      request: Partial<CallRequest> = {},
      other: AskedHost = { daemon: pair.daemon, identity },
    ) {
      const { daemon } = other;
      const { nodeId, nodeKey: key } = other.identity;
      const before = daemon.tool.runs.length;
      const call = pair.call({ nodeId, context: "signed", operator, ...request });
      await settled();
      for (const run of daemon.tool.runs.slice(before)) run.end();
      const result = await call.result;
      const proven = result.receiptProof && proveResult(result.receiptProof, { nodeId, key });
      if (!proven) throw new Error(`no receipt: ${JSON.stringify(result)}`);
      const ran = daemon.tool.runs.length - before;
      return { ran, errorKind: result.errorKind, message: result.errorMessage ?? "", result, proven };
    },
  });
}
