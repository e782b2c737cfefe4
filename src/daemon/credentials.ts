/** Who this host is while its daemon runs: its key and its token, how each is replaced, and how an unfinished change ends. */
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { fingerprint, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { tokenFacts } from "../identity/keyring.ts";
import type { KeptKey, RotationFiles } from "../identity/rotation-files.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { ControllerLink } from "./link.ts";
import { askForRotation, type Granted } from "./rotate.ts";

/** What a session is opened with. */
export interface NodeCredentials {
  nodeKey: SigningKey;
  nodeToken: string;
}

/** How long an old key stays in the archive unless the owner says otherwise. */
export const defaultKeepOldMs = 24 * 60 * 60_000;
/** A token this young is as good as a new one. */
const freshTokenMs = 60 * 60_000;
/** After a renewal that failed, and between two that did not. */
const renewEveryMs = 10 * 60_000;
/** Between two new tokens that are asked for without being told to. */
const guessEveryMs = 60 * 60_000;
const dayMs = 24 * 60 * 60_000;
const pruneEveryMs = 60 * 60_000;

export interface CredentialsOptions extends NodeCredentials {
  nodeId: string;
  tenantId: string;
  files: RotationFiles;
  rotate: ControllerLink["rotate"];
  /** What is trusted now; null with `seal: compat`. */
  keyset: () => TrustedKeyset | null;
  saveKeyset(keyset: TrustedKeyset): Promise<void>;
  clock: Clock;
  log: Log;
  /** The key or the token is another one from now on. */
  onChange?(change: "key" | "token"): void;
}

export interface RotateRequest {
  keepOldMs: number;
  /** A rotation that was begun and cannot be finished is given up. */
  force: boolean;
}

export interface RotateOutcome {
  fingerprint: string;
  formerFingerprint: string;
  /** Epoch milliseconds; null when the token does not say. */
  tokenExpiresAtMs: number | null;
  /** It had been begun earlier. */
  resumed: boolean;
}

export interface RefreshOutcome {
  tokenExpiresAtMs: number | null;
  /** False: the token is so new that another is not asked for. */
  renewed: boolean;
}

export interface Credentials {
  readonly current: NodeCredentials;
  rotate(request: RotateRequest): Promise<RotateOutcome>;
  refresh(request: { force: boolean }): Promise<RefreshOutcome>;
  /** What to try after a refused Hello, as SessionOptions has it. */
  renew(why: "expired" | "unknown"): Promise<NodeCredentials | null>;
  /** Ends a rotation that a crash or an outage left unfinished. Never rejects: it is tried again on the next connection. */
  finish(): Promise<void>;
  /** Renews the token when half its life is over, by the controller's time. */
  keepToken(session: { mustRefresh: boolean; nowMs(): number; signal: AbortSignal }): Promise<void>;
  /** Removes archived keys in time, until `signal` aborts. */
  keepArchive(signal: AbortSignal): Promise<void>;
}

export function createCredentials(options: CredentialsOptions): Credentials {
  const { nodeId, tenantId, files, keyset, clock, log } = options;
  let current: NodeCredentials = { nodeKey: options.nodeKey, nodeToken: options.nodeToken };
  let last: Promise<unknown> = Promise.resolve();
  let guessedAt = Number.NEGATIVE_INFINITY;

  /** One change after the other: two at once would each archive the other's key. */
  function inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = last.then(change);
    last = result.catch(() => {});
    return result;
  }

  async function ask(oldKey: SigningKey, newKey: SigningKey): Promise<Granted> {
    const trusted = keyset();
    const granted = await askForRotation(options.rotate, { nodeId, tenantId, oldKey, newKey, keyset: trusted });
    if (granted.keyset && trusted && granted.keyset.version > trusted.version) await options.saveKeyset(granted.keyset);
    return granted;
  }

  async function promote(next: KeptKey, { token }: Granted, keepOldMs: number): Promise<void> {
    const former = current.nodeKey;
    await files.promote(next, token, { keepOldMs, nowMs: clock.now() });
    current = { nodeKey: next.key, nodeToken: token };
    log.info("node_key_rotated", { from: fingerprint(former), to: fingerprint(next.key) });
    options.onChange?.("key");
  }

  async function renewToken(): Promise<Granted> {
    const granted = await ask(current.nodeKey, current.nodeKey);
    await files.replaceToken(granted.token);
    current = { ...current, nodeToken: granted.token };
    log.info("node_token_renewed", { expires_at: granted.expiresAtMs && new Date(granted.expiresAtMs).toISOString() });
    options.onChange?.("token");
    return granted;
  }

  /**
   * Which of two keys the controller has is known to nobody after a crash: the change is asked for with each, and the first
   * answer decides. Null when neither counts.
   */
  async function settle(next: KeptKey, keepOldMs: number): Promise<Granted | null> {
    for (const oldKey of [current.nodeKey, next.key]) {
      const granted = await ask(oldKey, next.key).catch(unlessUnauthenticated);
      if (!granted) continue;
      await promote(next, granted, keepOldMs);
      return granted;
    }
    return null;
  }

  /** A damaged next key is said and passed over: this host goes on with the one it has. */
  async function unfinished(): Promise<KeptKey | null> {
    try {
      return await files.next();
    } catch (error) {
      log.warn("rotation_unfinished", { error: AegisError.from(error) });
      return null;
    }
  }

  const outcome = (former: SigningKey, { expiresAtMs }: Granted, resumed: boolean): RotateOutcome => ({
    ...{ fingerprint: fingerprint(current.nodeKey), formerFingerprint: fingerprint(former) },
    ...{ tokenExpiresAtMs: expiresAtMs, resumed },
  });

  return {
    get current() {
      return current;
    },
    rotate: ({ keepOldMs, force }) =>
      inTurn(async () => {
        const former = current.nodeKey;
        const begun = force ? await unfinished() : await files.next();
        if (begun) {
          const granted = await settle(begun, keepOldMs).catch((error: unknown) => {
            if (!force) throw error;
            log.warn("rotation_given_up", { error: AegisError.from(error) });
            return null;
          });
          if (granted) return outcome(former, granted, true);
          if (!force) throw stuck();
        }
        const next = await files.drawNext(clock.now());
        const granted = await ask(former, next.key);
        await promote(next, granted, keepOldMs);
        return outcome(former, granted, false);
      }),
    refresh: ({ force }) =>
      inTurn(async () => {
        const facts = tokenFacts(current.nodeToken);
        const ageMs = facts?.iatMs == null ? Number.POSITIVE_INFINITY : clock.now() - facts.iatMs;
        if (!force && ageMs >= 0 && ageMs < freshTokenMs)
          return { tokenExpiresAtMs: facts?.expMs ?? null, renewed: false };
        const { expiresAtMs } = await renewToken();
        return { tokenExpiresAtMs: expiresAtMs, renewed: true };
      }),
    renew: (why) =>
      inTurn(async () => {
        const next = await unfinished();
        if (why === "unknown" && next) return (await settle(next, defaultKeepOldMs)) ? current : null;
        // Nobody signed why: a new token helps where the old one's key is gone, and is not asked for at every attempt.
        if (why === "unknown" && clock.monotonic() - guessedAt < guessEveryMs) return null;
        if (why === "unknown") guessedAt = clock.monotonic();
        const granted = await renewToken().catch((error: unknown) => {
          if (why === "expired" && !next) throw error;
          return unlessUnauthenticated(error);
        });
        if (granted) return current;
        return next && (await settle(next, defaultKeepOldMs)) ? current : null;
      }),
    finish: () =>
      inTurn(async () => {
        const next = await unfinished();
        if (!next) return;
        const done = await settle(next, defaultKeepOldMs).catch((error: unknown) => AegisError.from(error));
        if (done instanceof AegisError || done === null) log.warn("rotation_unfinished", { error: done ?? stuck() });
      }),
    async keepToken({ mustRefresh, nowMs, signal }) {
      let due = mustRefresh;
      while (!signal.aborted) {
        const facts = tokenFacts(current.nodeToken);
        const half = facts?.iatMs == null || facts.expMs === null ? null : (facts.iatMs + facts.expMs) / 2;
        const waitMs = due ? 0 : half === null ? dayMs : half - nowMs();
        if (waitMs > 0) {
          await clock.sleep(Math.min(waitMs, dayMs), signal);
          continue;
        }
        due = false;
        await inTurn(renewToken).catch((error: unknown) => {
          due = mustRefresh;
          log.warn("node_token_not_renewed", { error: AegisError.from(error), again_in_ms: renewEveryMs });
        });
        await clock.sleep(renewEveryMs, signal);
      }
    },
    async keepArchive(signal) {
      while (!signal.aborted) {
        const removed = await files.prune(clock.now()).catch((error: unknown) => {
          log.warn("archive_not_pruned", { error: AegisError.from(error) });
          return 0;
        });
        if (removed > 0) log.info("old_keys_removed", { count: removed });
        await clock.sleep(pruneEveryMs, signal);
      }
    },
  };
}

function unlessUnauthenticated(error: unknown): null {
  if (AegisError.from(error).code !== "unauthenticated") throw error;
  return null;
}

const stuck = () =>
  new AegisError("unauthenticated", "the controller knows neither this host's key nor the one it was changing to", {
    hint: "try aegis edge keys rotate --force; if that fails too, enroll again: aegis edge token issue --for NODE, then aegis edge enroll --force TOKEN",
  });
