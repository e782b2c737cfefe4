/** Who asks: a call that its caller did not ask for, exactly so and of this very host, is refused before anything starts. */
import { describe, expect, test } from "bun:test";
import { createHmac, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import Long from "long";
import { maxArgsDepth } from "../src/envelope/canonical-json.ts";
import { type Claims, signJwt } from "../src/envelope/jwt.ts";
import { signUserCall, type UserCall } from "../src/envelope/user.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { toLong } from "../src/wire/whole.ts";
import { settled } from "./support/scripted-host.ts";
import { strictDaemon } from "./support/strict-daemon.ts";
import { hostIdentity, newKey, rawText } from "./support/strict-keys.ts";
import { type StrictPair, strictPair } from "./support/strict-pair.ts";

const wire = aegis.cluster.v1;
type Invoke = aegis.cluster.v1.InvokeToolCommand.$Properties;

/** One call, of which any part may be wrong. */
interface Attempt {
  /** What the token says. */
  claims?: Partial<Claims<"user">>;
  /** The token itself. */
  token?: string;
  /** What the statement says, where that is not what is sent. */
  signed?: Partial<UserCall>;
  /** Signs the statement instead of the key that the token names. */
  signature?: Uint8Array;
  args?: string;
  /** What is sent, where that is not what was signed. */
  sent?: Invoke;
  envelope?: aegis.cluster.v1.SealEnvelope.$Properties;
}

function userClaims(pair: StrictPair, claims: Partial<Claims<"user">> = {}): Claims<"user"> {
  const iat = Math.floor(pair.time() / 1000);
  return {
    iss: pair.strict.controllerId,
    aud: "aegis-edge",
    sub: "tester",
    tid: "acme",
    scp: "default",
    scopes: [],
    jti: randomUUID(),
    iat,
    exp: iat + 300,
    via: "cli",
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: rawText(pair.strict.keys.callerKey) } },
    ...claims,
  };
}

/** The EdgeCommand of an attempt, for the pair's host. */
function command(pair: StrictPair, attempt: Attempt): { commandId: string; body: Uint8Array } {
  const { keys } = pair.strict;
  const commandId = randomUUID();
  const token = attempt.token ?? signJwt("user", userClaims(pair, attempt.claims), keys.token);
  const argsJson = Buffer.from(attempt.args ?? "{}");
  const call: UserCall = {
    ...{ nodeId: pair.identity.nodeId, commandId, tenant: "acme", context: "default", tool: "test.work" },
    ...{ argsJson, deadlineMs: 0, operator: new Uint8Array() },
    ...attempt.signed,
  };
  const invokeTool: Invoke = {
    ...{ commandId, toolName: "test.work", securityContextName: "default", argsJson },
    ...attempt.sent,
    sealEnvelope: {
      userSecurityToken: token,
      tenantId: "acme",
      securityContextName: attempt.sent?.securityContextName ?? "default",
      signature: attempt.signature ?? signUserCall(keys.callerKey, token, call),
      ...attempt.envelope,
    },
  };
  return {
    commandId: invokeTool.commandId ?? commandId,
    body: wire.EdgeCommand.encode({ invokeTool }).finish(),
  };
}

/** What the host answers. Nothing that is refused may have begun. */
async function answer(pair: StrictPair, { commandId, body }: ReturnType<typeof command>) {
  const before = pair.daemon.tool.runs.length;
  const events = pair.callRaw(pair.identity.nodeId, commandId, body);
  await settled();
  pair.daemon.tool.runs[before]?.end();
  const [event] = await events;
  if (event?.kind !== "result") throw new Error(`no result but ${event?.kind}`);
  const { started, result } = wire.CommandResultEvent.decode(event.result);
  expect(event.receipt).toBe("verified");
  expect(pair.daemon.tool.runs.length - before).toBe(started ? 1 : 0);
  return { started, ok: result?.ok ?? false, errorKind: result?.errorKind, message: result?.errorMessage ?? "" };
}

