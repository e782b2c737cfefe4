/** Every way a call is refused, by real tokens and signatures, and that nothing runs when it is. */
import { describe, expect, test } from "bun:test";
import { createHmac, randomUUID } from "node:crypto";
import { fakeClock } from "../../test/support/fake-clock.ts";
import type { Claims } from "../envelope/jwt.ts";
import { signJwt } from "../envelope/jwt.ts";
import { importSigningKey, newSeed, type SigningKey } from "../envelope/public-key.ts";
import { signUserCall, type UserCall, userVerifier } from "../envelope/user.ts";
import { Secret } from "../platform/log.ts";
import type { Access } from "../policy/access.ts";
import { securityContextsSchema } from "../policy/context.ts";
import { nothingCaptured, type Tool, type ToolContext } from "../tools/tool.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";
import { callLimits } from "./call-limits.ts";
import { type Host, type Invoked, invoke } from "./invoke.ts";
import { type ReceivedCall, readInvoke } from "./received.ts";
import { replayGuard } from "./replay.ts";
import { testPolicy } from "./test-policy.ts";

const nodeId = randomUUID();
const controllerId = randomUUID();
const tenant = "acme";
const tokenKey = importSigningKey(newSeed());
const callerKey = importSigningKey(newSeed());
const frameTimeMs = 1_767_225_600_000;
const nowSecs = frameTimeMs / 1000;

const contexts = securityContextsSchema.parse([
  {
    name: "default",
    principals: [{ sub: "*" }],
    deny_list: ["probe.denied"],
    capabilities: [
      { tool_pattern: "probe.*", path_allowlist: ["/srv"], max_response_size: 4096 },
      { tool_pattern: "rare.probe", rate_limit: { calls: 1, per_seconds: 60 } },
      { tool_pattern: "single.probe", max_concurrent: 1 },
      { tool_pattern: "secret.probe", secret_env: { TOKEN: "deploy" } },
    ],
  },
  { name: "bobs", principals: [{ sub: "bob" }], capabilities: [{ tool_pattern: "*" }] },
  {
    name: "signed",
    principals: [{ sub: "*" }],
    require_operator_signature: true,
    capabilities: [{ tool_pattern: "*" }],
  },
]);

/** A tool that touches the paths it is told to, remembers what happened, and ends when it is let go. */
function probe(name: string) {
  const seen = { prepared: 0, ran: 0, surroundings: null as ToolContext | null };
  const held: Array<(outcome: "end" | "fail") => void> = [];
  const tool: Tool = {
    descriptor: { name, description: "", inputSchema: {}, readOnly: true, destructive: false, fleetCapable: true },
    async prepare(args) {
      seen.prepared++;
      const { paths, hold } = args as { paths?: unknown; hold?: boolean };
      if (!Array.isArray(paths)) return { kind: "invalid_args", message: "paths: expected a list" };
      const accesses: Access[] = paths.map((path) => ({ kind: "path", mode: "read", path: String(path) }));
      return {
        kind: "ready",
        call: {
          accesses,
          async run(context) {
            seen.ran++;
            seen.surroundings = context;
            const outcome = hold ? await new Promise<"end" | "fail">((resolve) => held.push(resolve)) : "end";
            if (outcome === "fail") throw new Error("the tool broke");
            return { ok: true, exitCode: 0, stdout: nothingCaptured, stderr: nothingCaptured };
          },
        },
      };
    },
  };
  return { name, tool, seen, release: (outcome: "end" | "fail") => held.shift()?.(outcome) };
}

const probeNames = ["probe.look", "probe.denied", "rare.probe", "single.probe", "secret.probe", "elsewhere"];

