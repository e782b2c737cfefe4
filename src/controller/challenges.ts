/** Open enrollment challenges: single use, short lived, and few for each address. */
import { randomUUID } from "node:crypto";
import type { PublicKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";

export const challengeLimits = { lifeMs: 300_000, open: 10_000, perAddressPerMinute: 30 };

export interface OpenChallenge {
  nodeId: string;
  key: PublicKey;
  nonce: Uint8Array;
  /** The client offered strict sessions, so it must prove itself as ours do. */
  strict: boolean;
}

export interface Challenges {
  /** The challenge's id. Throws `rate_limited` when this address has too many that were never redeemed. */
  open(challenge: OpenChallenge, address: string): string;
  /** Removes and returns it: whatever becomes of it, it is used up. Null when unknown or expired. */
  take(id: string): OpenChallenge | null;
  /** It led to a host: its address gets its place back. */
  redeemed(challenge: OpenChallenge): void;
}

export function createChallenges(clock: Clock): Challenges {
  const open = new Map<string, { challenge: OpenChallenge; at: number }>();
  /** Of the last minute, oldest first, and how many each address has among them. */
  const attempts = new Map<OpenChallenge, { address: string; at: number }>();
  const counts = new Map<string, number>();

  function forget(challenge: OpenChallenge): void {
    const attempt = attempts.get(challenge);
    if (!attempt || !attempts.delete(challenge)) return;
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
    for (const [challenge, { at }] of attempts) {
      if (now - at < 60_000) break;
      forget(challenge);
    }
  }

  return {
    open(challenge, address) {
      prune();
      const tried = counts.get(address) ?? 0;
      if (tried >= challengeLimits.perAddressPerMinute) {
        throw new AegisError(
          "rate_limited",
          `more than ${challengeLimits.perAddressPerMinute} enrollment attempts a minute from one address; wait a minute`,
        );
      }
      if (open.size >= challengeLimits.open || attempts.size >= challengeLimits.open)
        throw new AegisError(
          "rate_limited",
          `${challengeLimits.open} enrollments are under way; try again in a minute`,
        );
      const id = randomUUID();
      const at = clock.monotonic();
      open.set(id, { challenge, at });
      attempts.set(challenge, { address, at });
      counts.set(address, tried + 1);
      return id;
    },
    take(id) {
      prune();
      const found = open.get(id);
      open.delete(id);
      return found?.challenge ?? null;
    },
    redeemed: forget,
  };
}