async function connectedPair(): Promise<StrictPair> {
  const pair = await strictPair();
  await pair.connected();
  return pair;
}

async function refuses(pair: StrictPair, attempt: Attempt, reason: string | RegExp): Promise<void> {
  const answered = await answer(pair, command(pair, attempt));
  expect(answered).toMatchObject({ started: false, ok: false, errorKind: "envelope_invalid" });
  expect(answered.message).toMatch(reason);
}

test("a call that is right in every part runs", async () => {
  const pair = await connectedPair();
  expect(await answer(pair, command(pair, { args: '{"a":1}' }))).toMatchObject({ started: true, ok: true });
  expect(pair.daemon.tool.runs[0]?.args).toEqual({ a: 1 });
});

describe("21 args_json with one byte changed", () => {
  test("21", async () => {
    const pair = await connectedPair();
    await refuses(pair, { args: '{"a":1}', sent: { argsJson: Buffer.from('{"a":2}') } }, /call_signature/);
  });
});

describe("22 arguments with more than one reading, rightly signed", () => {
  const texts: Array<[what: string, text: string | Uint8Array, reason: RegExp]> = [
    ["duplicate key", '{"a":1,"a":2}', /not_canonical/],
    ["2^53+1", '{"a":9007199254740993}', /not_canonical/],
    ["1e400", '{"a":1e400}', /not_canonical/],
    ["-0", '{"a":-0}', /not_canonical/],
    ["white space", '{"a": 1}', /not_canonical/],
    ["white space behind", "{}\n", /not_canonical/],
    ["a byte order mark", "\ufeff{}", /not_json/],
    ["1.0", '{"a":1.0}', /not_canonical/],
    ["an escape that needs none", '{"a":"\\u0061"}', /not_canonical/],
    ["__proto__", '{"__proto__":{"admin":true}}', /proto_key/],
    ["__proto__ far inside", '{"a":[{"b":{"__proto__":1}}]}', /proto_key/],
    ["half a character", '{"a":"\\ud800"}', /lone_surrogate/],
    ["half a character in a key", '{"\\udc00":1}', /lone_surrogate/],
    ["bytes that are no UTF-8", Buffer.from([0x22, 0xff, 0x22]), /not_utf8/],
    ["a surrogate in UTF-8", Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), /not_utf8/],
    ["too deep", `${"[".repeat(maxArgsDepth + 1)}${"]".repeat(maxArgsDepth + 1)}`, /too_deep/],
    ["much too deep", `${"[".repeat(200_000)}${"]".repeat(200_000)}`, /too_deep|not_json/],
    ["nothing", "", /not_json/],
  ];
  for (const [what, text, reason] of texts) {
    test(`22 ${what}`, async () => {
      const pair = await connectedPair();
      const argsJson = Buffer.from(text as string);
      await refuses(pair, { signed: { argsJson }, sent: { argsJson } }, reason);
    });
  }

  test("22 what is near the limits still counts", async () => {
    const pair = await connectedPair();
    const texts = [
      '{"a":9007199254740991}',
      '{"a":"\\u0000é😀"}',
      `${"[".repeat(maxArgsDepth)}${"]".repeat(maxArgsDepth)}`,
    ];
    for (const args of texts) {
      const canonical = JSON.stringify(JSON.parse(args));
      expect(await answer(pair, command(pair, { args: canonical }))).toMatchObject({ started: true });
    }
  });
});

