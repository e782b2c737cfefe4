import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { newKey } from "../../test/support/strict-keys.ts";
import { type Claims, maxTokenChars, signJwt } from "../envelope/jwt.ts";
import { AegisError } from "../errors.ts";
import { readEnrollmentToken } from "./enroll-token.ts";

const token = (change: Partial<Claims<"enrollment">> = {}) =>
  signJwt(
    "enrollment",
    {
      ...{ tid: "acme", sub: "web-1", jti: randomUUID(), exp: 2e9, nbf: 0, aud: "edge-enrollment", iss: "x" },
      cep: "https://c.example:50056",
      ...change,
    },
    newKey(),
  );

const why = (text: string): string => {
  try {
    readEnrollmentToken(text);
    return "accepted";
  } catch (error) {
    expect(error).toBeInstanceOf(AegisError);
    return (error as AegisError).message;
  }
};

test("a paste is read with its white space, and as a QR code holds it", () => {
  const text = token();
  for (const pasted of [text, `\n  ${text}\r\n`, `aegis-edge-enroll://${text}`])
    expect(readEnrollmentToken(pasted)).toMatchObject({ text, host: "c.example", port: 50056, scheme: "https" });
});

test("an endpoint is read as the other implementation writes it too", () => {
  for (const [cep, host, port] of [
    ["relay.example", "relay.example", 443],
    ["relay.example:443", "relay.example", 443],
    ["https://[2001:db8::1]:50056", "2001:db8::1", 50056],
  ] as const)
    expect(readEnrollmentToken(token({ cep }))).toMatchObject({ host, port });
  expect(why(token({ cep: "not an endpoint" }))).toContain('no usable controller endpoint: "not an endpoint"');
});

test("strict without a root to prove it is refused, and never taken for less", () => {
  expect(why(token({ seal: "strict" }))).toContain("names no root key that could prove them");
  expect(why(token({ seal: "strict", crk: "A".repeat(43) }))).toBe("accepted");
  expect(why(token())).toBe("accepted");
});

test("what is wrong with a token is said as closely as it can be told", () => {
  expect(why("")).toContain("it is empty");
  expect(why("x".repeat(maxTokenChars + 1))).toContain(`a token has at most ${maxTokenChars}`);
  expect(why("aegis edge enroll")).toContain("parts between dots: 1 instead of 3");
  expect(why("a.b.c")).toContain("garbled");
  const [head, , signature] = token().split(".");
  const other = (claims: object) => `${head}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.${signature}`;
  expect(why(other({ aud: "aegis-edge" }))).toContain("it is a user token, not an enrollment token");
  expect(why(other({ aud: "elsewhere" }))).toContain('it is for "elsewhere", not an enrollment token');
  expect(why(other({ aud: "edge-enrollment" }))).toContain("its claims are not those of an enrollment token");
  expect(why(other({ ...{ aud: "edge-enrollment", tid: "acme" }, pin: ["sha256/x"] }))).toContain("garbled");
});