function setup(changes: Partial<Host> = {}) {
  const clock = fakeClock();
  const probes = new Map(probeNames.map((name) => [name, probe(name)]));
  const host: Host = {
    nodeId,
    tenantId: tenant,
    users: userVerifier({ tokenKeys: new Map([[tokenKey.kid, tokenKey]]), controllerId, tenantId: tenant }),
    contexts: new Map(contexts.map((context) => [context.name, context])),
    requireOperatorSignature: false,
    operators: {
      judge: () => ({ kind: "refused", errorKind: "operator_signature_required", message: "nobody is trusted here" }),
    },
    tools: {
      get: (name) => probes.get(name)?.tool,
      list: () => [...probes.values()].map(({ tool }) => tool.descriptor),
    },
    replay: replayGuard(clock),
    limits: callLimits(clock),
    paused: () => false,
    protectedPaths: ["/srv/state"],
    hidden: () => null,
    home: "/home/ann",
    ...changes,
  };
  const counts = (what: "prepared" | "ran") => [...probes.values()].reduce((sum, { seen }) => sum + seen[what], 0);
  const surroundings = { signal: new AbortController().signal, output: () => Promise.resolve() };
  return {
    clock,
    host,
    probe: (name: string) => probes.get(name) as ReturnType<typeof probe>,
    call: (received: ReceivedCall): Promise<Invoked> => invoke(received, host, surroundings),
    get prepared() {
      return counts("prepared");
    },
    get ran() {
      return counts("ran");
    },
  };
}

interface Forgery {
  claims?: Partial<Claims<"user">>;
  /** The token's text in place of an honest one. */
  token?: string;
  signToken?: SigningKey;
  signCall?: SigningKey;
  /** What the caller signed, where it differs from what arrives. */
  said?: Partial<UserCall>;
  /** What arrives. */
  commandId?: string;
  tenant?: string;
  context?: string;
  tool?: string;
  args?: string;
  deadlineMs?: number;
  operator?: Uint8Array;
}

const userClaims = (context: string, changes: Partial<Claims<"user">> = {}): Claims<"user"> => ({
  iss: controllerId,
  aud: "aegis-edge",
  sub: "ann",
  tid: tenant,
  scp: context,
  scopes: [],
  jti: randomUUID(),
  iat: nowSecs,
  exp: nowSecs + 300,
  via: "rest",
  cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: Buffer.from(callerKey.raw).toString("base64url") } },
  ...changes,
});

/** A call as a controller sends it and as the daemon reads it; honest where nothing else is asked for. */
function received(forgery: Forgery = {}): ReceivedCall {
  const { commandId = randomUUID(), context = "default", tool = "probe.look", deadlineMs = 5_000 } = forgery;
  const argsJson = Buffer.from(forgery.args ?? '{"paths":["/srv/a"]}');
  const operator = forgery.operator ?? new Uint8Array();
  const sent = { nodeId, commandId, tenant: forgery.tenant ?? tenant, context, tool, argsJson, deadlineMs, operator };
  const token = forgery.token ?? signJwt("user", userClaims(context, forgery.claims), forgery.signToken ?? tokenKey);
  const signature = signUserCall(forgery.signCall ?? callerKey, token, { ...sent, ...forgery.said });
  const reading = readInvoke(
    {
      commandId,
      securityContextName: context,
      toolName: tool,
      argsJson,
      operator,
      deadline: { seconds: toLong(Math.floor(deadlineMs / 1000)), nanos: (deadlineMs % 1000) * 1_000_000 },
      sealEnvelope: { userSecurityToken: token, tenantId: sent.tenant, securityContextName: context, signature },
      onNoCredit: aegis.cluster.v1.OnNoCredit.ON_NO_CREDIT_WAIT,
    },
    { body: new Uint8Array([1]), timeMs: frameTimeMs, receivedAt: 0 },
  );
  if (reading?.kind !== "call") throw new Error(`the call cannot be read: ${JSON.stringify(reading)}`);
  return reading.call;
}

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
/** A token with a header of the attacker's choice. */
function forgedToken(header: object, sign: (signed: string) => Uint8Array): string {
  const signed = `${base64url(header)}.${base64url(userClaims("default"))}`;
  return `${signed}.${Buffer.from(sign(signed)).toString("base64url") || "AA"}`;
}
const bySigner = (signed: string) => tokenKey.sign(Buffer.from(signed));
const cnf = (raw: Uint8Array) => ({
  jwk: { kty: "OKP", crv: "Ed25519", x: Buffer.from(raw).toString("base64url") } as const,
});
const smallOrder = Uint8Array.of(1, ...new Uint8Array(31));
const nodeToken = signJwt(
  "node",
  {
    ...{ sub: nodeId, role: "edge", tid: tenant, cep: "https://c", cap_hash: "", iss: controllerId },
    ...{ aud: "aegis-controller", jti: randomUUID(), iat: nowSecs, exp: nowSecs + 300, cnf: cnf(callerKey.raw) },
  },
  tokenKey,
);
const enrollmentToken = signJwt(
  "enrollment",
  {
    ...{ tid: tenant, sub: "ann", jti: randomUUID(), exp: nowSecs + 300, nbf: nowSecs, aud: "edge-enrollment" },
    ...{ iss: controllerId, cep: "https://c" },
  },
  tokenKey,
);
const kid = tokenKey.kid;
const typ = "aegis-user+jwt";

