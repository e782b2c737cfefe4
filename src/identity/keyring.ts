/** This host's own key and token, read from its state directory. Damage is named with the file and the command that repairs it. */
import { readFile } from "node:fs/promises";
import { confirmation } from "../envelope/jwt.ts";
import { importSigningKey, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";

const reenroll =
  "enroll this host again: ask for a token with aegis edge token issue --for NODE, then aegis edge enroll TOKEN";

async function read(path: string): Promise<Buffer> {
  return await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT")
      throw new AegisError("not_enrolled", `this host is not enrolled: ${path} does not exist`, {
        cause,
        hint: "aegis edge enroll TOKEN",
      });
    throw new AegisError("config_invalid", `cannot read ${path}: ${cause.message}`, { cause });
  });
}

/** A raw 32-byte Ed25519 seed. */
export async function loadNodeKey(path: string): Promise<SigningKey> {
  const seed = await read(path);
  if (seed.length === 32) return importSigningKey(seed);
  throw new AegisError("config_invalid", `${path} is damaged: it has ${seed.length} bytes, a node key has 32`, {
    hint: reenroll,
  });
}

/** The token's text, without what an editor may have put around it. Whether it is valid is the controller's to say. */
export async function loadNodeToken(path: string): Promise<string> {
  const token = (await read(path)).toString("utf8").trim();
  if (/^[\w-]+\.[\w-]+\.[\w+/=-]+$/.test(token)) return token;
  throw new AegisError("config_invalid", `${path} is damaged: it holds no token`, { hint: reenroll });
}

/** What a node token says of itself, read without judging it: the peer's tokens are spelled otherwise than ours. */
export interface TokenFacts {
  nodeId: string;
  tenantId: string | null;
  /** Epoch milliseconds of its start and end; null when it does not say. */
  iatMs: number | null;
  expMs: number | null;
  /** The public key it is for, base64url; null when it does not say. */
  publicKey: string | null;
}

export function tokenFacts(token: string): TokenFacts | null {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"));
    if (typeof claims !== "object" || claims === null) return null;
    const { sub, tid, iat, exp, cnf } = claims as Record<string, unknown>;
    if (typeof sub !== "string") return null;
    const confirmed = confirmation.safeParse(cnf);
    return {
      publicKey: confirmed.success ? confirmed.data.jwk.x : null,
      nodeId: sub,
      tenantId: typeof tid === "string" ? tid : null,
      iatMs: milliseconds(iat),
      expMs: milliseconds(exp),
    };
  } catch {
    return null;
  }
}

const milliseconds = (seconds: unknown): number | null =>
  typeof seconds === "number" && Number.isFinite(seconds) ? seconds * 1000 : null;
