/** A release's list of files: SHA256SUMS, believed only when the release key signed it. */
import { createVerify } from "node:crypto";
import { AegisError } from "../errors.ts";

/** File name -> SHA-256 in lower-case hexadecimal. */
export type Sums = ReadonlyMap<string, string>;

export const sumsName = "SHA256SUMS";
export const signatureName = "SHA256SUMS.sig";

/** Longest list that is read, in bytes. */
export const maxSumsBytes = 64 * 1024;

/**
 * `signature` is DER over SHA-256 by the P-256 key `publicPem`; `where` is named in errors. Nothing of the list is read
 * before it verified.
 */
export function readSums(text: Uint8Array, signature: Uint8Array, publicPem: string, where: string): Sums {
  if (!isSigned(text, signature, publicPem)) {
    throw new AegisError("forbidden", `${where}: ${sumsName} is not signed by the key this aegis was built with`, {
      hint: "nothing was changed; get the release from its own place, or install by hand after checking who signed it",
    });
  }
  const sums = new Map<string, string>();
  for (const line of Buffer.from(text).toString("utf8").split("\n")) {
    if (line === "") continue;
    const match = /^([0-9a-f]{64}) [ *]([A-Za-z0-9][\w.+-]*)$/.exec(line);
    const [, digest, name] = match ?? [];
    if (!digest || !name || sums.has(name))
      throw new AegisError(
        "unprocessable",
        `${where}: ${sumsName} has a line that cannot be read: ${JSON.stringify(line.slice(0, 120))}`,
      );
    sums.set(name, digest);
  }
  return sums;
}

function isSigned(text: Uint8Array, signature: Uint8Array, publicPem: string): boolean {
  if (text.length > maxSumsBytes || signature.length > 128) return false;
  try {
    return createVerify("sha256").update(text).verify(publicPem, signature);
  } catch {
    return false;
  }
}

export interface Artefact {
  name: string;
  sha256: string;
  version: string;
}

/** The archive of `target` in a list, such as `aegis-0.2.0-linux-x64.tar.gz`. Its version is part of what was signed. */
export function archiveFor(sums: Sums, target: string, where: string): Artefact {
  const ending = target.startsWith("windows-") ? "zip" : "tar.gz";
  for (const [name, sha256] of sums) {
    const match = /^aegis-(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+?)?)-((?:linux|darwin|windows)-\w+)\.(tar\.gz|zip)$/.exec(
      name,
    );
    if (match?.[1] && match[2] === target && match[3] === ending) return { name, sha256, version: match[1] };
  }
  const built = [...sums.keys()].filter((name) => name.endsWith(".tar.gz") || name.endsWith(".zip"));
  throw new AegisError("not_found", `${where} has no archive for ${target}; it has: ${built.join(", ") || "none"}`);
}
