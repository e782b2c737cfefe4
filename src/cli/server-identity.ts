/** Whether an API server is the one an operator means: by a fingerprint compared once, else by the system's authorities. */
import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { connect } from "node:tls";
import { presented } from "../daemon/tls-trust.ts";
import { reach } from "../daemon/tunnel.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Environment } from "../platform/paths.ts";
import { proxyFor } from "../platform/proxy-env.ts";
import { spkiPin } from "../platform/spki-pin.ts";

/** A certificate's key as people compare it: `SHA256:` and base64 without padding. */
export const fingerprintOf = (certificate: X509Certificate): string => pinShown(spkiPin(certificate));

/** A pin, in the same form. */
export const pinShown = (pin: string): string =>
  `SHA256:${Buffer.from(pin.replace("spki-sha256:", ""), "base64url").toString("base64").replace(/=+$/, "")}`;

/** `SHA256:...` or `spki-sha256:...`, as the former. Throws `usage`. */
export function readFingerprint(text: string): string {
  const [, digest = ""] = /^(?:SHA256|spki-sha256):([A-Za-z0-9+/_-]{43})=?$/.exec(text.trim()) ?? [];
  if (Buffer.from(digest, "base64url").length === 32) return pinShown(`spki-sha256:${digest}`);
  throw new AegisError("usage", `--fingerprint ${JSON.stringify(text)} is not SHA256: and 43 characters`, {
    hint: "aegis controller ca prints it, on the controller",
  });
}

export interface ServerIdentity {
  /** The authority of the presented chain, which may be unknown here; null when it presents none of its own. */
  authority: X509Certificate | null;
  /** The system's authorities vouch for it. */
  trusted: boolean;
}

const timeoutMs = 10_000;

/** What a server presents, before anything is said to it. */
export async function identify(url: URL, env: Environment, clock: Clock): Promise<ServerIdentity> {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = Number(url.port || 443);
  const unreachable = (message: string) =>
    new AegisError("unavailable", `cannot reach ${url.origin}: ${message}`, {
      hint: "is the controller running, and is the address right?",
    });
  const under = await reach({ host, port }, proxyFor({ host, port }, {}, env)).catch((error: Error) => {
    throw unreachable(error.message);
  });
  const socket = connect({ socket: under, rejectUnauthorized: false, ...(isIP(host) ? {} : { servername: host }) });
  const over = new AbortController();
  try {
    return await new Promise<ServerIdentity>((resolve, reject) => {
      socket.once("secureConnect", () => {
        const { chain, authorized } = presented(socket);
        resolve({ authority: chain.findLast((one) => one.ca && one.checkIssued(one)) ?? null, trusted: authorized });
      });
      socket.once("error", (error) => reject(unreachable(error.message)));
      socket.once("close", () => reject(unreachable("it closed the connection; does it speak TLS?")));
      void clock.sleep(timeoutMs, over.signal).then(() => {
        if (!over.signal.aborted) reject(unreachable(`no answer within ${timeoutMs / 1000} s`));
      });
    });
  } finally {
    over.abort();
    socket.destroy();
    under.destroy();
  }
}
