/** Open enrollment challenges: single use, short lived, and few for each address. */
import { randomUUID } from "node:crypto";
import type { PublicKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { limits } from "../platform/limits.ts";

export const challengeLimits = { lifeMs: 300_000, open: 10_000 };

export interface OpenChallenge {
  nodeId: string;
  key: PublicKey;
  nonce: Uint8Array;
  /** The client offered strict sessions, so it must prove itself as ours do. */
  strict: boolean;
}

export interface Challenges {
  /**
   * The challenge's id. Throws `rate_limited` when this address has too many that were never redeemed. `make` may throw;
   * it costs an attempt all the same, and is not called for an address that has none left.
   */
  open(address: string, make: () => OpenChallenge): string;
  /** Removes and returns it: whatever becomes of it, it is used up. Null when unknown or expired. */
  take(id: string): OpenChallenge | null;
  /** It led to a host: its address gets its place back. */
  redeemed(challenge: OpenChallenge): void;
}

interface Attempt {
  address: string;
  at: number;
}

/** `perAddress`: attempts in a minute. */
export function createChallenges(clock: Clock, perAddress: number = limits.enrollmentAttemptsPerMinute): Challenges {
  const open = new Map<string, { challenge: OpenChallenge; at: number }>();
  /** Of the last minute, oldest first, and how many each address has among them. */
  const attempts = new Set<Attempt>();
  const counts = new Map<string, number>();
  const attemptOf = new WeakMap<OpenChallenge, Attempt>();

  function forget(attempt: Attempt | undefined): void {
    if (!attempt || !attempts.delete(attempt)) return;
    const left = (counts.get(attempt.address) ?? 1) - 1;
    if (left > 0) counts.set(attempt.address, left);
    else counts.delete(attempt.address);
  }

  function prune(): void {
    const now = clock.monotonic();
    for (const [id, { at }] of open) {
      if (now - at <= challengeLimits.lifeMs) break;
      open.delete(id);
    }
    for (const attempt of attempts) {
      if (now - attempt.at < 60_000) break;
      forget(attempt);
    }
  }

  return {
    open(address, make) {
      prune();
      const tried = counts.get(address) ?? 0;
      if (tried >= perAddress) {
        throw new AegisError(
          "rate_limited",
          `more than ${perAddress} enrollment attempts a minute from one address; wait a minute`,
        );
      }
      if (open.size >= challengeLimits.open || attempts.size >= challengeLimits.open)
        throw new AegisError(
          "rate_limited",
          `${challengeLimits.open} enrollments are under way; try again in a minute`,
        );
      const id = randomUUID();
      const at = clock.monotonic();
      const attempt = { address, at };
      attempts.add(attempt);
      counts.set(address, tried + 1);
      const challenge = make();
      attemptOf.set(challenge, attempt);
      open.set(id, { challenge, at });
      return id;
    },
    take(id) {
      prune();
      const found = open.get(id);
      open.delete(id);
      return found?.challenge ?? null;
    },
    redeemed: (challenge) => forget(attemptOf.get(challenge)),
  };
}
