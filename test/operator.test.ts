/**
 * What runs only with an operator's signature: a controller that has everything but that signature makes nothing run, and
 * one that has a signature makes exactly that call run, on that host, once.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Point } from "@noble/ed25519";
import { stringifyYAML } from "confbox/yaml";
import { loadEdgeConfig } from "../src/config/load.ts";
import { compatUsers } from "../src/daemon/compat-call.ts";
import { runCompatSession } from "../src/daemon/compat-session.ts";
import { createInvocations } from "../src/daemon/invocations.ts";
import type { ControllerLink, StreamHandlers } from "../src/daemon/link.ts";
import { challengeLimits, operatorChallenges } from "../src/daemon/operator-challenges.ts";
import { createOperators } from "../src/daemon/operators.ts";
import { createOutbox } from "../src/daemon/outbox.ts";
import { readOperatorChallenge, readOperatorProof, wantsSignature } from "../src/envelope/operator.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { jsonToStruct } from "../src/wire/json.ts";
import { fakeClock } from "./support/fake-clock.ts";
import { type Asked, ann, type ProofChange, type SignedPair, signedPair, trusting } from "./support/operator.ts";
import { recordedLog } from "./support/recorded-log.ts";
import { scriptedHost, scriptedTool, settled } from "./support/scripted-host.ts";
import { strictDaemon } from "./support/strict-daemon.ts";
import { hostIdentity, newKey } from "./support/strict-keys.ts";
import { strictPair } from "./support/strict-pair.ts";

const wire = aegis.cluster.v1;
const minute = 60_000;

/** Nothing ran, and the host has signed that. */
function refused({ ran, proven }: Asked, errorKind: string, message: RegExp): void {
  expect(ran).toBe(0);
  expect(proven).toMatchObject({ started: false, ok: false, errorKind });
  expect(proven.errorMessage).toMatch(message);
}

test("what a trusted operator signed runs, and the host has the challenge that the next one needs", async () => {
  const pair = await signedPair();
  const { hostName, contexts, key } = pair.challenge();
  expect([hostName, contexts, key.kid]).toEqual(["web-1", ["signed"], pair.identity.nodeKey.kid]);
  expect([wantsSignature(pair.challenge(), "signed"), wantsSignature(pair.challenge(), "default")]).toEqual([
    true,
    false,
  ]);
  const asked = await pair.ask(pair.proof());
  expect([asked.ran, asked.proven.ok]).toEqual([1, true]);
  expect(pair.daemon.log.find("call")).toMatchObject({ operator: "ann" });
  expect((await pair.ask(pair.proof())).ran).toBe(1);
});

test("without a signature it does not run; elsewhere none is needed, but a wrong one is no better than here", async () => {
  const pair = await signedPair();
  refused(
    await pair.ask(new Uint8Array()),
    "operator_signature_required",
    /"signed" runs only what a trusted operator/,
  );
  expect((await pair.ask(new Uint8Array(), { context: "default" })).ran).toBe(1);
  expect((await pair.ask(pair.proof({ context: "default" }), { context: "default" })).ran).toBe(1);
  refused(await pair.ask(pair.proof(), { context: "default" }), "operator_signature_required", /not that of operator/);
});

test("bytes that are no proof: envelope_invalid", async () => {
  const pair = await signedPair();
  const { OperatorProof } = wire;
  const right = OperatorProof.decode(pair.proof());
  const shapes: Uint8Array[] = [
    Uint8Array.of(1),
    randomBytes(64),
    ...[
      { alg: 0 },
      { alg: 2 },
      { keyId: randomBytes(31) },
      { challenge: randomBytes(33) },
      { statementId: randomBytes(15) },
    ]
      .concat(
        [{ signature: randomBytes(63) }, { signature: new Uint8Array() }] as never,
        [{ note: "x".repeat(201) }] as never,
      )
      .map((change) => OperatorProof.encode({ ...right, ...change }).finish()),
  ];
  for (const bytes of shapes) refused(await pair.ask(bytes), "envelope_invalid", /no proof of a known form/);
});

