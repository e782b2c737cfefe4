/**
 * Whether the far end of a TLS connection is the controller: by the pins in the host's settings and those that the
 * controller's root has vouched for since, else by the system's authorities and the name. With a pin no date is judged, so
 * a wrong clock cannot lock a host out.
 */
import { X509Certificate } from "node:crypto";
import { checkServerIdentity, type TLSSocket } from "node:tls";
import { spkiPin } from "../platform/spki-pin.ts";

export interface TlsTrust {
  /** `spki-sha256:<base64url>` of a leaf or a CA; empty = the system's authorities decide. */
  pins: readonly string[];
  /**
   * Those of the newest keyset, under the root that this host pinned. Each is as good as one in the settings, and needs no
   * authority beside it. They follow the pins that came with the token: settings that name none of the controller's keys, of
   * now or before, are their owner's own word, and so is a list that is empty.
   */
  vouchedPins?: readonly string[];
  /** Once listed by a keyset, and no longer: refused even where the settings name them, as those that came with the token do. */
  withdrawnPins?: readonly string[];
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
  const { pins, withdrawnPins = [], caPem, serverName } = trust;
  const isFollowed = pins.some((pin) => trust.vouchedPins?.includes(pin) || withdrawnPins.includes(pin));
  const vouchedPins = isFollowed ? (trust.vouchedPins ?? []) : [];
  const [leaf] = peer.chain;
  if (!leaf) return "the server presented no certificate";
  const untrusted = peer.authorized ? null : `the server's certificate is not trusted: ${peer.authorizationError}`;
  if (pins.length === 0) return untrusted ?? wrongName(leaf, serverName);

  const accepted = [...new Set([...vouchedPins, ...pins.filter((pin) => !withdrawnPins.includes(pin))])];
  const matched = proven(peer.chain, caPem).find((certificate) => accepted.includes(spkiPin(certificate)));
  if (!matched)
    return `no certificate of the server matches the pinned key: got ${peer.chain.map(spkiPin).join(", ")}, pinned ${accepted.join(", ") || "none that is not withdrawn"}`;
  // With a pin no date is judged; and a certificate that vouches for itself, or the root for it, needs no other authority.
  const vouched = vouchedPins.includes(spkiPin(matched));
  const tolerable =
    vouched || dateErrors.has(peer.authorizationError ?? "") || (matched === leaf && isSignedBy(leaf, leaf));
  if (untrusted && !tolerable) return untrusted;
  return matched === leaf ? null : wrongName(leaf, serverName);
}

/** An authority has many leaves, of which one is the controller's: the name says which. */
const wrongName = (leaf: X509Certificate, serverName: string): string | null =>
  checkServerIdentity(serverName, leaf.toLegacyObject())?.message ?? null;

/**
 * The leaf, whose key the handshake proved, and what signed it, as far as each signature holds: what else a peer presents
 * anybody can present. Checked here because OpenSSL tells of one fault, and that may be the date.
 */
function proven(chain: readonly X509Certificate[], caPem: string | null): X509Certificate[] {
  const [leaf, ...rest] = caPem ? [...chain, new X509Certificate(caPem)] : chain;
  const found = leaf ? [leaf] : [];
  for (const issuer of rest) {
    const below = found.at(-1);
    if (!below || !issuer.ca || !isSignedBy(below, issuer)) break;
    found.push(issuer);
  }
  return found;
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  } catch {
    return false;
  }
}

/** The certificate of `chain` that a pin names, when it can be an authority by itself: a CA, or a self-signed leaf. */
export function pinnedAnchor(chain: readonly X509Certificate[], pins: readonly string[]): X509Certificate | null {
  // A leaf may be pinned beside the authority that issued it, and only the authority can stand alone.
  const canAnchor = (one: X509Certificate) => one.ca || one.checkIssued(one);
  return chain.find((one) => pins.includes(spkiPin(one)) && canAnchor(one)) ?? null;
}

export const nameCertificate =
  "name a certificate that the server takes in the settings: cluster.controller.tls.cert_path and key_path";

/** What OpenSSL says of a far end that speaks something else than TLS or HTTP/2, in words; null when it says something else. */
export function otherSpeech(details: string): { reason: string; hint?: string } | null {
  if (details.includes("NO_APPLICATION_PROTOCOL"))
    return { reason: "the server does not speak HTTP/2 (ALPN refused)", hint: passHttp2 };
  return details.includes("WRONG_VERSION_NUMBER") ? { reason: "what answers does not speak TLS" } : null;
}

export const passHttp2 =
  "this may be another port than the controller's gRPC; if something in between opens TLS, let it pass HTTP/2";

/** What a server that wants to know who we are says instead of an answer, in words; null when it said something else. */
export function clientRefusal(details: string): { reason: string; hint: string } | null {
  const [, alert] =
    /ALERT_(CERTIFICATE_REQUIRED|UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_(?:EXPIRED|REVOKED|UNKNOWN)|ACCESS_DENIED)/.exec(
      details,
    ) ?? [];
  if (!alert) return null;
  const asks = alert === "CERTIFICATE_REQUIRED";
  return {
    reason: asks
      ? "the server asks for a client certificate, and got none"
      : `the server refused our client certificate (${alert})`,
    hint: nameCertificate,
  };
}