describe("23 something else with the old signature", () => {
  const deadline = { seconds: toLong(5), nanos: 0 };
  const changes: Array<[what: string, sent: Invoke, reason: RegExp]> = [
    ["tool", { toolName: "test.other" }, /call_signature/],
    ["context", { securityContextName: "operator" }, /context/],
    ["deadline", { deadline }, /call_signature/],
    ["command", { commandId: randomUUID() }, /call_signature/],
    ["operator's proof", { operator: Buffer.from([10, 0]) }, /call_signature/],
  ];
  for (const [what, sent, reason] of changes) {
    test(`23 another ${what}`, async () => refuses(await connectedPair(), { sent }, reason));
  }

  test("23 another context, which the token names too", async () => {
    const sent = { securityContextName: "operator" };
    await refuses(await connectedPair(), { claims: { scp: "operator" }, sent }, /call_signature/);
  });

  test("23 another tenant", async () =>
    refuses(await connectedPair(), { envelope: { tenantId: "other" } }, /belongs to tenant acme/));

  test("23 the two names of the context differ", async () => {
    const pair = await connectedPair();
    await refuses(pair, { envelope: { securityContextName: "operator" } }, /two security context names differ/);
  });

  test("23 a deadline that is no whole number of milliseconds", async () => {
    const pair = await connectedPair();
    const deadlines = [
      { seconds: toLong(0), nanos: 1 },
      { seconds: toLong(0), nanos: 1_000_000_000 },
      { seconds: toLong(0), nanos: -1_000_000 },
      { seconds: Long.fromNumber(-1), nanos: 0 },
    ];
    for (const one of deadlines) await refuses(pair, { sent: { deadline: one } }, /deadline is not a whole number/);
  });

  test("23 another key signed the call", async () => {
    const pair = await connectedPair();
    const { keys } = pair.strict;
    for (const key of [keys.command, keys.token, newKey()]) {
      const commandId = randomUUID();
      const token = signJwt("user", userClaims(pair), keys.token);
      const call = { ...{ nodeId: pair.identity.nodeId, commandId, tenant: "acme", context: "default" } };
      const rest = { tool: "test.work", argsJson: Buffer.from("{}"), deadlineMs: 0, operator: new Uint8Array() };
      const signature = signUserCall(key, token, { ...call, ...rest });
      await refuses(pair, { token, signature, sent: { commandId } }, /call_signature/);
    }
  });
});

test("24 a token of another tenant, with a statement that names this one", async () => {
  await refuses(await connectedPair(), { claims: { tid: "other" } }, /: tenant$/);
});

describe("25 the life of a token, by the controller's time in the frame", () => {
  const at = (pair: StrictPair, from: number, to: number) => {
    const now = Math.floor(pair.time() / 1000);
    return { claims: { iat: now + from, exp: now + to } };
  };
  test("25 expired by more than a minute", async () => {
    const pair = await connectedPair();
    await refuses(pair, at(pair, -361, -61), /expired/);
    expect(await answer(pair, command(pair, at(pair, -360, -60)))).toMatchObject({ started: true });
  });
  test("25 exp > iat + 300", async () => {
    const pair = await connectedPair();
    await refuses(pair, at(pair, 0, 301), /lifetime/);
  });
  test("25 not valid yet by more than a minute", async () => {
    const pair = await connectedPair();
    await refuses(pair, at(pair, 62, 300), /not_yet_valid/);
    expect(await answer(pair, command(pair, at(pair, 59, 300)))).toMatchObject({ started: true });
  });
  test("25 a token that was verified before expires all the same", async () => {
    const pair = await connectedPair();
    const token = signJwt("user", userClaims(pair), pair.strict.keys.token);
    expect(await answer(pair, command(pair, { token }))).toMatchObject({ started: true });
    await pair.pass(361_000);
    await refuses(pair, { token }, /expired/);
  });
  test("25 the host's own clock has no say", async () => {
    const pair = await connectedPair();
    pair.host.step(10 * 365 * 86_400_000);
    expect(await answer(pair, command(pair, {}))).toMatchObject({ started: true });
  });
});