test("33 a statement for another host of the same tenant, under that other host's own challenge too", async () => {
  const pair = await signedPair();
  const identity = hostIdentity(pair.strict, pair.time());
  await pair.enroll(identity);
  const daemon = strictDaemon({
    link: pair.link,
    clock: pair.host,
    strict: pair.strict,
    identity,
    trusted: trusting(),
  });
  daemon.connect();
  await settled();
  await settled();
  const theirs = pair.challenge(identity).challenge;
  expect(Buffer.from(theirs).equals(pair.challenge().challenge)).toBe(false);
  const other = { daemon, identity };
  refused(await pair.ask(pair.proof(), {}, other), "operator_signature_required", /not that of operator "ann"/);
  const crossed = pair.proof({ challenge: theirs });
  refused(await pair.ask(crossed, {}, other), "operator_signature_required", /not that of operator/);
  expect((await pair.ask(pair.proof({ nodeId: identity.nodeId, challenge: theirs }), {}, other)).ran).toBe(1);
});

describe("34 a statement used twice", () => {
  test("34 in one session: replayed, whatever command carries it", async () => {
    const pair = await signedPair();
    const proof = pair.proof();
    expect((await pair.ask(proof)).ran).toBe(1);
    for (let again = 0; again < 3; again++)
      refused(await pair.ask(proof), "replayed", /nothing runs twice by one signature/);
    // The same statement with another signature by the same key is the same statement.
    const { statementId } = readOperatorProof(proof) ?? {};
    refused(await pair.ask(pair.proof({ statementId: statementId ?? new Uint8Array() })), "replayed", /used before/);
  });

  test("34 at the same time: the one that is judged first runs", async () => {
    const pair = await signedPair();
    const operator = pair.proof();
    const { nodeId } = pair.identity;
    const calls = [1, 2, 3].map(() => pair.call({ nodeId, context: "signed", operator }));
    await settled();
    for (const run of pair.daemon.tool.runs) run.end();
    const kinds = await Promise.all(calls.map(async ({ result }) => (await result).errorKind));
    expect(kinds.sort()).toEqual([null, "replayed", "replayed"].sort());
    expect(pair.daemon.tool.runs).toHaveLength(1);
  });

  test("34 after a new session: replayed and not stale, so that nobody is led to sign again what has run", async () => {
    const pair = await signedPair();
    const [used, kept] = [pair.proof(), pair.proof()];
    expect((await pair.ask(used)).ran).toBe(1);
    for (let times = 0; times < 3; times++) {
      await pair.connected();
      refused(await pair.ask(used), "replayed", /used before/);
    }
    // One that never ran may be signed again: the host says that it is void, and under which challenge.
    const stale = await pair.ask(kept);
    refused(stale, "operator_signature_stale", /none of this host's last two/);
    expect(stale.proven.statementVoid).toBe(true);
    refused(await pair.ask(kept), "operator_signature_stale", /last two/);
  });

  test("34 after a restart: stale, and the host does not claim to know whether it ran", async () => {
    const pair = await signedPair();
    const used = pair.proof();
    expect((await pair.ask(used)).ran).toBe(1);
    pair.link.close();
    const { link, host: clock, strict, identity } = pair;
    const daemon = strictDaemon({ link, clock, strict, identity, trusted: trusting() });
    daemon.connect();
    await settled();
    await settled();
    const stale = await pair.ask(used, {}, { daemon, identity });
    refused(stale, "operator_signature_stale", /last two/);
    expect(stale.proven.statementVoid).toBe(false);
    expect((await pair.ask(pair.proof(), {}, { daemon, identity })).ran).toBe(1);
  });

  test("34 when 64 newer challenges have come: the host does not claim to know any more", () => {
    const challenges = operatorChallenges();
    const old = challenges.current;
    const id = randomBytes(16);
    expect(challenges.spend(old, id)).toBe("spent");
    for (let newer = 0; newer <= challengeLimits.remembered; newer++) challenges.begin();
    expect(challenges.standing(old, id)).toBe("used");
    challenges.begin();
    expect(challenges.standing(old, id)).toBe("unknown");
    expect(challenges.spend(old, id)).toBe("unknown");
  });

  test("34 refused by policy it is not used up, and runs when it is right", async () => {
    const pair = await signedPair();
    const statementId = randomBytes(16);
    const proof = pair.proof({ statementId, tool: "no.such" });
    refused(await pair.ask(proof, { tool: "no.such" }), "tool_not_found", /no\.such/);
    expect((await pair.ask(pair.proof({ statementId }))).ran).toBe(1);
  });
});

describe("35 a challenge that is not this host's", () => {
  test("35 of the session before: stale, with the new one, signed by the host", async () => {
    const pair = await signedPair();
    const before = pair.challenge().challenge;
    await pair.connected();
    const { proven, ran } = await pair.ask(pair.proof({ challenge: before }));
    expect([ran, proven.errorKind]).toEqual([0, "operator_signature_stale"]);
    const named = { nodeId: pair.identity.nodeId, tenant: "acme" };
    const again = readOperatorChallenge(proven.challenge ?? new Uint8Array(), named);
    expect(again?.key.kid).toBe(pair.identity.nodeKey.kid);
    expect(Buffer.from(again?.challenge ?? []).equals(pair.challenge().challenge)).toBe(true);
    expect((await pair.ask(pair.proof({ challenge: again?.challenge ?? before }))).ran).toBe(1);
  });

  test("35 is noticed before anybody looks at arguments or tools", async () => {
    const pair = await signedPair();
    const challenge = randomBytes(32);
    const { nodeId } = pair.identity;
    for (const [tool, argsJson] of [
      ["no.such", "{}"],
      ["test.work", "{"],
    ] as const) {
      const operator = pair.proof({ challenge, tool, argsJson: Buffer.from(argsJson) });
      const call = pair.call({ nodeId, context: "signed", tool, argsJson, operator });
      expect(await call.result).toMatchObject({ ok: false, errorKind: "operator_signature_stale" });
    }
  });

  test("35 invented, or all zeroes", async () => {
    const pair = await signedPair();
    for (const challenge of [randomBytes(32), new Uint8Array(32)]) {
      const stale = await pair.ask(pair.proof({ challenge }));
      refused(stale, "operator_signature_stale", /last two/);
      expect(stale.proven.statementVoid).toBe(false);
    }
  });

  test("35 it changes every 5 minutes, and the one before is good for 5 more", async () => {
    const pair = await signedPair();
    const first = pair.challenge().challenge;
    await pair.pass(5 * minute + 1_000);
    expect(Buffer.from(pair.challenge().challenge).equals(first)).toBe(false);
    expect((await pair.ask(pair.proof({ challenge: first }))).ran).toBe(1);
    expect((await pair.ask(pair.proof())).ran).toBe(1);
    await pair.pass(5 * minute);
    const stale = await pair.ask(pair.proof({ challenge: first }));
    refused(stale, "operator_signature_stale", /last two/);
    expect(stale.proven.statementVoid).toBe(true);
  });

  test("35 no clock has a say in it: the host's may be ten years off", async () => {
    const pair = await signedPair();
    const proof = pair.proof();
    pair.host.step(10 * 365 * 86_400_000);
    expect((await pair.ask(proof)).ran).toBe(1);
    pair.host.step(-20 * 365 * 86_400_000);
    expect((await pair.ask(pair.proof())).ran).toBe(1);
  });

  test("35 a call is judged when it leaves the queue: one that waited too long there does not run", async () => {
    const pair = await strictPair({ trusted: trusting(), maxConcurrent: 1 });
    await pair.connected();
    const { nodeId } = pair.identity;
    const signed = await signedPair();
    const blocker = pair.call({ nodeId, context: "default" });
    await settled();
    const bytes = pair.sessions.get(nodeId)?.operatorChallenge ?? new Uint8Array();
    const challenge = readOperatorChallenge(bytes, { nodeId, tenant: "acme" })?.challenge ?? new Uint8Array();
    const waiting = pair.call({ nodeId, context: "signed", operator: signed.proof({ nodeId, challenge }) });
    await settled();
    await pair.pass(11 * minute);
    pair.daemon.tool.runs[0]?.end();
    await blocker.result;
    expect(await waiting.result).toMatchObject({ ok: false, errorKind: "operator_signature_stale" });
    expect(pair.daemon.tool.runs).toHaveLength(1);
  });
});

describe("36 another call than the one that was signed", () => {
  const calls: readonly [what: string, signed: ProofChange][] = [
    ["arguments", { argsJson: Buffer.from('{"a":1}') }],
    ["context", { context: "default" }],
    ["tool", { tool: "test.other" }],
    ["deadline", { deadlineMs: 1 }],
    ["tenant", { tenant: "evil" }],
    ["host", { nodeId: randomUUID() }],
    ["tool and context, cut elsewhere", { context: "signedt", tool: "est.work" }],
  ];
  for (const [what, signed] of calls)
    test(`36 ${what}`, async () => {
      const pair = await signedPair();
      const challenge = pair.challenge().challenge;
      refused(
        await pair.ask(pair.proof({ ...signed, challenge })),
        "operator_signature_required",
        /not that of operator/,
      );
    });

  test("36 a proof of which any part was changed after it was signed", async () => {
    const pair = await signedPair();
    await pair.connected();
    const right = wire.OperatorProof.decode(pair.proof());
    const flipped = (bytes: Uint8Array) => bytes.map((byte, at) => (at === 0 ? byte ^ 1 : byte));
    const changes: aegis.cluster.v1.OperatorProof.$Properties[] = [
      { challenge: flipped(right.challenge) },
      { statementId: flipped(right.statementId) },
      { note: "and more" },
      { signature: flipped(right.signature) },
      { signature: new Uint8Array(64) },
    ];
    for (const change of changes)
      refused(
        await pair.ask(wire.OperatorProof.encode({ ...right, ...change }).finish()),
        "operator_signature_required",
        /not that of operator/,
      );
  });
});

/** Every encoding of a point of small order, and a point of mixed order: whoever trusts one trusts everybody. */
const weakKeys = [
  ...["0100000000000000000000000000000000000000000000000000000000000000"],
  ...["0000000000000000000000000000000000000000000000000000000000000000"],
  ...["0000000000000000000000000000000000000000000000000000000000000080"],
  ...["ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"],
  ...["26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"],
  ...["c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"],
  ...["0100000000000000000000000000000000000000000000000000000000000080"],
  ...["eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"],
];

const mixedOrder = Buffer.from(
  Point.fromBytes(ann.raw)
    .add(Point.fromBytes(Buffer.from(weakKeys[4] ?? "", "hex"), true))
    .toBytes(),
).toString("hex");

describe("37 a key that is not trusted", () => {
  test("37 of somebody else, of the controller, of the host itself", async () => {
    const pair = await signedPair();
    const { command, token, callerKey } = pair.strict.keys;
    for (const key of [newKey(), command, token, callerKey, pair.strict.root, pair.identity.nodeKey])
      refused(
        await pair.ask(pair.proof({ key })),
        "operator_signature_required",
        /trusts no operator with the key SHA256:/,
      );
  });

  test("37 another's signature under a trusted key's name", async () => {
    const pair = await signedPair();
    const stranger = wire.OperatorProof.decode(pair.proof({ key: newKey() }));
    const dressed = wire.OperatorProof.encode({ ...stranger, keyId: ann.keyId }).finish();
    refused(await pair.ask(dressed), "operator_signature_required", /not that of operator "ann"/);
  });

  test("37 with nobody trusted nothing runs", async () => {
    const pair = await signedPair([]);
    refused(await pair.ask(pair.proof()), "operator_signature_required", /trusts no operator/);
  });

  const homes: string[] = [];
  afterEach(() => {
    for (const home of homes.splice(0)) rmSync(home, { recursive: true });
  });
  const load = async (publicKey: string) => {
    const home = mkdtempSync(join(tmpdir(), "aegis-operator-"));
    homes.push(home);
    const stateDir = join(home, ".aegis/edge");
    mkdirSync(stateDir, { recursive: true });
    const cluster = {
      controller: { endpoint: "https://c.example:50056" },
      edge: { tenant_id: "acme", seal: "compat" },
    };
    const spec = { node: { id: randomUUID() }, cluster, trusted_operators: [{ name: "eve", public_key: publicKey }] };
    const document = { apiVersion: "100monkeys.ai/v1", kind: "NodeConfig", spec };
    writeFileSync(join(stateDir, "aegis-config.yaml"), stringifyYAML(document));
    return await loadEdgeConfig({ stateDir, env: {}, home });
  };
  const spelled = (raw: Uint8Array) => `ed25519:${Buffer.from(raw).toString("base64url")}`;

  test("37 a weak key in the settings is refused when they are read", async () => {
    expect((await load(spelled(ann.raw))).config.trustedOperators).toMatchObject([{ name: "eve" }]);
    for (const weak of [...weakKeys, mixedOrder])
      await expect(load(spelled(Buffer.from(weak, "hex")))).rejects.toThrow(
        /trusted_operators\[0\]\.public_key.*usable Ed25519/,
      );
    for (const other of [
      Buffer.from(ann.raw).toString("base64url"),
      `ed25519:${"A".repeat(42)}`,
      `${spelled(ann.raw)}=`,
    ])
      await expect(load(other)).rejects.toThrow(/trusted_operators/);
  });
});

describe("38 an operator who may not sign this", () => {
  test("38 in a context that is not for this key", async () => {
    const pair = await signedPair(trusting({ contexts: ["deploy", "default"] }));
    refused(await pair.ask(pair.proof()), "operator_signature_required", /may sign only for deploy, default/);
    expect((await pair.ask(pair.proof({ context: "default" }), { context: "default" })).ran).toBe(1);
  });

  test("38 a key that is written down twice may sign for either", async () => {
    const twice = [...trusting({ contexts: ["default"] }), ...trusting({ name: "ann-2", contexts: ["signed"] })];
    const pair = await signedPair(twice);
    expect((await pair.ask(pair.proof())).ran).toBe(1);
    expect(pair.daemon.log.find("call")).toMatchObject({ operator: "ann-2" });
    expect((await pair.ask(pair.proof({ context: "default" }), { context: "default" })).ran).toBe(1);
    const neither = pair.proof({ context: "operator" });
    refused(await pair.ask(neither, { context: "operator" }), "operator_signature_required", /"ann" may sign only for/);
  });

  test("38 with a key for no context at all", async () => {
    const pair = await signedPair(trusting({ contexts: [] }));
    refused(await pair.ask(pair.proof()), "operator_signature_required", /may sign only for nothing/);
  });

  test("38 after not_after, by this host's own clock and nobody else's", async () => {
    const { clock } = await strictPair();
    const notAfterMs = clock.now() + 10 * minute;
    const pair = await signedPair(trusting({ notAfterMs }));
    expect((await pair.ask(pair.proof())).ran).toBe(1);
    // The controller's clock, however wrong, changes nothing.
    pair.clock.step(20 * minute);
    expect((await pair.ask(pair.proof())).ran).toBe(1);
    pair.host.step(10 * minute);
    expect((await pair.ask(pair.proof())).ran).toBe(1);
    pair.host.step(1);
    refused(await pair.ask(pair.proof()), "operator_signature_required", /was good until 2026-/);
  });
});

describe("41 more statements than a challenge is good for", () => {
  const { statements } = challengeLimits;

  test("41 the 1 025th is overloaded, also when the 1 024 were refused nothing; the next challenge is good again", async () => {
    expect(statements).toBe(1_024);
    const pair = await signedPair();
    const { identity } = pair;
    const challenges = operatorChallenges();
    const operators = createOperators({
      ...{ nodeId: identity.nodeId, tenantId: "acme", hostName: "web-1", nodeKey: () => identity.nodeKey, challenges },
      ...{ policy: () => ({ trusted: trusting(), contexts: [] }), now: () => 0 },
    });
    const call = { nodeId: identity.nodeId, tenant: "acme", context: "signed", tool: "test.work" };
    const judge = (challenge: Uint8Array) =>
      operators.judge(pair.proof({ challenge }), { ...call, argsJson: Buffer.from("{}"), deadlineMs: 0 });
    const spend = (challenge: Uint8Array) => {
      const verdict = judge(challenge);
      return verdict.kind === "signed" ? verdict.spend() : verdict;
    };
    operators.begin();
    const first = challenges.current;
    for (let count = 0; count < statements; count++) expect(spend(first)).toBeNull();
    const full = { kind: "refused", errorKind: "overloaded" };
    expect(spend(first)).toMatchObject(full);
    operators.renew();
    expect(spend(first)).toMatchObject(full);
    expect(spend(challenges.current)).toBeNull();
  });
});

describe("43 settings that a controller pushes", () => {
  async function pushed(delta: Record<string, unknown>) {
    const pair = await signedPair();
    const { nodeId } = pair.identity;
    expect(pair.sessions.tell(nodeId, { pushConfig: { mergedConfigDelta: jsonToStruct(delta) } })).toBe(true);
    await settled();
    return pair;
  }
  const rejected = (pair: SignedPair) => JSON.stringify(pair.daemon.log.find("config_rejected")?.reasons ?? null);

  const forbidden: Record<string, unknown> = {
    trusted_operators: [{ name: "eve", public_key: "ed25519:AAAA" }],
    trustedOperators: [],
    require_operator_signature: false,
    security_contexts: [{ name: "signed" }],
    mcp_servers: [],
    seal: "compat",
    seal_root: "A",
    node: { id: randomUUID() },
    cluster: {},
    spec: { trusted_operators: [] },
    controller: { endpoint: "https://evil.example" },
    tls: { pin_sha256: [] },
    proxy: { https_proxy: "http://evil.example" },
    edge: { capabilities: {} },
    capabilities: { custom_labels: {} },
    secrets: {},
    observability: { log_level: "error" },
    otlp: { endpoint: "https://evil.example:4317" },
    "spec.observability.otlp": { endpoint: "https://evil.example:4317" },
    "spec.trusted_operators": [],
    constructor: {},
    heartbeat_interval_ms: 1,
    log_levels: "info",
  };
  for (const [key, value] of Object.entries(forbidden))
    test(`43 ${key}: refused by name, and what comes with it too`, async () => {
      const pair = await pushed({ [key]: value, log_level: "debug" });
      expect(pair.daemon.pushed).toEqual([]);
      expect(rejected(pair)).toContain(`\\"${key}\\" is not for a controller to set`);
      refused(await pair.ask(new Uint8Array()), "operator_signature_required", /trusted operator/);
      expect((await pair.ask(pair.proof())).ran).toBe(1);
    });

  test("43 __proto__", async () => {
    const pair = await signedPair();
    const mergedConfigDelta = {
      fields: JSON.parse('{"__proto__":{"structValue":{"fields":{"log_level":{"stringValue":"debug"}}}}}'),
    };
    pair.sessions.tell(pair.identity.nodeId, { pushConfig: { mergedConfigDelta } });
    await settled();
    expect(pair.daemon.pushed.map((settings) => Object.keys(settings))).toEqual([]);
  });

  test("43 the four that are allowed are taken, within bounds and calls at once only downwards", async () => {
    const allowed = {
      ...{ heartbeat_interval_secs: 5, max_concurrent_invocations: 2, log_level: "warn" },
      custom_labels: { region: "eu" },
    };
    const pair = await pushed(allowed);
    expect(pair.daemon.pushed).toEqual([
      { heartbeatIntervalMs: 5_000, maxConcurrent: 2, logLevel: "warn", customLabels: { region: "eu" } },
    ]);
    for (const [delta, reason] of [
      [{ max_concurrent_invocations: 17 }, "max_concurrent_invocations"],
      [{ max_concurrent_invocations: 0 }, "max_concurrent_invocations"],
      [{ heartbeat_interval_secs: 0 }, "heartbeat_interval_secs"],
      [{ heartbeat_interval_secs: 3_601 }, "heartbeat_interval_secs"],
      [{ heartbeat_interval_secs: "5" }, "heartbeat_interval_secs"],
      [{ log_level: "silent" }, "log_level"],
      [{ custom_labels: { "a b": "c" } }, "custom_labels"],
      [{ custom_labels: { a: "x".repeat(257) } }, "custom_labels"],
      [{ custom_labels: Object.fromEntries([...Array(65).keys()].map((n) => [`l${n}`, "x"])) }, "custom_labels"],
    ] as const) {
      const other = await pushed(delta);
      expect([other.daemon.pushed, rejected(other)]).toEqual([[], expect.stringContaining(reason)]);
    }
  });

  test("a pushed pace of heartbeats is kept at once", async () => {
    const pair = await pushed({ heartbeat_interval_secs: 5 });
    const beats = () => pair.daemon.states.filter((state) => state === "heartbeat").length;
    await settled();
    const before = beats();
    await pair.pass(20_000);
    expect(beats() - before).toBe(4);
  });
});

test("45 a compat stream runs no such context, whatever it sends", async () => {
  const clock = fakeClock();
  const log = recordedLog();
  const { tool, runs } = scriptedTool();
  const nodeKey = newKey();
  const nodeId = randomUUID();
  const host = {
    ...scriptedHost({ clock, tools: [tool], nodeId, users: compatUsers }),
    operators: createOperators({
      ...{ nodeId, tenantId: "acme", hostName: "web-1", nodeKey: () => nodeKey, now: clock.now },
      policy: () => ({ trusted: trusting(), contexts: ["signed"] }),
      challenges: operatorChallenges(),
    }),
  };
  const outbox = createOutbox({ nodeId, nodeKey: () => nodeKey, clock, log });
  const invocations = createInvocations({ host: () => host, outbox, clock, log, maxConcurrent: 4 });
  let handlers: StreamHandlers | null = null;
  const results: unknown[] = [];
  const link = {
    async open(given: StreamHandlers) {
      handlers = given;
      return {
        send: (event: aegis.cluster.v1.EdgeEvent.$Properties) => {
          if (event.commandResult) results.push(event.commandResult.result?.errorKind ?? "");
          return true;
        },
        drained: () => Promise.resolve(),
        close() {},
      };
    },
    close() {},
  } as unknown as ControllerLink;
  const stop = new AbortController();
  const capabilities = () => wire.EdgeCapabilities.encode({}).finish();
  const ended = runCompatSession(
    {
      ...{
        link,
        clock,
        log,
        nodeId,
        nodeKey,
        nodeToken: "t",
        capabilities,
        heartbeatIntervalMs: 30_000,
        invocations,
        outbox,
      },
      ...{ newStreamId: randomUUID, onState() {} },
    },
    stop.signal,
  );
  await settled();
  const invoke = (context: string, more: object = {}) =>
    (handlers as StreamHandlers | null)?.onCommand({
      invokeTool: {
        ...{ commandId: randomUUID(), toolName: "test.work", securityContextName: context, args: { fields: {} } },
        sealEnvelope: { userSecurityToken: "", tenantId: "acme", securityContextName: context },
        ...more,
      },
    } as never);
  const pair = await signedPair();
  invoke("signed");
  invoke("signed", { operator: pair.proof({ nodeId }), argsJson: Buffer.from("{}") });
  await settled();
  expect(results).toEqual(["operator_signature_required", "operator_signature_required"]);
  expect(runs).toHaveLength(0);
  invoke("default");
  await settled();
  expect(runs).toHaveLength(1);
  stop.abort();
  await ended;
});