test("an honest call runs, with what policy grants it", async () => {
  const edge = setup();
  const { result, started, caller, rule } = await edge.call(received());
  expect({ result, started, rule }).toMatchObject({
    result: { ok: true },
    started: true,
    rule: "default.capabilities[0]",
  });
  expect(caller).toMatchObject({ sub: "ann", tenantId: tenant, context: "default", via: "rest" });
  const surroundings = edge.probe("probe.look").seen.surroundings;
  expect(surroundings?.maxOutputBytes).toBe(4096);
  const read = (path: string) => surroundings?.allows({ kind: "path", mode: "read", path });
  expect([read("/srv/b"), read("/etc/passwd"), read("/srv/state/node.key"), read("/srv/x/.env")]).toEqual([
    ...[true, false, false, false],
  ]);
});

test("what only follows up a call that was signed needs no signature of its own, and policy all the same", async () => {
  const follows = probe("job.probe");
  const edge = setup();
  const get = (name: string) =>
    name === "job.probe" ? { ...follows.tool, followsUp: true as const } : edge.host.tools.get(name);
  const call = (forgery: Forgery) =>
    invoke(
      received({ tool: "job.probe", ...forgery }),
      { ...edge.host, tools: { ...edge.host.tools, get } },
      { signal: new AbortController().signal, output: () => Promise.resolve() },
    );
  const paths = JSON.stringify({ paths: [] });
  expect(await call({ context: "signed", args: paths })).toMatchObject({ started: true, result: { ok: true } });
  expect(await call({ args: paths })).toMatchObject({ started: false, result: { errorKind: "policy_violation" } });
  expect(follows.seen.surroundings?.owner).toEqual({ tenant, context: "signed" });
});

