/** Certificates for tests: authorities, leaves and impostors, with whatever validity. */
import "reflect-metadata";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
export const dayMs = 86_400_000;

export interface Made {
  pem: string;
  keyPem: string;
  certificate: x509.X509Certificate;
  keys: CryptoKeyPair;
}

export interface MakeOptions {
  name: string;
  /** Null = signs itself. */
  issuer?: Made | null;
  ca?: boolean;
  /** DNS names and addresses. */
  hosts?: string[];
  notBefore?: Date;
  notAfter?: Date;
  /** Instead of new ones. */
  keys?: CryptoKeyPair;
  /** Signs in the issuer's place, without being it. */
  forgedBy?: CryptoKeyPair;
}

export async function makeCertificate(options: MakeOptions): Promise<Made> {
  const { name, issuer = null, ca = false, hosts = [], forgedBy } = options;
  const keys = options.keys ?? (await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]));
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(ca, undefined, true),
    await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    await x509.AuthorityKeyIdentifierExtension.create(issuer?.keys.publicKey ?? keys.publicKey),
  ];
  if (ca)
    extensions.push(new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true));
  if (hosts.length > 0) {
    const names = hosts.map((value) => ({ type: isIP(value) ? ("ip" as const) : ("dns" as const), value }));
    extensions.push(new x509.SubjectAlternativeNameExtension(names));
  }
  const certificate = await x509.X509CertificateGenerator.create({
    subject: `CN=${name}`,
    issuer: issuer ? issuer.certificate.subject : `CN=${name}`,
    publicKey: keys.publicKey,
    signingKey: (forgedBy ?? issuer?.keys ?? keys).privateKey,
    signingAlgorithm: algorithm,
    notBefore: options.notBefore ?? new Date(Date.now() - dayMs),
    notAfter: options.notAfter ?? new Date(Date.now() + dayMs),
    extensions,
  });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    certificate,
    keys,
    pem: certificate.toString("pem"),
    keyPem: x509.PemConverter.encode(pkcs8, "PRIVATE KEY"),
  };
}
