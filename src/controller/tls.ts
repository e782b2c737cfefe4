/** The controller's TLS identity: its own CA and a leaf for its names, or certificate files that the operator brings. */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";
import { spkiPin } from "../platform/spki-pin.ts";

export interface TlsIdentity {
  /** Leaf first, then what issued it. */
  certPem: string;
  keyPem: string;
  /** What a client must trust; null when a public authority issued the leaf. */
  caPem: string | null;
  /** At most four, leaf first. */
  pins: string[];
}

const lifeYears = 10;
/** Clocks of hosts may be behind by this much. */
const backdateMs = 48 * 60 * 60 * 1000;

const paths = (dataDir: string) => ({
  ca: join(dataDir, "keys", "tls-ca.pem"),
  cert: join(dataDir, "keys", "tls.pem"),
  key: join(dataDir, "keys", "tls.key"),
});

/** Makes a CA and a leaf for `host` and loopback. The CA's key is used once and never written. */
export async function createTls(dataDir: string, host: string, nowMs: number): Promise<void> {
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const newPair = () => crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const [caKeys, leafKeys] = await Promise.all([newPair(), newPair()]);
  const validity = {
    notBefore: new Date(nowMs - backdateMs),
    notAfter: new Date(nowMs + lifeYears * 365 * 86_400_000),
  };
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    name: "CN=aegis controller CA",
    keys: caKeys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(caKeys.publicKey),
    ],
  });
  const names = [...new Set([host, "localhost", "127.0.0.1", "::1"])].map((value) => ({
    type: isIP(value) ? ("ip" as const) : ("dns" as const),
    value,
  }));
  const leaf = await x509.X509CertificateGenerator.create({
    ...validity,
    subject: "CN=aegis controller",
    issuer: ca.subject,
    publicKey: leafKeys.publicKey,
    signingKey: caKeys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(names),
      await x509.AuthorityKeyIdentifierExtension.create(caKeys.publicKey),
    ],
  });
  const secret = x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", leafKeys.privateKey), "PRIVATE KEY");
  const file = paths(dataDir);
  await writeFileAtomic(file.key, `${secret}\n`);
  await writeFileAtomic(file.ca, `${ca.toString("pem")}\n`, PUBLIC_FILE);
  await writeFileAtomic(file.cert, `${leaf.toString("pem")}\n${ca.toString("pem")}\n`, PUBLIC_FILE);
}

export async function loadTls(dataDir: string, own?: { certPath: string; keyPath: string }): Promise<TlsIdentity> {
  const file = paths(dataDir);
  const certPem = await read(own?.certPath ?? file.cert);
  const keyPem = await read(own?.keyPath ?? file.key);
  const chain = certificates(certPem, own?.certPath ?? file.cert);
  return { certPem, keyPem, caPem: own ? null : await read(file.ca), pins: chain.slice(0, 4).map(spkiPin) };
}

function certificates(pem: string, path: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    const chain = blocks.map((block) => new X509Certificate(block));
    if (chain.length > 0) return chain;
  } catch (cause) {
    throw new AegisError("config_invalid", `${path} holds a certificate that cannot be read`, { cause });
  }
  throw new AegisError("config_invalid", `${path} holds no certificate`, {
    hint: "give the PEM file of the leaf, followed by what issued it, with --tls-cert",
  });
}

const read = (path: string): Promise<string> =>
  readFile(path, "utf8").catch((cause: Error) => {
    throw new AegisError("config_invalid", `cannot read ${path}: ${cause.message}`, {
      cause,
      hint: "aegis controller init makes it",
    });
  });