describe("who speaks is not proven: envelope_invalid, and the tool is not even asked", () => {
  const rows: readonly [attack: string, forgery: Forgery, reason: RegExp][] = [
    ["a call for another tenant", { tenant: "evil" }, /belongs to tenant acme/],
    ["a token of another tenant", { claims: { tid: "evil" } }, /: tenant$/],
    ["a token of another controller", { claims: { iss: randomUUID() } }, /: wrong_issuer$/],
    ["a token signed by another key", { signToken: importSigningKey(newSeed()) }, /: unknown_key$/],
    ["a token that has expired", { claims: { iat: nowSecs - 361, exp: nowSecs - 61 } }, /: expired$/],
    ["a token of the future", { claims: { iat: nowSecs + 61, exp: nowSecs + 361 } }, /: not_yet_valid$/],
    ["a token that lives too long", { claims: { exp: nowSecs + 301 } }, /: lifetime$/],
    ["a token for another context", { claims: { scp: "operator" } }, /: context$/],
    ["a token of no subject", { claims: { sub: "" } }, /: claims$/],
    ["a node's token", { token: nodeToken }, /: wrong_type$/],
    ["an enrollment token", { token: enrollmentToken }, /: wrong_type$/],
    ["no token", { token: "" }, /: malformed$/],
    ["alg none", { token: forgedToken({ alg: "none", typ, kid }, () => new Uint8Array()) }, /: malformed$/],
    [
      "HS256 with the public key as secret",
      {
        token: forgedToken({ alg: "HS256", typ, kid }, (text) =>
          createHmac("sha256", tokenKey.raw).update(text).digest(),
        ),
      },
      /: malformed$/,
    ],
    [
      "RS256 in the header of an EdDSA token",
      { token: forgedToken({ alg: "RS256", typ, kid }, bySigner) },
      /: malformed$/,
    ],
    [
      "a key id that is a path",
      { token: forgedToken({ alg: "EdDSA", typ, kid: `../${kid}` }, bySigner) },
      /: unknown_key$/,
    ],
    [
      "a header with its own key",
      { token: forgedToken({ alg: "EdDSA", typ, kid, jwk: {} }, bySigner) },
      /: malformed$/,
    ],
    ["a caller's key of small order", { claims: { cnf: cnf(smallOrder) } }, /: key$/],
    [
      "a call signed by another key than the token names",
      { signCall: importSigningKey(newSeed()) },
      /: call_signature$/,
    ],
    ["a statement about another node", { said: { nodeId: randomUUID() } }, /: call_signature$/],
    ["a statement about another command", { said: { commandId: randomUUID() } }, /: call_signature$/],
    ["a statement about another tenant", { said: { tenant: "evil" } }, /: call_signature$/],
    ["a statement about another context", { said: { context: "signed" } }, /: call_signature$/],
    ["a statement about another tool", { said: { tool: "probe.denied" } }, /: call_signature$/],
    ["other arguments", { said: { argsJson: Buffer.from('{"paths":["/srv/b"]}') } }, /: call_signature$/],
    [
      "the same arguments with a space",
      { said: { argsJson: Buffer.from('{"paths": ["/srv/a"]}') } },
      /: call_signature$/,
    ],
    ["another deadline", { said: { deadlineMs: 0 } }, /: call_signature$/],
    ["another operator's proof", { said: { operator: Uint8Array.of(1) } }, /: call_signature$/],
    [
      "the border of tool and context moved",
      { context: "default", tool: "probe.look", said: { context: "defaultp", tool: "robe.look" } },
      /: call_signature$/,
    ],
  ];
  for (const [attack, forgery, reason] of rows)
    test(attack, async () => {
      const edge = setup();
      const call = received(forgery);
      const refused = await edge.call(call);
      expect(refused).toEqual({
        started: false,
        result: expect.objectContaining({ ok: false, errorKind: "envelope_invalid" }),
      });
      expect(refused.result.errorMessage).toMatch(reason);
      expect([edge.prepared, edge.ran]).toEqual([0, 0]);
      // Whoever cannot prove who speaks cannot use up a command id either.
      expect(edge.host.replay.firstSight(call.commandId)).toBe(true);
    });
});

