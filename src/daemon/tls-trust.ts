/**
 * Whether the far end of a TLS connection is the controller: by the pins that came with the enrollment token, else by
 * the system's authorities and the name. With a pin no date is judged, so a wrong clock cannot lock a host out.
 */
import { X509Certificate } from "node:crypto";
import { checkServerIdentity, type TLSSocket } from "node:tls";
import { spkiPin } from "../platform/spki-pin.ts";

export interface TlsTrust {
  /** `spki-sha256:<base64url>` of a leaf or a CA; empty = the system's authorities decide. */
  pins: readonly string[];
  /** The only authority to believe, when a pin named one; null = the system's. */
  caPem: string | null;
  /** The name or address the certificate must be for. */
  serverName: string;
}

/** What a finished handshake presented. */
export interface Presented {
  /** Leaf first. */
  chain: readonly X509Certificate[];
  authorized: boolean;
  /** OpenSSL's name for why not. */
  authorizationError: string | null;
}

const dateErrors = new Set(["CERT_NOT_YET_VALID", "CERT_HAS_EXPIRED"]);
const maxChainLength = 10;

export function presented(socket: TLSSocket): Presented {
  const chain: X509Certificate[] = [];
  let at: X509Certificate | undefined = socket.getPeerX509Certificate();
  while (at && chain.length < maxChainLength && chain.at(-1)?.fingerprint256 !== at.fingerprint256) {
    chain.push(at);
    at = at.issuerCertificate;
  }
  const error: unknown = socket.authorizationError;
  const code = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : error;
  // A wrong name is said only of a chain that verified; whether the name matters is judged by `distrust`.
  const authorized = socket.authorized || code === "ERR_TLS_CERT_ALTNAME_INVALID";
  return { chain, authorized, authorizationError: authorized ? null : String(code ?? "unknown") };
}

/** Null when the peer may be believed, else the reason in words. */
export function distrust(peer: Presented, trust: TlsTrust): string | null {
  const [leaf] = peer.chain;
  if (!leaf) return "the server presented no certificate";
  const matched =
    trust.pins.length === 0 ? null : peer.chain.find((certificate) => trust.pins.includes(spkiPin(certificate)));
  if (matched === undefined) {
    return `no certificate of the server matches the pinned key: got ${peer.chain.map(spkiPin).join(", ")}, pinned ${trust.pins.join(", ")}`;
  }
  const leafPinned = matched === leaf;
  const selfSigned = leafPinned && leaf.checkIssued(leaf) && leaf.verify(leaf.publicKey);
  const tolerable = matched !== null && peer.authorizationError !== null && dateErrors.has(peer.authorizationError);
  if (!peer.authorized && !tolerable && !selfSigned)
    return `the server's certificate is not trusted: ${peer.authorizationError}`;
  if (!peer.authorized && tolerable && !selfSigned && !signedUpTo(peer.chain, trust.caPem))
    return "the server's certificate chain does not verify";
  if (leafPinned) return null;
  const wrongName = checkServerIdentity(trust.serverName, leaf.toLegacyObject());
  return wrongName ? wrongName.message : null;
}

/** OpenSSL stops at a date; what it then did not say is checked here: every signature, up to the authority. */
function signedUpTo(chain: readonly X509Certificate[], caPem: string | null): boolean {
  for (const [index, certificate] of chain.entries()) {
    const issuer = chain[index + 1] ?? (caPem ? new X509Certificate(caPem) : undefined);
    if (!issuer) return false;
    if (!certificate.verify(issuer.publicKey)) return false;
    if (caPem && issuer.fingerprint256 === new X509Certificate(caPem).fingerprint256) return issuer.ca;
    if (!issuer.ca) return false;
  }
  return false;
}

/** The certificate of `chain` that a pin names, when it can be an authority by itself: a CA, or a self-signed leaf. */
export function pinnedAnchor(chain: readonly X509Certificate[], pins: readonly string[]): X509Certificate | null {
  // A leaf may be pinned beside the authority that issued it, and only the authority can stand alone.
  const canAnchor = (one: X509Certificate) => one.ca || one.checkIssued(one);
  return chain.find((one) => pins.includes(spkiPin(one)) && canAnchor(one)) ?? null;
}
