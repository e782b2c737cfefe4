/**
 * The project's own tokens: EdDSA JWTs in one exact spelling. The algorithm follows from the key that `kid` names, never
 * from the header; everything that may vary in a JWT and need not is refused.
 */
import { z } from "zod";
import type { PublicKey, SigningKey } from "./public-key.ts";

/** What a token is for. The three never pass for each other: `typ`, `aud` and the claims differ. */
export const tokenKinds = {
  enrollment: { typ: "aegis-enroll+jwt", aud: "edge-enrollment" },
  node: { typ: "aegis-node+jwt", aud: "aegis-controller" },
  user: { typ: "aegis-user+jwt", aud: "aegis-edge" },
} as const;

export type TokenKind = keyof typeof tokenKinds;

const seconds = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const base64url32 = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
export const confirmation = z.object({
  jwk: z.strictObject({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: base64url32 }),
});

const claimSchemas = {
  enrollment: z.object({
    tid: z.string(),
    sub: z.string(),
    jti: z.uuid(),
    exp: seconds,
    nbf: seconds,
    aud: z.literal(tokenKinds.enrollment.aud),
    iss: z.string(),
    cep: z.string(),
    pin: z
      .array(z.string().regex(/^spki-sha256:[A-Za-z0-9_-]{43}$/))
      .min(1)
      .max(4)
      .optional(),
    crk: base64url32.optional(),
    seal: z.enum(["strict", "compat"]).optional(),
    nid: z.uuid().optional(),
    tags: z.array(z.string()).optional(),
  }),
  node: z.object({
    sub: z.uuid(),
    role: z.literal("edge"),
    tid: z.string(),
    cep: z.string(),
    cap_hash: z.string(),
    iss: z.string(),
    aud: z.literal(tokenKinds.node.aud),
    jti: z.uuid(),
    iat: seconds,
    exp: seconds,
    cnf: confirmation,
  }),
  user: z.object({
    iss: z.string(),
    aud: z.literal(tokenKinds.user.aud),
    sub: z.string().min(1),
    tid: z.string(),
    scp: z.string(),
    scopes: z.array(z.string()),
    jti: z.uuid(),
    iat: seconds,
    exp: seconds,
    via: z.enum(["rest", "mcp", "cli"]),
    cnf: confirmation,
  }),
} as const;

export type Claims<K extends TokenKind> = z.infer<(typeof claimSchemas)[K]>;

export type JwtFailure =
  | "malformed"
  | "unknown_key"
  | "signature"
  | "wrong_type"
  | "wrong_audience"
  | "wrong_issuer"
  | "claims";
export type JwtOutcome<K extends TokenKind> =
  | { kind: "valid"; claims: Claims<K> }
  | { kind: "refused"; reason: JwtFailure };

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value), "utf8").toString("base64url");

export function signJwt<K extends TokenKind>(kind: K, claims: Claims<K>, key: SigningKey): string {
  const signed = `${encode({ alg: "EdDSA", typ: tokenKinds[kind].typ, kid: key.kid })}.${encode(claims)}`;
  return `${signed}.${Buffer.from(key.sign(Buffer.from(signed))).toString("base64url")}`;
}

const header = z.strictObject({ alg: z.literal("EdDSA"), typ: z.string(), kid: z.string() });

/** Times are judged by the caller, whose clock it is: this says only that the issuer wrote these claims for this use. */
export function verifyJwt<K extends TokenKind>(
  kind: K,
  token: string,
  { keys, issuer }: { keys: ReadonlyMap<string, PublicKey>; issuer: string },
): JwtOutcome<K> {
  const refuse = (reason: JwtFailure): JwtOutcome<K> => ({ kind: "refused", reason });
  const parts = segments(token);
  if (!parts) return refuse("malformed");
  const head = header.safeParse(parseJson(parts.header));
  if (!head.success) return refuse("malformed");
  const key = keys.get(head.data.kid);
  if (!key) return refuse("unknown_key");
  if (!key.verify(Buffer.from(parts.signed), parts.signature)) return refuse("signature");
  if (head.data.typ !== tokenKinds[kind].typ) return refuse("wrong_type");
  const body = parseJson(parts.claims);
  if (!isObject(body) || body.aud !== tokenKinds[kind].aud) return refuse("wrong_audience");
  if (body.iss !== issuer) return refuse("wrong_issuer");
  const claims = claimSchemas[kind].safeParse(body);
  return claims.success ? { kind: "valid", claims: claims.data as Claims<K> } : refuse("claims");
}

/** The claims of a token whose signature cannot be judged here: an enrollment token on the host that was given it. */
export function readUnverified<K extends TokenKind>(kind: K, token: string): Claims<K> | null {
  const parts = segments(token);
  const claims = parts ? claimSchemas[kind].safeParse(parseJson(parts.claims)) : null;
  return claims?.success ? (claims.data as Claims<K>) : null;
}

export const maxTokenChars = 16 * 1024;

interface Segments {
  signed: string;
  header: Uint8Array;
  claims: Uint8Array;
  signature: Uint8Array;
}

function segments(token: string): Segments | null {
  if (token.length > maxTokenChars) return null;
  const parts = token.split(".");
  const [head, claims, signature] = parts.map(canonicalBase64url);
  if (parts.length !== 3 || !head || !claims || !signature) return null;
  return { signed: token.slice(0, token.lastIndexOf(".")), header: head, claims, signature };
}

/** Decodes only the one spelling that encodes to itself: no padding, no other alphabet, no stray bits. */
function canonicalBase64url(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, "base64url");
  return text !== "" && bytes.toString("base64url") === text ? bytes : null;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