describe("proven, and refused all the same", () => {
  const operators = { requireOperatorSignature: true };
  type Expected = readonly [errorKind: string, message: RegExp, prepared: number];
  const rows: readonly [why: string, forgery: Forgery, expected: Expected, host?: Partial<Host>][] = [
    ["the host is paused", {}, ["paused", /paused it; aegis edge resume/, 0], { paused: () => true }],
    ["no such context", { context: "operator" }, ["security_context_not_found", /named "operator"/, 0]],
    [
      "no context by the name of what every object has",
      { context: "constructor" },
      ["security_context_not_found", /constructor/, 0],
    ],
    ["an empty context", { context: "" }, ["security_context_not_found", /named ""/, 0]],
    ["another case of a context", { context: "Default" }, ["security_context_not_found", /"Default"/, 0]],
    [
      "a context for operators' signatures",
      { context: "signed" },
      ["operator_signature_required", /trusted operator/, 0],
    ],
    ["a host for operators' signatures", {}, ["operator_signature_required", /trusted operator/, 0], operators],
    [
      "a proof of nobody, where none was asked for",
      { operator: Uint8Array.of(1) },
      ["operator_signature_required", /nobody is trusted/, 0],
    ],
    [
      "a proof of nobody, where one is required",
      { context: "signed", operator: Uint8Array.of(1) },
      ["operator_signature_required", /nobody is trusted/, 0],
    ],
    ["arguments that are no JSON", { args: "{" }, ["envelope_invalid", /not_json/, 0]],
    ["no arguments at all", { args: "" }, ["envelope_invalid", /not_json/, 0]],
    ["arguments with a space", { args: '{"paths": []}' }, ["envelope_invalid", /not_canonical/, 0]],
    [
      "arguments with a key twice",
      { args: '{"paths":["/etc"],"paths":["/srv"]}' },
      ["envelope_invalid", /not_canonical/, 0],
    ],
    [
      "arguments with a number that loses digits",
      { args: '{"n":9007199254740993,"paths":[]}' },
      ["envelope_invalid", /not_canonical/, 0],
    ],
    ["arguments with an infinite number", { args: '{"n":1e400,"paths":[]}' }, ["envelope_invalid", /not_canonical/, 0]],
    [
      "arguments that change what objects are",
      { args: '{"__proto__":{"paths":[]}}' },
      ["envelope_invalid", /proto_key/, 0],
    ],
    ["no such tool", { tool: "probe.absent" }, ["tool_not_found", /no tool named "probe\.absent"/, 0]],
    ["no tool by the name of what every object has", { tool: "__proto__" }, ["tool_not_found", /__proto__/, 0]],
    ["arguments the tool does not take", { args: '{"paths":"/srv"}' }, ["invalid_args", /paths: expected a list/, 1]],
    ["a tool on the deny_list", { tool: "probe.denied" }, ["policy_violation", /deny_list holds probe\.denied/, 1]],
    ["a tool of no capability", { tool: "elsewhere" }, ["policy_violation", /no capability is for elsewhere/, 1]],
    [
      "a path outside",
      { args: '{"paths":["/srv/a","/etc/shadow"]}' },
      ["policy_violation", /path_allowlist does not hold "\/etc\/shadow"/, 1],
    ],
    ["a protected path inside", { args: '{"paths":["/srv/state/node.key"]}' }, ["policy_violation", /is protected/, 1]],
    [
      "somebody who is no principal",
      { context: "bobs" },
      ["policy_violation", /caller "ann" is none of its principals/, 1],
    ],
    [
      "a secret this host does not keep",
      { tool: "secret.probe", args: '{"paths":[]}' },
      ["policy_violation", /keeps no secret named deploy/, 1],
    ],
  ];
  for (const [why, forgery, [errorKind, message, prepared], host] of rows)
    test(`${why}: ${errorKind}`, async () => {
      const edge = setup(host);
      const call = received(forgery);
      const refused = await edge.call(call);
      expect(refused).toMatchObject({ started: false, caller: { sub: "ann" }, result: { ok: false, errorKind } });
      expect(refused.result.errorMessage).toMatch(message);
      expect([edge.prepared, edge.ran]).toEqual([prepared, 0]);
      // It had its one chance.
      expect((await edge.call(call)).result.errorKind).toBe("replayed");
    });
});

test("a command that comes twice runs once: replayed", async () => {
  const edge = setup();
  const call = received();
  expect((await edge.call(call)).result.ok).toBe(true);
  expect(await edge.call(call)).toMatchObject({ started: false, result: { errorKind: "replayed" } });
  expect(await edge.call(received({ commandId: call.commandId, args: '{"paths":[]}' }))).toMatchObject({
    result: { errorKind: "replayed" },
  });
  expect(edge.ran).toBe(1);
});