describe("26 a token for something else", () => {
  test("26 a node token", async () => {
    const pair = await connectedPair();
    await refuses(pair, { token: pair.identity.nodeToken }, /wrong_type/);
  });
  test("26 an enrollment token", async () => {
    const pair = await connectedPair();
    const now = Math.floor(pair.time() / 1000);
    const shared = { iss: pair.strict.controllerId, tid: "acme", sub: "tester", jti: randomUUID() };
    const claims = { ...shared, exp: now + 300, nbf: now, aud: "edge-enrollment" as const, cep: "" };
    await refuses(pair, { token: signJwt("enrollment", claims, pair.strict.keys.token) }, /wrong_type/);
  });
  test("26 a user token's header on a node's claims", async () => {
    const pair = await connectedPair();
    const [, claims] = pair.identity.nodeToken.split(".");
    const { token: key } = pair.strict.keys;
    const header = text({ alg: "EdDSA", typ: "aegis-user+jwt", kid: key.kid });
    const signature = Buffer.from(key.sign(Buffer.from(`${header}.${claims}`))).toString("base64url");
    await refuses(pair, { token: `${header}.${claims}.${signature}` }, /wrong_audience/);
  });
  test("26 a token of another controller with the same keys", async () =>
    refuses(await connectedPair(), { claims: { iss: randomUUID() } }, /wrong_issuer/));
});

const text = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token with a header of the test's choice. */
function tokenWith(pair: StrictPair, header: object, sign: (said: Buffer) => Uint8Array): string {
  const said = `${text(header)}.${text(userClaims(pair))}`;
  return `${said}.${Buffer.from(sign(Buffer.from(said))).toString("base64url")}`;
}

describe("27 an algorithm of the attacker's choice", () => {
  const typ = "aegis-user+jwt";
  test("27 none", async () => {
    const pair = await connectedPair();
    const { kid } = pair.strict.keys.token;
    for (const alg of ["none", "None", ""]) {
      const token = tokenWith(pair, { alg, typ, kid }, () => new Uint8Array());
      await refuses(pair, { token }, /malformed/);
      await refuses(pair, { token: `${token}AAAA` }, /malformed/);
    }
  });
  test("27 HS256 with the public key as its secret", async () => {
    const pair = await connectedPair();
    const { kid, raw } = pair.strict.keys.token;
    const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
    for (const secret of [raw, spki, Buffer.from(rawText(pair.strict.keys.token))]) {
      const hmac = (said: Buffer) => createHmac("sha256", secret).update(said).digest();
      await refuses(pair, { token: tokenWith(pair, { alg: "HS256", typ, kid }, hmac) }, /malformed/);
      await refuses(pair, { token: tokenWith(pair, { alg: "EdDSA", typ, kid }, hmac) }, /signature/);
    }
  });
  test("27 RS256 on the kid of an EdDSA key", async () => {
    const pair = await connectedPair();
    const { kid } = pair.strict.keys.token;
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const rsa = (said: Buffer) => sign("sha256", said, privateKey);
    await refuses(pair, { token: tokenWith(pair, { alg: "RS256", typ, kid }, rsa) }, /malformed/);
    await refuses(pair, { token: tokenWith(pair, { alg: "EdDSA", typ, kid }, rsa) }, /signature/);
  });
  test("27 a header that brings its own key, or its own rules", async () => {
    const pair = await connectedPair();
    const own = newKey();
    const { kid } = pair.strict.keys.token;
    const jwk = { kty: "OKP", crv: "Ed25519", x: rawText(own) };
    const extras = [
      { jwk },
      { jku: "https://attacker.example/keys" },
      { x5u: "https://attacker.example" },
      { crit: ["exp"] },
    ];
    for (const extra of extras) {
      const header = { alg: "EdDSA", typ, kid, ...extra };
      await refuses(pair, { token: tokenWith(pair, header, own.sign) }, /malformed/);
      await refuses(pair, { token: tokenWith(pair, header, pair.strict.keys.token.sign) }, /malformed/);
    }
  });
  test("27 another spelling of the same token", async () => {
    const pair = await connectedPair();
    const token = signJwt("user", userClaims(pair), pair.strict.keys.token);
    const [head = "", claims = "", signature = ""] = token.split(".");
    // The last character of 64 bytes carries four bits that say nothing.
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const last = alphabet[alphabet.indexOf(signature.at(-1) ?? "") + 1] ?? "";
    const spellings = [
      `${head}.${claims}.${signature.slice(0, -1)}${last}`,
      `${head}.${claims}.${signature}==`,
      `${head}.${claims}.${signature}.`,
      `${head}.${claims}..${signature}`,
      `.${head}.${claims}.${signature}`,
      ` ${token}`,
      `${token}\n`,
      `${token}.${token}`,
    ];
    for (const spelling of spellings) await refuses(pair, { token: spelling }, /malformed/);
  });
});

