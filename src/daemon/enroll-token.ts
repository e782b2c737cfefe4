/** Reads a pasted enrollment token. Its signature cannot be judged here: the paste itself is what is trusted. */
import { parseEndpoint } from "../config/endpoint.ts";
import { type Claims, maxTokenChars, readUnverified, tokenKinds } from "../envelope/jwt.ts";
import { AegisError } from "../errors.ts";
import { EnrollError } from "./enroll-error.ts";

export interface PastedToken {
  text: string;
  claims: Claims<"enrollment">;
  host: string;
  port: number;
  scheme: "https" | "http";
}

const prefix = "aegis-edge-enroll://";
const hint = "copy the whole token again, or ask for a new one: aegis edge token issue";

/** Takes the token with the white space of a paste around it, or as the address that a QR code holds. */
export function readEnrollmentToken(pasted: string): PastedToken {
  const text = pasted.trim().replace(new RegExp(`^${prefix}`), "");
  const refuse = (message: string, advice = hint) =>
    new EnrollError("token", new AegisError("usage", message, { hint: advice }));
  if (text === "") throw refuse("it is empty");
  if (text.length > maxTokenChars)
    throw refuse(`it has ${text.length} characters, a token has at most ${maxTokenChars}`);
  const claims = readUnverified("enrollment", text);
  if (!claims) throw refuse(...whyNot(text));
  const endpoint = parseEndpoint(claims.cep);
  if (!endpoint) throw refuse(`it names no usable controller endpoint: ${JSON.stringify(claims.cep)}`);
  // Without the root, strict would be no more than a word.
  if (claims.seal === "strict" && claims.crk === undefined)
    throw refuse("it is for strict sessions, and names no root key that could prove them");
  const { host, port, scheme } = endpoint;
  return { text, claims, host, port, scheme };
}

/** The most telling thing that is wrong with it. */
function whyNot(text: string): [message: string, advice?: string] {
  const parts = text.split(".");
  if (parts.length !== 3) return [`it is no token: parts between dots: ${parts.length} instead of 3`];
  const body = parsed(parts[1] ?? "");
  if (!body) return ["it is garbled: its claims cannot be read"];
  if (body.aud !== tokenKinds.enrollment.aud) {
    const other = Object.entries(tokenKinds).find(([, { aud }]) => aud === body.aud)?.[0];
    return [
      `it is ${other ? `a ${other} token` : `for ${JSON.stringify(body.aud)}`}, not an enrollment token`,
      "ask for one: aegis edge token issue",
    ];
  }
  return ["it is garbled: its claims are not those of an enrollment token"];
}

function parsed(segment: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(segment, "base64url").toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
