/** How verified tokens are remembered: so many, and never past what is checked each time. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { newKey, rawText } from "../../test/support/strict-keys.ts";
import { type Claims, signJwt } from "./jwt.ts";
import type { PublicKey } from "./public-key.ts";
import { signUserCall, type UserCall, userVerifier } from "./user.ts";

const [token, caller] = [newKey(), newKey()];
const controllerId = randomUUID();
const call: UserCall = {
  ...{ nodeId: randomUUID(), commandId: randomUUID(), tenant: "acme", context: "default", tool: "cmd.run" },
  ...{ argsJson: Buffer.from("{}"), deadlineMs: 0, operator: new Uint8Array() },
};

function userToken(change: Partial<Claims<"user">> = {}): string {
  const claims: Claims<"user"> = {
    ...{ iss: controllerId, aud: "aegis-edge", sub: "tester", tid: "acme", scp: "default", scopes: ["x"] },
    ...{ jti: randomUUID(), iat: 1_000, exp: 1_300, via: "rest" },
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: rawText(caller) } },
    ...change,
  };
  return signJwt("user", claims, token);
}

/** A verifier that counts how often a token's signature is checked. */
function counted() {
  let checks = 0;
  const counting: PublicKey = {
    ...token,
    verify(message, signature) {
      checks++;
      return token.verify(message, signature);
    },
  };
  const users = userVerifier({ tokenKeys: new Map([[token.kid, counting]]), controllerId, tenantId: "acme" });
  const verify = (text: string, frameSecs = 1_100, change: Partial<UserCall> = {}) =>
    users.verify(text, signUserCall(caller, text, { ...call, ...change }), { ...call, ...change }, frameSecs * 1000);
  return { verify, checks: () => checks };
}

describe("a verified token", () => {
  test("is checked once, and its call and its life each time", () => {
    const { verify, checks } = counted();
    const text = userToken();
    expect(verify(text)).toMatchObject({ kind: "caller", caller: { sub: "tester", scopes: ["x"], via: "rest" } });
    expect(verify(text).kind).toBe("caller");
    expect(verify(text, 1_361)).toEqual({ kind: "refused", reason: "expired" });
    expect(verify(text, 939)).toEqual({ kind: "refused", reason: "not_yet_valid" });
    expect(verify(text, 1_100, { context: "operator" })).toEqual({ kind: "refused", reason: "context" });
    expect(verify(text, 1_100, { tenant: "other" })).toEqual({ kind: "refused", reason: "tenant" });
    expect(checks()).toBe(1);
  });

  test("is forgotten when 256 others were used since, and not before", () => {
    const { verify, checks } = counted();
    const text = userToken();
    verify(text);
    for (let n = 0; n < 255; n++) verify(userToken());
    verify(text);
    expect(checks()).toBe(256);
    for (let n = 0; n < 256; n++) verify(userToken());
    verify(text);
    expect(checks()).toBe(256 + 256 + 1);
  });

  test("that is refused is not remembered", () => {
    const { verify, checks } = counted();
    const forged = `${userToken().slice(0, -3)}AAA`;
    for (let n = 0; n < 3; n++) expect(verify(forged)).toEqual({ kind: "refused", reason: "signature" });
    expect(checks()).toBe(3);
  });

  test("the times around its life are counted in the frame's own seconds", () => {
    const { verify } = counted();
    expect(verify(userToken(), 1_360).kind).toBe("caller");
    expect(verify(userToken(), 1_360.001)).toEqual({ kind: "refused", reason: "expired" });
    expect(verify(userToken(), 940).kind).toBe("caller");
    expect(verify(userToken({ exp: 1_301 }))).toEqual({ kind: "refused", reason: "lifetime" });
  });
});
