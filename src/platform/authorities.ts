/** The certificate authorities this machine believes: Bun's, the system's, and those of SSL_CERT_FILE. */
import { readFileSync } from "node:fs";
import { getCACertificates, rootCertificates } from "node:tls";
import { AegisError } from "../errors.ts";
import type { Environment } from "./paths.ts";

/** PEM texts. Throws `config_invalid` when SSL_CERT_FILE names a file that cannot be read or holds no certificate. */
export function systemAuthorities(env: Environment): string[] {
  const own = env.SSL_CERT_FILE ? certificatesIn(env.SSL_CERT_FILE) : [];
  return [...new Set([...rootCertificates, ...getCACertificates("system"), ...own])];
}

function certificatesIn(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new AegisError("config_invalid", `SSL_CERT_FILE: cannot read ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
  if (found) return found;
  throw new AegisError("config_invalid", `SSL_CERT_FILE: ${path} holds no certificate in PEM form`);
}
