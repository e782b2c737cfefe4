/** The key with which an operator signs calls: `~/.aegis/operator.key`, on the operator's own machine and nowhere else. */
import { createCipheriv, createDecipheriv, randomBytes, scrypt } from "node:crypto";
import { chmod, open, readFile, stat } from "node:fs/promises";
import { importPublicKey, importSigningKey, newSeed, type PublicKey, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { aegisHome } from "../platform/paths.ts";
import { makeDirectory, PRIVATE_FILE, syncDirectory } from "../platform/private-file.ts";
import { type OperatorPlace, operatorKeyPath } from "./operator-key-path.ts";

/** As `trusted_operators` spells it. */
export const publicKeyText = (key: PublicKey): string => `ed25519:${Buffer.from(key.raw).toString("base64url")}`;

/** What lies in the file. It can be looked at without being opened. */
export interface OperatorKey {
  publicKey: PublicKey;
  /** Whether opening it takes a passphrase. */
  locked: boolean;
  /** Null: not its passphrase. */
  open(passphrase: string): Promise<SigningKey | null>;
}

/** Never replaces one that is there: hosts trust it. An empty passphrase locks nothing. */
export async function createOperatorKey(place: OperatorPlace, passphrase = ""): Promise<SigningKey> {
  const path = operatorKeyPath(place);
  const seed = newSeed();
  const directory = aegisHome(place.env, place.home);
  await makeDirectory(directory);
  const content = passphrase === "" ? seed : await locked(seed, passphrase);
  try {
    const file = await open(path, "wx", PRIVATE_FILE);
    try {
      await file.chmod(PRIVATE_FILE);
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await syncDirectory(directory);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") throw alreadyThere(path);
    throw new AegisError("internal", `cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
  return importSigningKey(seed);
}

/** Throws `conflict` where a key is, before anybody is asked for anything. */
export async function refuseSecondKey(place: OperatorPlace): Promise<void> {
  if (await readOperatorKey(place)) throw alreadyThere(operatorKeyPath(place));
}

const alreadyThere = (path: string) =>
  new AegisError("conflict", `${path} exists, and hosts may trust it`, {
    hint: "aegis operator key show; to begin anew, move that file away first",
  });

/** Null when this operator has none. One that others could read is closed to them. */
export async function readOperatorKey(place: OperatorPlace): Promise<OperatorKey | null> {
  const path = operatorKeyPath(place);
  const content = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw new AegisError("internal", `cannot read ${path}: ${cause.message}`, { cause });
  });
  if (content === null) return null;
  if (process.platform !== "win32" && ((await stat(path)).mode & 0o077) !== 0) await chmod(path, PRIVATE_FILE);
  if (content.length === 32) {
    const key = importSigningKey(content);
    return { publicKey: key, locked: false, open: async () => key };
  }
  const publicKey = content.length === form.end ? importPublicKey(content.subarray(form.publicKey, form.salt)) : null;
  if (publicKey && content.subarray(0, magic.length).equals(magic))
    return { publicKey, locked: true, open: (passphrase) => unlocked(content, passphrase) };
  throw new AegisError("config_invalid", `${path} is damaged: its ${content.length} bytes are no operator's key`, {
    hint: "restore it, or move it away and make another: aegis operator key create",
  });
}

const magic = Buffer.from("AEGIS-OPERATOR-KEY/1\n", "latin1");
/** Where each part of a locked file begins: public key, salt and nonce stand open; then the seed, encrypted, and its tag. */
const form = { publicKey: 21, salt: 53, nonce: 69, seed: 81, tag: 113, end: 129 } as const;

/** 64 MiB and about a quarter of a second for each guess. */
const cost = { N: 2 ** 16, r: 8, p: 1, maxmem: 128 * 1024 * 1024 };

const derived = (passphrase: string, salt: Uint8Array): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    // The same letters typed on another keyboard are the same passphrase.
    scrypt(passphrase.normalize("NFC"), salt, 32, cost, (error, key) => (error ? reject(error) : resolve(key)));
  });

async function locked(seed: Uint8Array, passphrase: string): Promise<Uint8Array> {
  const [salt, nonce] = [randomBytes(16), randomBytes(12)];
  const head = Buffer.concat([magic, importSigningKey(seed).raw, salt, nonce]);
  const cipher = createCipheriv("aes-256-gcm", await derived(passphrase, salt), nonce).setAAD(head);
  return Buffer.concat([head, cipher.update(seed), cipher.final(), cipher.getAuthTag()]);
}

async function unlocked(content: Buffer, passphrase: string): Promise<SigningKey | null> {
  const part = (from: number, to: number) => content.subarray(from, to);
  const [salt, nonce] = [part(form.salt, form.nonce), part(form.nonce, form.seed)];
  const decipher = createDecipheriv("aes-256-gcm", await derived(passphrase, salt), nonce)
    .setAAD(part(0, form.seed))
    .setAuthTag(part(form.tag, form.end));
  try {
    return importSigningKey(Buffer.concat([decipher.update(part(form.seed, form.tag)), decipher.final()]));
  } catch {
    return null;
  }
}
