/** Tokens in one exact spelling, each for one use; jose is the second opinion. */
import { describe, expect, test } from "bun:test";
import { createPrivateKey, createPublicKey, randomUUID } from "node:crypto";
import { jwtVerify, SignJWT } from "jose";
import { rawText } from "../../test/support/strict-keys.ts";
import { type Claims, maxTokenChars, readUnverified, signJwt, type TokenKind, tokenKinds, verifyJwt } from "./jwt.ts";
import { importSigningKey, newSeed } from "./public-key.ts";

const seed = newSeed();
const key = importSigningKey(seed);
const issuer = randomUUID();
const keys = new Map([[key.kid, key]]);
const cnf = { jwk: { kty: "OKP", crv: "Ed25519", x: rawText(key) } } as const;
const shared = { iss: issuer, tid: "acme", sub: randomUUID(), jti: randomUUID() };
const claims: { [K in TokenKind]: Claims<K> } = {
  enrollment: { ...shared, exp: 2, nbf: 1, aud: "edge-enrollment", cep: "https://c.example:50056" },
  node: { ...shared, iat: 1, exp: 2, aud: "aegis-controller", role: "edge", cep: "", cap_hash: "", cnf },
  user: { ...shared, iat: 1, exp: 2, aud: "aegis-edge", scp: "default", scopes: ["a"], via: "mcp", cnf },
};
const kinds = Object.keys(claims) as TokenKind[];
const sign = (kind: TokenKind, change: object = {}) =>
  signJwt(kind, { ...claims[kind], ...change } as Claims<TokenKind>, key);
const judge = (kind: TokenKind, token: string) => {
  const outcome = verifyJwt(kind, token, { keys, issuer });
  return outcome.kind === "valid" ? "valid" : outcome.reason;
};

describe("the second implementation", () => {
  const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  const secret = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });

  test("reads our tokens", async () => {
    for (const kind of kinds) {
      const { aud: audience, typ } = tokenKinds[kind];
      const options = { audience, issuer, typ, algorithms: ["EdDSA"], currentDate: new Date(1_500) };
      const { payload, protectedHeader } = await jwtVerify(sign(kind), createPublicKey(secret), options);
      expect<unknown>(payload).toEqual(claims[kind]);
      expect(protectedHeader).toEqual({ alg: "EdDSA", typ, kid: key.kid });
    }
  });

  test("writes tokens that we read, when it adds nothing to the header", async () => {
    const header = { alg: "EdDSA", typ: tokenKinds.node.typ, kid: key.kid };
    const token = await new SignJWT({ ...claims.node }).setProtectedHeader(header).sign(secret);
    expect(judge("node", token)).toBe("valid");
    const b64 = await new SignJWT({ ...claims.node }).setProtectedHeader({ ...header, cty: "x" }).sign(secret);
    expect(judge("node", b64)).toBe("malformed");
  });
});

describe("26 the three kinds", () => {
  for (const made of kinds)
    for (const taken of kinds)
      test(`26 a token made for ${made} ${made === taken ? "passes" : "does not pass"} for ${taken}`, () =>
        expect(judge(taken, sign(made))).toBe(made === taken ? "valid" : "wrong_type"));
});

describe("claims", () => {
  const wrong: Array<[TokenKind, object, string]> = [
    ["node", { iss: randomUUID() }, "wrong_issuer"],
    ["node", { aud: "aegis-edge" }, "wrong_audience"],
    ["node", { aud: ["aegis-controller"] }, "wrong_audience"],
    ["node", { exp: "2" }, "claims"],
    ["node", { exp: 1.5 }, "claims"],
    ["node", { exp: -1 }, "claims"],
    ["node", { exp: 2 ** 53 }, "claims"],
    ["node", { sub: "web-1" }, "claims"],
    ["node", { role: "controller" }, "claims"],
    ["node", { cnf: undefined }, "claims"],
    ["node", { cnf: { jwk: { ...cnf.jwk, x: "short" } } }, "claims"],
    ["node", { cnf: { jwk: { ...cnf.jwk, d: "secret" } } }, "claims"],
    ["user", { sub: "" }, "claims"],
    ["user", { via: "smoke" }, "claims"],
    ["user", { scp: ["default"] }, "claims"],
    ["user", { scopes: "a" }, "claims"],
    ["enrollment", { pin: [] }, "claims"],
    ["enrollment", { pin: ["sha256:x"] }, "claims"],
    ["enrollment", { seal: "none" }, "claims"],
    ["enrollment", { crk: "x" }, "claims"],
  ];
  for (const [kind, change, reason] of wrong)
    test(`${kind} with ${JSON.stringify(change)}: ${reason}`, () =>
      expect(judge(kind, sign(kind, change))).toBe(reason));
});

describe("spelling", () => {
  const token = sign("node");
  const [head = "", body = "", signature = ""] = token.split(".");
  const wrong = [
    "",
    "a.b.c",
    "..",
    `${head}.${body}`,
    `${head}.${body}.`,
    `${head}.${body}.${signature}.`,
    `${head}.${body}.${signature}=`,
    `${head}.${body}.${signature.slice(0, -1)}`,
    token.replaceAll("-", "+").replaceAll("_", "/") === token
      ? `${token}+`
      : token.replaceAll("-", "+").replaceAll("_", "/"),
    `${token} `,
    "x".repeat(maxTokenChars + 1),
  ];
  for (const spelling of wrong)
    test(`${spelling.slice(0, 12)}… (${spelling.length}) is refused`, () => {
      expect(judge("node", spelling)).toMatch(/malformed|signature/);
      expect(readUnverified("node", `${spelling}x.`)).toBeNull();
    });

  test("a changed claim is no longer signed", () => {
    const other = Buffer.from(JSON.stringify({ ...claims.node, sub: randomUUID() })).toString("base64url");
    expect(judge("node", `${head}.${other}.${signature}`)).toBe("signature");
  });

  test("a token is judged by its key before its claims are looked at", () => {
    const stranger = importSigningKey(newSeed());
    expect(judge("node", signJwt("node", { ...claims.node, iss: "anyone" }, stranger))).toBe("unknown_key");
  });
});
