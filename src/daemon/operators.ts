/** Whether one of the operators whom this host's owner trusts has signed this very call, for this host, now. */
import type { TrustedOperator } from "../config/edge.ts";
import {
  type OperatorCall,
  readOperatorProof,
  signOperatorChallenge,
  verifyOperatorProof,
} from "../envelope/operator.ts";
import { fingerprint, type SigningKey } from "../envelope/public-key.ts";
import { quote } from "../policy/quote.ts";
import type { ErrorKind } from "../tools/tool.ts";
import { challengeLimits, type OperatorChallenges, type Standing } from "./operator-challenges.ts";

export interface OperatorRefusal {
  kind: "refused";
  errorKind: Extract<
    ErrorKind,
    "envelope_invalid" | "operator_signature_required" | "operator_signature_stale" | "replayed" | "overloaded"
  >;
  message: string;
  /** With `operator_signature_stale`: what to sign under instead. */
  again?: SignAgain;
}

export interface SignAgain {
  /** A serialised OperatorChallenge. */
  challenge: Uint8Array;
  /** The refused statement ran nowhere, and never will. */
  statementVoid: boolean;
}

export type OperatorVerdict =
  /** `spend` uses the statement up; whatever it answers but null must keep the call from running. */
  { kind: "signed"; operator: string; spend(): OperatorRefusal | null } | OperatorRefusal;

export interface Operators {
  judge(proof: Uint8Array, call: OperatorCall): OperatorVerdict;
  /** A session begins. Answers its first challenge, a serialised OperatorChallenge. */
  begin(): Uint8Array;
  /** As often as `challengeLimits.renewMs` says. Answers the next challenge. */
  renew(): Uint8Array;
}

/** The part of the settings that this is about; asked each time, because they may be read again. */
export interface OperatorPolicy {
  trusted: readonly TrustedOperator[];
  /** Contexts that run only what is signed; `*` = every one. */
  contexts: readonly string[];
}

export interface OperatorsOptions {
  nodeId: string;
  tenantId: string;
  hostName: string;
  nodeKey: () => SigningKey;
  policy: () => OperatorPolicy;
  challenges: OperatorChallenges;
  /** This host's wall clock, for `not_after` and nothing else: no controller may stretch it. */
  now: () => number;
}

export function createOperators(options: OperatorsOptions): Operators {
  const { nodeId, tenantId, hostName, nodeKey, policy, challenges, now } = options;

  const announcement = (): Uint8Array => {
    const { contexts } = policy();
    return signOperatorChallenge(nodeKey(), {
      ...{ nodeId, tenant: tenantId, hostName, contexts },
      challenge: challenges.current,
    });
  };

  function notGood(standing: Exclude<Standing, "unused"> | "full"): OperatorRefusal {
    const refuse = (errorKind: OperatorRefusal["errorKind"], message: string): OperatorRefusal => ({
      ...{ kind: "refused", errorKind, message },
    });
    switch (standing) {
      case "used":
        return refuse("replayed", "this operator's statement was used before, and nothing runs twice by one signature");
      case "full":
        return refuse(
          "overloaded",
          `${challengeLimits.statements} statements were used under this challenge; the next comes within ${challengeLimits.renewMs / 60_000} min`,
        );
      case "dead":
      case "unknown":
        return {
          ...refuse("operator_signature_stale", "the statement's challenge is none of this host's last two"),
          again: { challenge: announcement(), statementVoid: standing === "dead" },
        };
    }
  }

  return {
    begin() {
      challenges.begin();
      return announcement();
    },
    renew() {
      challenges.renew();
      return announcement();
    },
    judge(bytes, call) {
      const refuse = (message: string): OperatorRefusal => ({
        ...{ kind: "refused", errorKind: "operator_signature_required", message },
      });
      const proof = readOperatorProof(bytes);
      if (!proof)
        return { kind: "refused", errorKind: "envelope_invalid", message: "operator: no proof of a known form" };
      // An owner may write one key down twice, for two contexts.
      const entries = policy().trusted.filter(({ key }) => Buffer.from(key.keyId).equals(proof.keyId));
      const [first] = entries;
      if (!first) return refuse(`this host trusts no operator with the key ${fingerprint(proof)}`);
      if (!verifyOperatorProof(first.key, call, proof))
        return refuse(`the signature is not that of operator ${quote(first.name)} over this call on this host`);
      const operator = entries.find((entry) => mayNotSign(entry, call.context, now()) === null);
      if (!operator) return refuse(mayNotSign(first, call.context, now()) ?? "");
      const { challenge, statementId } = proof;
      const standing = challenges.standing(challenge, statementId);
      if (standing !== "unused") return notGood(standing);
      return {
        kind: "signed",
        operator: operator.name,
        spend() {
          const outcome = challenges.spend(challenge, statementId);
          return outcome === "spent" ? null : notGood(outcome);
        },
      };
    },
  };
}

/** Why this operator's signature does not count here and now, or null. */
function mayNotSign({ name, contexts, notAfterMs }: TrustedOperator, context: string, nowMs: number): string | null {
  const who = `operator ${quote(name)}`;
  if (contexts && !contexts.includes(context)) return `${who} may sign only for ${contexts.join(", ") || "nothing"}`;
  if (notAfterMs === null || nowMs <= notAfterMs) return null;
  return `the key of ${who} was good until ${new Date(notAfterMs).toISOString()}`;
}
