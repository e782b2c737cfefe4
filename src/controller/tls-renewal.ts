/** Takes up a certificate that was renewed on disk, as those of public authorities are every few weeks, without a restart. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { TlsIdentity } from "./tls.ts";

export interface RenewalOptions {
  /** Reads the files as they are now. */
  load(): Promise<TlsIdentity>;
  current(): TlsIdentity;
  /** From now on new connections get this one; those that are open stay. */
  renew(next: TlsIdentity): void;
  clock: Clock;
  log: Log;
}

export const renewalLookMs = 60_000;

/** Until `signal` aborts. Files that do not fit together, as between two writes, change nothing and are looked at again. */
export async function keepCertificate(options: RenewalOptions, signal: AbortSignal): Promise<void> {
  const { load, current, renew, clock, log } = options;
  let told = "";
  const look = async () => {
    const [before, next] = [current(), await load()];
    if (next.certPem === before.certPem && next.keyPem === before.keyPem) return;
    const leaf = new X509Certificate(next.certPem);
    if (!leaf.checkPrivateKey(createPrivateKey(next.keyPem)))
      throw new AegisError("config_invalid", "the certificate and the key on disk do not belong together");
    renew(next);
    log.info("certificate_renewed", { expires_at: new Date(leaf.validTo).toISOString(), pin: next.pins[0] });
  };
  for (;;) {
    await clock.sleep(renewalLookMs, signal);
    if (signal.aborted) return;
    try {
      await look();
      told = "";
    } catch (thrown) {
      const error = AegisError.from(thrown);
      if (error.message !== told) log.error("certificate_not_renewed", { error });
      told = error.message;
    }
  }
}