test("of several faults the first in the order of judgement is named, so that nobody learns about a host whom it does not know", async () => {
  const faults: Array<[forgery: Forgery, errorKind: string, host?: Partial<Host>]> = [
    [{ tenant: "evil" }, "envelope_invalid"],
    [{ signCall: importSigningKey(newSeed()) }, "envelope_invalid"],
    [{}, "paused", { paused: () => true }],
    [{ context: "absent" }, "security_context_not_found"],
    [{}, "operator_signature_required", { requireOperatorSignature: true }],
    [{ args: "{" }, "envelope_invalid"],
    [{ tool: "absent" }, "tool_not_found"],
    [{ args: "{}" }, "invalid_args"],
    [{ args: '{"paths":["/etc"]}' }, "policy_violation"],
  ];
  for (const [index, [, errorKind]] of faults.entries()) {
    const later = faults.slice(index).reverse(); // an earlier fault overwrites a later one of the same field
    const forgery: Forgery = Object.assign({}, ...later.map(([one]) => one));
    const host: Partial<Host> = Object.assign({}, ...later.map(([, , one]) => one));
    const { result } = await setup(host).call(received(forgery));
    expect(`${index} ${result.errorKind}`).toBe(`${index} ${errorKind}`);
  }
});

describe("limits", () => {
  const empty = '{"paths":[]}';
  const hold = '{"hold":true,"paths":[]}';

  test("more calls than the rate: policy_violation that names it, until the time has passed", async () => {
    const edge = setup();
    const call = () => edge.call(received({ tool: "rare.probe", args: empty }));
    expect((await call()).result.ok).toBe(true);
    const refused = await call();
    expect(refused).toMatchObject({
      started: false,
      rule: "default.capabilities[1]",
      result: { errorKind: "policy_violation" },
    });
    expect(refused.result.errorMessage).toMatch(/rate_limit of default\.capabilities\[1\] is 1 calls in 60 s/);
    await edge.clock.advance(60_000);
    expect((await call()).result.ok).toBe(true);
    expect(edge.ran).toBe(2);
  });

  test("more calls at once than allowed: overloaded, until one has ended, well or badly", async () => {
    const edge = setup();
    const { release } = edge.probe("single.probe");
    const call = (args: string) => edge.call(received({ tool: "single.probe", args }));
    for (const outcome of ["end", "fail"] as const) {
      const first = call(hold);
      const ended = first.then(
        () => "end",
        () => "fail",
      );
      for (let turn = 0; turn < 10; turn++) await Promise.resolve();
      const refused = await call(empty);
      expect(refused).toMatchObject({ started: false, result: { errorKind: "overloaded" } });
      expect(refused.result.errorMessage).toMatch(/max_concurrent of default\.capabilities\[2\] is 1/);
      release(outcome);
      expect(await ended).toBe(outcome);
    }
    expect((await call(empty)).result.ok).toBe(true);
  });

  test("a call that was refused holds no place", async () => {
    const edge = setup();
    for (let time = 0; time < 3; time++)
      expect((await edge.call(received({ tool: "single.probe", args: '{"paths":["/etc"]}' }))).result.errorKind).toBe(
        "policy_violation",
      );
    expect((await edge.call(received({ tool: "single.probe", args: empty }))).result.ok).toBe(true);
  });
});

test("a secret of the owner reaches the tool, and only as something that does not print", async () => {
  const edge = setup({ secret: async (name) => (name === "deploy" ? new Secret("s3cret") : null) });
  expect((await edge.call(received({ tool: "secret.probe", args: '{"paths":[]}' }))).started).toBe(true);
  const secrets = edge.probe("secret.probe").seen.surroundings?.secretEnv;
  expect(secrets?.TOKEN?.reveal()).toBe("s3cret");
  expect(JSON.stringify(secrets)).toBe('{"TOKEN":"[redacted]"}');
});

