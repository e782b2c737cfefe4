/**
 * The challenges this host has given out, and which statements ran under each: what makes an operator's signature good
 * once and for minutes. In memory only, without a clock: a restart makes every older statement worthless.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";

export const challengeLimits = {
  /** A new challenge comes this often; with the one before it, a statement is good for 5 to 10 minutes. */
  renewMs: 5 * 60_000,
  /** Statements that may run under one challenge. */
  statements: 1_024,
  /** Challenges no longer good whose statements are remembered, so that "it never ran" can still be said of one. */
  remembered: 64,
};

/** `dead`: this process gave the challenge out, and it is good no more. `unknown`: an earlier process or nobody did. */
export type Standing = "unused" | "used" | "dead" | "unknown";

export interface OperatorChallenges {
  /** 32 bytes. */
  readonly current: Uint8Array;
  /** A session begins: every challenge before it is dead. */
  begin(): void;
  /** The current one stays good as the previous one; the one before that is dead. */
  renew(): void;
  standing(challenge: Uint8Array, statementId: Uint8Array): Standing;
  /** Looks and marks in one step. Whatever is not `spent` must not run. */
  spend(challenge: Uint8Array, statementId: Uint8Array): "spent" | "full" | Exclude<Standing, "unused">;
}

interface Given {
  challenge: Uint8Array;
  used: Set<string>;
}

export function operatorChallenges(): OperatorChallenges {
  const fresh = (): Given => ({ challenge: randomBytes(32), used: new Set() });
  /** Newest first; the first `good` of them are good. */
  let given: Given[] = [fresh()];
  let good = 1;

  function add(stillGood: number): void {
    given = [fresh(), ...given].slice(0, 2 + challengeLimits.remembered);
    good = stillGood;
  }

  const find = (challenge: Uint8Array): number =>
    challenge.length === 32 ? given.findIndex((one) => timingSafeEqual(one.challenge, challenge)) : -1;
  const idOf = (statementId: Uint8Array): string => Buffer.from(statementId).toString("hex");

  const self: OperatorChallenges = {
    get current() {
      return given[0]?.challenge ?? new Uint8Array();
    },
    begin: () => add(1),
    renew: () => add(2),
    standing(challenge, statementId) {
      const at = find(challenge);
      const one = given[at];
      if (!one) return "unknown";
      if (one.used.has(idOf(statementId))) return "used";
      return at < good ? "unused" : "dead";
    },
    spend(challenge, statementId) {
      const standing = self.standing(challenge, statementId);
      const one = given[find(challenge)];
      if (standing !== "unused" || !one) return standing === "unused" ? "unknown" : standing;
      if (one.used.size >= challengeLimits.statements) return "full";
      one.used.add(idOf(statementId));
      return "spent";
    },
  };
  return self;
}
