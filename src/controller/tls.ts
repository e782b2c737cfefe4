/** The controller's TLS identity: its own CA and a leaf for its names, or certificate files that the operator brings. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, rename, rm } from "node:fs/promises";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { AegisError } from "../errors.ts";
import { PUBLIC_FILE, syncDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { spkiPin } from "../platform/spki-pin.ts";

export interface TlsIdentity {
  /** Leaf first, then what issued it. */
  certPem: string;
  /** Empty where a front end ends TLS. */
  keyPem: string;
  /** What a client must trust; null when a public authority issued the leaf. */
  caPem: string | null;
  /** At most four, leaf first. */
  pins: string[];
}

const lifeMs = 10 * 365 * 86_400_000;
/** Clocks of hosts may be behind by this much. */
const backdateMs = 48 * 60 * 60 * 1000;

/** The identity that is served, and the one that is to follow it. */
const paths = (dataDir: string, name: "tls" | "tls-next" = "tls") => ({
  ca: join(dataDir, "keys", `${name}-ca.pem`),
  cert: join(dataDir, "keys", `${name}.pem`),
  key: join(dataDir, "keys", `${name}.key`),
});

/** The first identity of a controller, for `host` and loopback. */
export const createTls = (dataDir: string, host: string, nowMs: number): Promise<void> =>
  makeTls(paths(dataDir), host, nowMs);

/** Makes the identity that is to follow, unless it is there: a whole new CA and leaf, which serve nobody yet. */
export async function prepareNextTls(dataDir: string, host: string, nowMs: number): Promise<TlsIdentity> {
  if (!(await nextTls(dataDir))) await makeTls(paths(dataDir, "tls-next"), host, nowMs);
  const made = await nextTls(dataDir);
  if (made) return made;
  throw new AegisError("internal", `${paths(dataDir, "tls-next").cert} cannot be read back`);
}

/** The identity that is to follow; null when there is none, or its making was interrupted. */
export async function nextTls(dataDir: string): Promise<TlsIdentity | null> {
  const file = paths(dataDir, "tls-next");
  const [certPem, keyPem, caPem] = await Promise.all([file.cert, file.key, file.ca].map(readIfThere));
  if (!certPem || !keyPem || !caPem || !fits(certPem, keyPem)) return null;
  return { certPem, keyPem, caPem, pins: certificates(certPem, file.cert).slice(0, maxPins).map(spkiPin) };
}

export async function dropNextTls(dataDir: string): Promise<void> {
  const file = paths(dataDir, "tls-next");
  for (const path of [file.cert, file.ca, file.key]) await rm(path, { force: true });
}

/**
 * Puts the identity that follows in the place of the one that is served. The key goes first: from then on whoever reads the
 * files sees by it that a change was begun, and ends it.
 */
export async function switchTls(dataDir: string): Promise<void> {
  const [now, next] = [paths(dataDir), paths(dataDir, "tls-next")];
  await rename(next.key, now.key);
  await endSwitch(dataDir);
}

async function endSwitch(dataDir: string): Promise<void> {
  const [now, next] = [paths(dataDir), paths(dataDir, "tls-next")];
  for (const [from, to] of [
    [next.ca, now.ca],
    [next.cert, now.cert],
  ] as const)
    await rename(from, to).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  await syncDirectory(dirname(now.key));
}

/** What a crash in the middle of a change left: the next certificate waits, and its key is in place already. */
async function finishSwitch(dataDir: string): Promise<void> {
  const next = await readIfThere(paths(dataDir, "tls-next").cert);
  const key = await readIfThere(paths(dataDir).key);
  if (next && key && fits(next, key)) await endSwitch(dataDir);
}

/** Writes a CA and a leaf that it issued. The CA's key is used once and never written. */
async function makeTls(file: ReturnType<typeof paths>, host: string, nowMs: number): Promise<void> {
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const newPair = () => crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const [caKeys, leafKeys] = await Promise.all([newPair(), newPair()]);
  const validity = {
    notBefore: new Date(nowMs - backdateMs),
    notAfter: new Date(nowMs + lifeMs),
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
  // The certificate last: with it the three are complete.
  await writeFileAtomic(file.key, `${secret}\n`);
  await writeFileAtomic(file.ca, `${ca.toString("pem")}\n`, PUBLIC_FILE);
  await writeFileAtomic(file.cert, `${leaf.toString("pem")}\n${ca.toString("pem")}\n`, PUBLIC_FILE);
}

/** When an identity of ours was made, by the controller's clock in milliseconds. */
export const madeAt = ({ certPem }: TlsIdentity): number =>
  Date.parse(new X509Certificate(certPem).validFrom) + backdateMs;

export const expiresAt = ({ certPem }: Pick<TlsIdentity, "certPem">): number =>
  Date.parse(new X509Certificate(certPem).validTo);

/** Without `own.keyPath` the certificate is that of a front end, which keeps its key to itself. */
export async function loadTls(dataDir: string, own?: { certPath: string; keyPath?: string }): Promise<TlsIdentity> {
  if (!own) await finishSwitch(dataDir);
  const file = paths(dataDir);
  const certPem = await read(own?.certPath ?? file.cert);
  const keyPem = own && !own.keyPath ? "" : await read(own?.keyPath ?? file.key);
  const chain = certificates(certPem, own?.certPath ?? file.cert);
  return { certPem, keyPem, caPem: own ? null : await read(file.ca), pins: chain.slice(0, maxPins).map(spkiPin) };
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

/** What an enrollment token may carry. */
const maxPins = 4;

function fits(certPem: string, keyPem: string): boolean {
  try {
    return new X509Certificate(certPem).checkPrivateKey(createPrivateKey(keyPem));
  } catch {
    return false;
  }
}

const readIfThere = (path: string): Promise<string | null> => readFile(path, "utf8").catch(() => null);

const read = (path: string): Promise<string> =>
  readFile(path, "utf8").catch((cause: Error) => {
    throw new AegisError("config_invalid", `cannot read ${path}: ${cause.message}`, {
      cause,
      hint: "aegis controller init makes it",
    });
  });
