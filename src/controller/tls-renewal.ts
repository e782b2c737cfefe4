/**
 * Takes up another certificate without a restart and without losing a host: its pins are published first, and it is used
 * once hosts have heard of them. The controller's own is renewed before it ends; one of the operator's when its files change.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { TlsIdentity } from "./tls.ts";
import { samePins, together } from "./tls-pins.ts";

/** Where certificates come from. */
export interface TlsSource {
  /** What is to follow the one that is served; null when nothing is. Throws while its files do not fit together. */
  next(current: TlsIdentity): Promise<TlsIdentity | null>;
  /** Whether hosts have heard of `next`, or have had their time. */
  heard(next: TlsIdentity, current: TlsIdentity): Promise<boolean>;
  /** A restart serves `next` from now on. */
  take(next: TlsIdentity): Promise<void>;
  /** What else stays published, of what is. */
  alsoPublished(listed: readonly string[]): readonly string[];
}

export interface RenewalOptions {
  source: TlsSource;
  current(): TlsIdentity;
  /** From now on new connections get this one; those that are open stay. */
  renew(next: TlsIdentity): void;
  /** The newest in use. */
  keyset(): TrustedKeyset;
  /** Brings a keyset with these pins into use. Rejects where no root key is at hand, or another change is under way. */
  publish(pins: readonly string[], change: string): Promise<void>;
  clock: Clock;
  log: Log;
}

export const renewalLookMs = 60_000;
/** While a certificate waits for hosts to hear of it. */
export const waitingLookMs = 2_000;

/** One that is used and one that follows. */
const mostPins = 8;

export interface CertificateKeeper {
  /** One look at what is there. Never rejects: what is wrong is logged, once. */
  look(): Promise<void>;
  /** Looks until `signal` aborts. */
  watch(signal: AbortSignal): Promise<void>;
  /** Looks now. */
  wake(): void;
}

export function certificateKeeper(options: RenewalOptions): CertificateKeeper {
  const { source, current, renew, keyset, publish, clock, log } = options;
  let told = "";
  let isWaiting = false;
  let woken = new AbortController();
  let last = Promise.resolve();

  /** Why the pins could not be published; null when they are. */
  async function list(pins: readonly string[], change: string): Promise<AegisError | null> {
    const listed = keyset().tlsPins;
    const wanted = together(pins, source.alsoPublished(listed)).slice(0, mostPins);
    if (samePins(listed, wanted)) return null;
    return await publish(wanted, change).then(
      () => null,
      (thrown: unknown) => AegisError.from(thrown),
    );
  }

  async function once(): Promise<void> {
    const now = current();
    const next = await source.next(now);
    isWaiting = next !== null;
    const lists = ({ pins }: TlsIdentity) => pins.some((pin) => keyset().tlsPins.includes(pin));
    const isRevoked = next !== null && lists(next) && !lists(now);
    const words = next ? `the next TLS key ${next.pins[0]} is published` : `the TLS key in use is ${now.pins[0]}`;
    const unpublished = isRevoked ? null : await list(together(now.pins, next?.pins ?? []), words);
    if (!next) {
      if (unpublished && keyset().tlsPins.length > 0 && !lists(now)) throw unpublished;
      return;
    }
    if (!lists(next) && keyset().tlsPins.length > 0)
      throw new AegisError(
        unpublished?.code ?? "unavailable",
        `the new certificate waits: hosts would refuse it until its key is published, and ${unpublished?.message ?? "that failed"}`,
        unpublished?.hint ? { hint: unpublished.hint } : {},
      );
    if (!isRevoked && lists(next) && !(await source.heard(next, now))) return;
    await source.take(next);
    renew(next);
    isWaiting = false;
    const leaf = new X509Certificate(next.certPem);
    log.info("certificate_renewed", { expires_at: new Date(leaf.validTo).toISOString(), pin: next.pins[0] });
    const left = await list(next.pins, `the TLS key in use is ${next.pins[0]}`);
    if (left) log.warn("former_tls_key_published", { error: left });
  }

  const look = () => {
    last = last.then(once).then(
      () => {
        told = "";
      },
      (thrown: unknown) => {
        const error = AegisError.from(thrown);
        if (error.message !== told) log.error("certificate_not_renewed", { error });
        told = error.message;
      },
    );
    return last;
  };

  return {
    look,
    wake: () => woken.abort(),
    async watch(signal) {
      while (!signal.aborted) {
        woken = new AbortController();
        const ms = isWaiting ? waitingLookMs : renewalLookMs;
        await clock.sleep(ms, AbortSignal.any([signal, woken.signal]));
        if (!signal.aborted) await look();
      }
    },
  };
}

/** Throws when they are two halves of different pairs, as between two writes. */
export function requireFit({ certPem, keyPem }: Pick<TlsIdentity, "certPem" | "keyPem">): void {
  if (!new X509Certificate(certPem).checkPrivateKey(createPrivateKey(keyPem)))
    throw new AegisError("config_invalid", "the certificate and the key on disk do not belong together");
}
