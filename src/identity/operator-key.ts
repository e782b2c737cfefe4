/** The key with which an operator signs calls: `~/.aegis/operator.key`, on the operator's own machine and nowhere else. */
import { chmod, open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { importSigningKey, newSeed, type PublicKey, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { aegisHome, type Environment } from "../platform/paths.ts";
import { makeDirectory, PRIVATE_FILE, syncDirectory } from "../platform/private-file.ts";

export interface OperatorPlace {
  env: Environment;
  home: string;
}

export const operatorKeyPath = ({ env, home }: OperatorPlace): string => join(aegisHome(env, home), "operator.key");

/** As `trusted_operators` spells it. */
export const publicKeyText = (key: PublicKey): string => `ed25519:${Buffer.from(key.raw).toString("base64url")}`;

/** Never replaces one that is there: hosts trust it. */
export async function createOperatorKey(place: OperatorPlace): Promise<SigningKey> {
  const path = operatorKeyPath(place);
  const seed = newSeed();
  const directory = aegisHome(place.env, place.home);
  await makeDirectory(directory);
  try {
    const file = await open(path, "wx", PRIVATE_FILE);
    try {
      await file.chmod(PRIVATE_FILE);
      await file.writeFile(seed);
      await file.sync();
    } finally {
      await file.close();
    }
    await syncDirectory(directory);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST")
      throw new AegisError("conflict", `${path} exists, and hosts may trust it`, {
        hint: "aegis operator key show; to begin anew, move that file away first",
      });
    throw new AegisError("internal", `cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
  return importSigningKey(seed);
}

/** Null when this operator has none. One that others could read is closed to them. */
export async function loadOperatorKey(place: OperatorPlace): Promise<SigningKey | null> {
  const path = operatorKeyPath(place);
  const seed = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw new AegisError("internal", `cannot read ${path}: ${cause.message}`, { cause });
  });
  if (seed === null) return null;
  if (seed.length !== 32)
    throw new AegisError(
      "config_invalid",
      `${path} is damaged: it has ${seed.length} bytes, an operator's key has 32`,
      {
        hint: "restore it, or move it away and make another: aegis operator key create",
      },
    );
  if (process.platform !== "win32" && ((await stat(path)).mode & 0o077) !== 0) await chmod(path, PRIVATE_FILE);
  return importSigningKey(seed);
}