describe("28 a key of the attacker's choice", () => {
  for (const kid of ["unknown", "../../etc/passwd", "../token", "__proto__", "constructor", "' OR 1=1 --", ""]) {
    test(`28 kid ${JSON.stringify(kid)}`, async () => {
      const pair = await connectedPair();
      const own = newKey();
      const token = tokenWith(pair, { alg: "EdDSA", typ: "aegis-user+jwt", kid }, own.sign);
      await refuses(pair, { token }, /unknown_key/);
    });
  }
  test("28 the command key, the root, and a key that the keyset has revoked sign no tokens", async () => {
    const pair = await connectedPair();
    for (const key of [pair.strict.keys.command, pair.strict.root])
      await refuses(pair, { token: signJwt("user", userClaims(pair), key) }, /unknown_key/);
  });
});

describe("29 a caller's key of small order, for which anyone can sign", () => {
  // The neutral element as key and as R, and zero as S: what such a key verifies is every message.
  const forgery = Buffer.concat([Buffer.from([1]), Buffer.alloc(63)]);
  const keys = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    // The neutral element again, in spellings that are not the one it encodes to.
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  ];
  for (const key of keys) {
    test(`29 ${key.slice(0, 8)}…${key.slice(-2)}`, async () => {
      const x = Buffer.from(key, "hex").toString("base64url");
      const cnf = { jwk: { kty: "OKP" as const, crv: "Ed25519" as const, x } };
      await refuses(await connectedPair(), { claims: { cnf }, signature: forgery }, /: key$/);
    });
  }
});

test("30 the same statement on another node of the same tenant and controller", async () => {
  const pair = await connectedPair();
  const { strict, link, host } = pair;
  const identity = hostIdentity(strict, pair.time());
  await pair.enroll(identity);
  const other = strictDaemon({ link, clock: host, strict, identity });
  other.connect();
  await settled();
  const { commandId, body } = command(pair, {});
  const [event] = await pair.callRaw(identity.nodeId, commandId, body);
  if (event?.kind !== "result") throw new Error(`no result but ${event?.kind}`);
  expect(wire.CommandResultEvent.decode(event.result)).toMatchObject({
    started: false,
    result: { errorKind: "envelope_invalid", errorMessage: expect.stringMatching(/call_signature/) },
  });
  expect(other.tool.runs).toHaveLength(0);
  expect(await answer(pair, { commandId, body })).toMatchObject({ started: true });
});

describe("31 fields of the base protocol on a strict session", () => {
  test("31 SealEnvelope.payload", async () => {
    const pair = await connectedPair();
    for (const payload of [{}, { fields: { a: { numberValue: 1 } } }])
      await refuses(pair, { envelope: { payload } }, /payload must be absent/);
  });
  test("31 args", async () => {
    const pair = await connectedPair();
    for (const args of [{}, { fields: { command: { stringValue: "rm" } } }])
      await refuses(pair, { sent: { args } }, /args must be absent/);
  });
  test("31 no envelope at all", async () => {
    const pair = await connectedPair();
    const commandId = randomUUID();
    const invokeTool = {
      commandId,
      toolName: "test.work",
      securityContextName: "default",
      argsJson: Buffer.from("{}"),
    };
    const body = wire.EdgeCommand.encode({ invokeTool }).finish();
    expect(await answer(pair, { commandId, body })).toMatchObject({ started: false, errorKind: "envelope_invalid" });
  });
});

test("a call that comes twice runs once", async () => {
  const pair = await connectedPair();
  const call = command(pair, {});
  expect(await answer(pair, call)).toMatchObject({ started: true });
  expect(await answer(pair, call)).toMatchObject({ started: false, errorKind: "replayed" });
});