describe("asking what would happen", () => {
  const ask = (
    edge: ReturnType<typeof setup>,
    context: string,
    tool: string,
    args: unknown,
    caller?: { sub: string; scopes: string[] },
  ) =>
    testPolicy({
      config: { contexts: edge.host.contexts, requireOperatorSignature: edge.host.requireOperatorSignature },
      tools: edge.host.tools,
      world: edge.host,
      ...{ context, tool, args },
      ...(caller && { caller }),
    });

  test("gives the verdict of a real call, and runs nothing", async () => {
    for (const [context, tool, args] of [
      ["default", "probe.look", '{"paths":["/srv/a"]}'],
      ["default", "probe.look", '{"paths":["/etc"]}'],
      ["default", "probe.denied", '{"paths":[]}'],
      ["default", "elsewhere", '{"paths":[]}'],
      ["bobs", "probe.look", '{"paths":[]}'],
      ["absent", "probe.look", '{"paths":[]}'],
      ["default", "absent", '{"paths":[]}'],
      ["default", "probe.look", "{}"],
    ] as const) {
      const edge = setup();
      const answer = await ask(edge, context, tool, JSON.parse(args), { sub: "ann", scopes: [] });
      expect(edge.ran).toBe(0);
      const { result, rule } = await edge.call(received({ context, tool, args }));
      if (answer.kind !== "judged") {
        expect(result.errorKind).toBe(answer.kind);
        continue;
      }
      expect(answer.verdict.rule).toBe(rule ?? "");
      expect(answer.verdict.kind === "allowed").toBe(result.ok);
      if (answer.verdict.kind === "denied") expect(answer.verdict.reason).toBe(result.errorMessage ?? "");
    }
  });

  test("says of each capability why it did not accept", async () => {
    const answer = await ask(setup(), "default", "rare.probe", { paths: ["/srv/a"] });
    if (answer.kind !== "judged") throw new Error(answer.kind);
    expect(answer.steps.map(({ rule, outcome, reason }) => [rule, outcome, reason])).toEqual([
      ["default.capabilities[0]", "other_tool", ""],
      ["default.capabilities[1]", "refused", 'path_allowlist does not hold "/srv/a"'],
      ["default.capabilities[2]", "other_tool", ""],
      ["default.capabilities[3]", "other_tool", ""],
    ]);
  });

  test("without a caller asks as somebody whom the context lets in, and says when a signature is needed besides", async () => {
    const answer = await ask(setup(), "bobs", "probe.look", { paths: [] });
    expect(answer).toMatchObject({
      verdict: { kind: "allowed" },
      caller: { sub: "bob" },
      needsOperatorSignature: false,
    });
    expect(await ask(setup(), "signed", "probe.look", { paths: [] })).toMatchObject({ needsOperatorSignature: true });
    expect(await ask(setup({ requireOperatorSignature: true }), "bobs", "probe.look", { paths: [] })).toMatchObject({
      needsOperatorSignature: true,
    });
  });

  test("says that no signature is needed for what only follows up a call that was signed, as in a real call", async () => {
    const edge = setup();
    const tool = { ...probe("job.probe").tool, followsUp: true as const };
    const host = { ...edge.host, tools: { ...edge.host.tools, get: () => tool } };
    expect(await ask({ ...edge, host }, "signed", "job.probe", { paths: [] })).toMatchObject({
      verdict: { kind: "allowed" },
      needsOperatorSignature: false,
    });
  });

  test("names what there is when what was asked for is not there", async () => {
    expect(await ask(setup(), "absent", "probe.look", {})).toEqual({
      kind: "security_context_not_found",
      known: ["default", "bobs", "signed"],
    });
    expect(await ask(setup(), "default", "absent", {})).toEqual({ kind: "tool_not_found", known: probeNames });
  });
});
