/** How the project names a TLS key: the SHA-256 of its SubjectPublicKeyInfo. */
import { createHash, type X509Certificate } from "node:crypto";

/** `spki-sha256:` and 43 characters of base64url. */
export const spkiPin = (certificate: X509Certificate): string =>
  `spki-sha256:${createHash("sha256")
    .update(certificate.publicKey.export({ format: "der", type: "spki" }))
    .digest("base64url")}`;
