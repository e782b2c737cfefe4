/** How a session begins, and everything that must not begin one. */
import { describe, expect, test } from "bun:test";
import { createDoorman, doorLimits } from "../src/controller/doorman.ts";
import { edgeStream } from "../src/controller/edge-stream.ts";
import { resultLedger } from "../src/controller/result-ledger.ts";
import type { StreamEnd } from "../src/daemon/link.ts";
import { handshakeTimeoutMs } from "../src/daemon/session.ts";
import { supervise } from "../src/daemon/supervise.ts";
import { advance } from "../src/envelope/keyset.ts";
import { signRefusal, verifyRefusal } from "../src/envelope/refusal.ts";
import { uuidBytes } from "../src/envelope/statement.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { toLong } from "../src/wire/whole.ts";
import { fakeClock } from "./support/fake-clock.ts";
import { type HeardEvent, honestRelay, memoryLink } from "./support/memory-link.ts";
import { type AcceptBody, frameOf, rogueDaemon, sealed } from "./support/rogue.ts";
import { settled } from "./support/scripted-host.ts";
import { controllerStage, daemonStage } from "./support/stages.ts";
import { causeOf, strictDaemon } from "./support/strict-daemon.ts";
import { hostIdentity, newKey, signedKeyset } from "./support/strict-keys.ts";
import { strictPair } from "./support/strict-pair.ts";

const wire = aegis.cluster.v1;
const { GoodbyeReason } = wire;
const confirm = wire.SealConfirm.encode({}).finish();

/** Every point of small order, in the spellings that X25519 takes: each makes any shared secret the zero one. */
const smallOrderShares = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

describe("11 a captured Hello, replayed", () => {
  test("11 no CONFIRM: the old session stays, inventory is as it was, and the place is given back", async () => {
    const pair = await strictPair();
    const hellos: HeardEvent[] = [];
    pair.relay.up = (event, forward) => {
      if (event.hello) hellos.push(event);
      forward(event);
    };
    await pair.connected();
    const before = await pair.store.node(pair.identity.nodeId);
    const live = pair.sessions.get(pair.identity.nodeId);
    await pair.pass(5_000);

    const received: unknown[] = [];
    let end: StreamEnd | null = null;
    const stream = await pair.link.open(
      {
        onCommand: (command) => void received.push(command),
        onEnd(given) {
          end = given;
        },
      },
      new AbortController().signal,
    );
    const [hello] = hellos;
    if (hello) stream.send(hello);
    await settled();
    expect(received).toHaveLength(1);
    expect(pair.sessions.get(pair.identity.nodeId)).toBe(live);
    await pair.pass(doorLimits.confirmMs + 1_000);
    expect(end).toMatchObject({ status: 0 });
    expect(pair.sessions.get(pair.identity.nodeId)).toBe(live);
    expect(await pair.store.node(pair.identity.nodeId)).toEqual(before);
    expect(pair.log.events().filter((event) => event === "node_connected")).toHaveLength(1);

    // The session is not only registered: it works.
    const call = pair.call({ nodeId: pair.identity.nodeId });
    await settled();
    pair.daemon.tool.runs[0]?.end();
    expect(await call.result).toMatchObject({ ok: true });
  });

  test("11 a CONFIRM recorded on the first session confirms nothing", async () => {
    const pair = await strictPair();
    const events: HeardEvent[] = [];
    pair.relay.up = (event, forward) => {
      events.push(event);
      forward(event);
    };
    await pair.connected();
    const live = pair.sessions.get(pair.identity.nodeId);
    const stream = await pair.link.open({ onCommand() {}, onEnd() {} }, new AbortController().signal);
    pair.relay.up = (event, forward) => forward(event);
    for (const event of events.slice(0, 2)) {
      stream.send(event);
      await settled();
    }
    expect(pair.log.find("seal_frame")).toMatchObject({ reason: "authentication" });
    expect(pair.sessions.get(pair.identity.nodeId)).toBe(live);
  });
});

describe("ACCEPT that is not the answer to this Hello", () => {
  test("12 the ACCEPT of an old session, replayed", async () => {
    const stage = daemonStage();
    const first = await stage.begin(false);
    const recorded = stage.rogue.accept();
    stage.rogue.send(sealed(recorded));
    await settled();
    first.stop();
    await first.ended;
    const second = await stage.begin(false);
    stage.rogue.send(sealed(recorded));
    expect(causeOf(await second.ended)).toMatch(/accept_authentication/);
    expect(stage.rogue.events.filter((event) => event.sealed)).toHaveLength(0);
  });

  test("13 signed by the TOKEN key, the root key and a caller's key", async () => {
    const stage = daemonStage();
    const { keys, root } = stage.strict;
    for (const signer of [keys.token, root, keys.callerKey, newKey()]) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept({ signer })));
      expect(causeOf(await session.ended)).toMatch(/accept_authentication/);
    }
  });

  test("14 with an X25519 share of zero, or of small order", async () => {
    const stage = daemonStage();
    for (const share of smallOrderShares) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept({ body: { x25519: Buffer.from(share, "hex") } })));
      expect([share, causeOf(await session.ended)]).toEqual([share, expect.stringMatching(/key_agreement/)]);
    }
  });

  test("with a share, a nonce or a controller id of another length", async () => {
    const stage = daemonStage();
    const bodies: AcceptBody[] = [
      { x25519: new Uint8Array(31) },
      { serverNonce: new Uint8Array(33) },
      { controllerId: new Uint8Array(15) },
    ];
    for (const body of bodies) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept({ body })));
      expect(causeOf(await session.ended)).toMatch(/accept_malformed/);
    }
  });

  test("of another controller, of a version nobody offered", async () => {
    const stage = daemonStage();
    const cases: Array<[AcceptBody, RegExp]> = [
      [{ controllerId: uuidBytes(crypto.randomUUID()) }, /controller_unknown/],
      [{ version: 2 }, /version/],
      [{ version: 0 }, /version/],
    ];
    for (const [body, reason] of cases) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept({ body })));
      expect(causeOf(await session.ended)).toMatch(reason);
    }
  });
});

describe("a Hello that is not the host's", () => {
  test("14 an X25519 share of zero, or of small order", async () => {
    const stage = await controllerStage();
    for (const share of smallOrderShares) {
      await stage.rogue.dial();
      stage.rogue.send(stage.rogue.hello({ body: { x25519: Buffer.from(share, "hex") } }));
      await settled();
      expect([share, stage.rogue.ended]).toEqual([share, expect.objectContaining({ status: 16, refusal: null })]);
      expect(stage.rogue.commands).toHaveLength(0);
    }
  });

  test("a token without its key, a key without its token, and another tenant's token all sound the same", async () => {
    const stage = await controllerStage();
    const { strict, identity } = stage;
    const other = hostIdentity(strict, stage.time(), { nodeKey: identity.nodeKey });
    const stranger = hostIdentity(strict, stage.time(), { nodeId: identity.nodeId, tenantId: "other" });
    const anotherKey = hostIdentity(strict, stage.time(), { nodeId: identity.nodeId });
    const forged = hostIdentity({ ...strict, keys: { ...strict.keys, token: newKey() } }, stage.time(), identity);
    const hellos = [
      { signer: newKey() },
      { signer: strict.keys.token },
      { token: other.nodeToken },
      { token: stranger.nodeToken },
      { token: anotherKey.nodeToken, signer: anotherKey.nodeKey },
      { token: anotherKey.nodeToken },
      { token: forged.nodeToken, signer: newKey() },
      { token: "" },
      { body: { daemonNonce: new Uint8Array(31) } },
      { body: { controllerId: uuidBytes(crypto.randomUUID()) } },
    ];
    const answers = new Set<string>();
    for (const hello of hellos) {
      await stage.rogue.dial();
      stage.rogue.send(stage.rogue.hello(hello));
      await settled();
      answers.add(JSON.stringify([stage.rogue.ended, stage.rogue.commands]));
    }
    expect([...answers]).toEqual([expect.stringContaining('"status":16')]);
    expect(stage.sessions.size).toBe(0);
  });

  test("a token of a key that signs no more: the host's own key is told so, and that it is no revocation", async () => {
    const stage = await controllerStage();
    const { strict, identity } = stage;
    const old = hostIdentity({ ...strict, keys: { ...strict.keys, token: newKey() } }, stage.time(), identity);
    await stage.rogue.dial();
    const hello = stage.rogue.hello({ token: old.nodeToken });
    stage.rogue.send(hello);
    await settled();
    const { reason, signature } = wire.SealRefusal.decode(stage.rogue.ended?.refusal ?? new Uint8Array());
    expect(reason).toBe(GoodbyeReason.GOODBYE_REASON_TOKEN_EXPIRED);
    const said = { nodeId: identity.nodeId, sealHello: hello.hello?.sealHello ?? new Uint8Array(), reason };
    expect(verifyRefusal(strict.keys.command, { ...said, retryAfterMs: 0 }, signature)).toBe(true);
    expect(stage.sessions.size).toBe(0);
  });

  test("an enrollment or a user token is no node token", async () => {
    const stage = await controllerStage();
    const { signJwt } = await import("../src/envelope/jwt.ts");
    const { keys, controllerId } = stage.strict;
    const iat = Math.floor(stage.time() / 1000);
    const shared = { tid: "acme", sub: stage.identity.nodeId, jti: crypto.randomUUID(), iss: controllerId };
    const cnf = { jwk: { kty: "OKP" as const, crv: "Ed25519" as const, x: "A".repeat(43) } };
    const tokens = [
      signJwt("enrollment", { ...shared, exp: iat + 60, nbf: iat, aud: "edge-enrollment", cep: "" }, keys.token),
      signJwt(
        "user",
        { ...shared, iat, exp: iat + 60, aud: "aegis-edge", scp: "default", scopes: [], via: "cli", cnf },
        keys.token,
      ),
    ];
    for (const token of tokens) {
      await stage.rogue.dial();
      stage.rogue.send(stage.rogue.hello({ token }));
      await settled();
      expect(stage.rogue.ended?.status).toBe(16);
    }
  });

  test("a revoked host and an expired token are told so, signed for this Hello", async () => {
    const pair = await strictPair();
    await pair.store.revokeNode(pair.identity.nodeId, pair.time());
    const revoked = await pair.daemon.connect().ended;
    expect(revoked).toMatchObject({ kind: "lost", retryAfterMs: 900_000 });
    expect(causeOf(revoked)).toMatch(/^revoked: /);

    const later = await strictPair();
    await later.clock.advance(31 * 86_400_000);
    expect(causeOf(await later.daemon.connect().ended)).toMatch(/^token_expired: /);
  });
});

describe("a host that changes between Hello and CONFIRM", () => {
  const begun = async () => {
    const stage = await controllerStage();
    await stage.begin(false);
    const goodbye = async () => {
      stage.rogue.send(sealed(stage.rogue.frame("confirm", confirm)));
      await settled();
      const last = stage.rogue.commands.at(-1);
      return { size: stage.sessions.size, reason: last && wire.Goodbye.decode(frameOf(last).body).reason };
    };
    return { stage, goodbye };
  };

  test("is told that it was revoked, and has no session", async () => {
    const { stage, goodbye } = await begun();
    await stage.store.revokeNode(stage.identity.nodeId, stage.time());
    expect(await goodbye()).toEqual({ size: 0, reason: GoodbyeReason.GOODBYE_REASON_REVOKED });
  });

  test("because it was enrolled again with another key, has none with the old one", async () => {
    const { stage, goodbye } = await begun();
    await stage.enroll({ ...stage.identity, nodeKey: newKey() });
    expect(await goodbye()).toEqual({ size: 0, reason: GoodbyeReason.GOODBYE_REASON_REPLACED });
  });
});

describe("a refusal", () => {
  const refusalOf = (
    stage: ReturnType<typeof daemonStage>,
    change: { key?: "command" | "token"; sealHello?: Uint8Array; nodeId?: string },
  ) => {
    const sealHello = change.sealHello ?? stage.rogue.events[0]?.hello?.sealHello ?? new Uint8Array();
    const said = { nodeId: change.nodeId ?? stage.identity.nodeId, sealHello, reason: 4, retryAfterMs: 0 };
    const signature = signRefusal(stage.strict.keys[change.key ?? "command"], said);
    return wire.SealRefusal.encode({ reason: 4, retryAfterMs: toLong(0), signature }).finish();
  };

  test("67 that nobody signed is an error of the network, whatever it says", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    stage.rogue.end({ status: 7, message: "this host was revoked" });
    expect(await session.ended).toEqual({
      kind: "lost",
      cause: expect.objectContaining({ message: "this host was revoked" }),
    });
  });

  test("67 is tried again within a minute, and only what is signed makes the host wait for 15", async () => {
    for (const [signed, most] of [
      [false, 60_000],
      [true, 15 * 60_000],
    ] as const) {
      const stage = daemonStage();
      const stop = new AbortController();
      const delays: number[] = [];
      const supervised = supervise(
        async () => {
          const session = await stage.begin(false);
          const refusal = signed ? { refusal: refusalOf(stage, {}) } : {};
          stage.rogue.end({ status: 7, message: "this host was revoked", ...refusal });
          return await session.ended;
        },
        {
          clock: fakeClock({ auto: true }),
          backoff: { scheduleMs: [1_000, 2_000, 5_000, 15_000, 60_000], random: () => 1 },
          healthyAfterMs: 60_000,
          signal: stop.signal,
          onRetry: ({ delayMs }) => delays.push(delayMs) === 8 && stop.abort(),
        },
      );
      await supervised;
      expect(delays.at(-1)).toBe(most);
    }
  });

  test("52 that brings a newer keyset counts by that one's command key, and not by the former one", async () => {
    for (const isFormer of [true, false]) {
      const stage = daemonStage();
      const { controllerId, root, keys } = stage.strict;
      const command = newKey();
      const newer = signedKeyset({ controllerId, version: 2, root, command, token: keys.token });
      const session = await stage.begin(false);
      const sealHello = stage.rogue.events[0]?.hello?.sealHello ?? new Uint8Array();
      const said = { nodeId: stage.identity.nodeId, sealHello, reason: 4, retryAfterMs: 0 };
      const refusal = wire.SealRefusal.encode({
        ...{ reason: 4, retryAfterMs: toLong(0), keysetChain: [wire.SignedKeySet.decode(newer)] },
        signature: signRefusal(isFormer ? keys.command : command, said),
      }).finish();
      stage.rogue.end({ status: 7, message: "this host was revoked", refusal });
      const { retryAfterMs = 0 } = (await session.ended) as { retryAfterMs?: number };
      expect([isFormer, retryAfterMs, stage.daemon.keyset().version]).toEqual(
        isFormer ? [true, 0, 1] : [false, 15 * 60_000, 2],
      );
    }
  });

  test("by another key, for another Hello or another host, or garbled, is one too", async () => {
    const stage = daemonStage();
    const garbled = Buffer.from("ffffffff", "hex");
    const recorded = await (async () => {
      const session = await stage.begin(false);
      const refusal = refusalOf(stage, {});
      session.stop();
      await session.ended;
      return refusal;
    })();
    const cases = [
      () => refusalOf(stage, { key: "token" }),
      () => refusalOf(stage, { sealHello: new Uint8Array(8) }),
      () => refusalOf(stage, { nodeId: crypto.randomUUID() }),
      () => recorded,
      () => garbled,
    ];
    for (const refusal of cases) {
      const session = await stage.begin(false);
      stage.rogue.end({ status: 7, message: "no", refusal: refusal() });
      expect(await session.ended).toEqual({ kind: "lost", cause: expect.objectContaining({ message: "no" }) });
    }
  });

  test("that the controller signed is believed, and its wait is at most 15 minutes", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    const sealHello = stage.rogue.events[0]?.hello?.sealHello ?? new Uint8Array();
    const retryAfterMs = 86_400_000;
    const said = {
      nodeId: stage.identity.nodeId,
      sealHello,
      reason: GoodbyeReason.GOODBYE_REASON_OVERLOADED,
      retryAfterMs,
    };
    const signature = signRefusal(stage.strict.keys.command, said);
    const refusal = wire.SealRefusal.encode({
      reason: said.reason,
      retryAfterMs: toLong(retryAfterMs),
      signature,
    }).finish();
    stage.rogue.end({ status: 16, message: "busy", refusal });
    expect(await session.ended).toMatchObject({ kind: "lost", retryAfterMs: 900_000 });
  });
});

describe("waiting", () => {
  test("no ACCEPT within 10 s: nothing was executed, and the reason says what such a controller is", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    await stage.clock.advance(handshakeTimeoutMs);
    expect(causeOf(await session.ended)).toMatch(/^controller_not_strict: /);
    expect(stage.rogue.closed).toBe(true);
    expect(stage.clock.sleeping).toBe(0);
  });

  test("a stream that says no Hello ends after 10 s and gives its place back", async () => {
    const stage = await controllerStage();
    await stage.rogue.dial();
    await stage.clock.advance(doorLimits.helloMs);
    await settled();
    expect(stage.rogue.ended).toMatchObject({ status: 4 });
    expect(stage.clock.sleeping).toBe(0);
  });

  test("a Hello without CONFIRM ends after 10 s", async () => {
    const stage = await controllerStage();
    await stage.begin(false);
    await stage.clock.advance(doorLimits.confirmMs);
    await settled();
    expect(stage.rogue.ended).not.toBeNull();
    stage.rogue.send(sealed(stage.rogue.frame("confirm", confirm)));
    await settled();
    expect(stage.sessions.size).toBe(0);
  });

  test("an address has 64 places, whether it has said Hello or not, and each is given back once", async () => {
    const stage = await controllerStage();
    const { doorman } = stage;
    const places = Array.from({ length: doorLimits.perAddress }, () => doorman.enter("192.0.2.7", () => {}));
    expect(places.every((place) => place !== null)).toBe(true);
    expect(doorman.enter("192.0.2.7", () => {})).toBeNull();
    expect(doorman.enter("192.0.2.8", () => {})).not.toBeNull();
    places[0]?.leave();
    places[0]?.leave();
    expect(doorman.enter("192.0.2.7", () => {})).not.toBeNull();
    expect(doorman.enter("192.0.2.7", () => {})).toBeNull();
  });

  test("no more streams than there are files for: a host beyond hears so, the log once a minute, and a place is free again", async () => {
    const { strict, store, sessions, time, clock, log } = await controllerStage();
    const ledger = resultLedger({ store, time, log });
    const doorman = createDoorman({
      ...{ store, keys: strict.keys, sessions, ledger, clock, time, log },
      maxStreams: 2,
    });
    const [place] = [doorman.enter("192.0.2.7", () => {}), doorman.enter("192.0.2.8", () => {})];
    const refusals: string[] = [];
    const knock = () =>
      edgeStream({
        ...{ doorman, address: "192.0.2.9", log },
        transport: {
          ...{ accept() {}, send() {}, end() {} },
          refuse: (status: number, message: string) => void refusals.push(`${status} ${message}`),
        },
      });
    knock();
    knock();
    expect(refusals).toEqual(Array(2).fill(expect.stringMatching(/^8 this controller has as many hosts connected as/)));
    expect(log.lines.filter(({ event }) => event === "streams_full")).toHaveLength(1);
    await clock.advance(60_000);
    knock();
    expect(log.lines.filter(({ event }) => event === "streams_full")).toHaveLength(2);
    place?.leave();
    expect(doorman.enter("192.0.2.9", () => {})).not.toBeNull();
  });

  test("1 024 places in all", async () => {
    const { doorman } = await controllerStage();
    let taken = 0;
    for (let n = 0; doorman.enter(`198.51.100.${n}`, () => {}); n++) taken++;
    expect(taken).toBe(doorLimits.waiting);
  });

  test("a confirmed session holds no place: a whole site behind one address can connect", async () => {
    const stage = await controllerStage();
    const link = memoryLink({ doorman: () => stage.doorman, relay: honestRelay(), log: stage.log });
    const hosts = doorLimits.perAddress + 3;
    for (let n = 0; n < hosts; n++) {
      const identity = hostIdentity(stage.strict, stage.time());
      await stage.enroll(identity);
      const rogue = rogueDaemon(link, stage.strict, identity, stage.time);
      await rogue.dial();
      rogue.send(rogue.hello());
      await settled();
      rogue.send(sealed(rogue.frame("confirm", confirm)));
      await settled();
    }
    expect(stage.sessions.size).toBe(hosts);
  });
});

describe("the keyset in ACCEPT", () => {
  const chained = (stage: ReturnType<typeof daemonStage>, version: number, ...signed: Uint8Array[]) => ({
    body: { keysetVersion: toLong(version), keysetChain: signed.map((one) => wire.SignedKeySet.decode(one)) },
    signer: stage.strict.keys.command,
  });

  test("a newer one is stored before CONFIRM is sent, and its command key is the one that counts", async () => {
    let store: () => void = () => {};
    const stage = daemonStage({ saveKeyset: () => new Promise((resolve) => (store = resolve)) });
    const { controllerId, root, keys } = stage.strict;
    const command = newKey();
    const newer = signedKeyset({ controllerId, version: 2, root, command, token: keys.token });
    const session = await stage.begin(false);
    stage.rogue.send(sealed(stage.rogue.accept({ ...chained(stage, 2, newer), signer: command })));
    await settled();
    expect(stage.rogue.events.filter((event) => event.sealed)).toHaveLength(0);
    store();
    await settled();
    expect(stage.rogue.events.filter((event) => event.sealed)).toHaveLength(1);
    expect(stage.daemon.keyset().version).toBe(2);
    // The old key signs nothing any more.
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke(), { signer: keys.command })));
    expect(causeOf(await session.ended)).toMatch(/authentication/);
  });

  test("a failure to store it ends the session unconfirmed", async () => {
    const stage = daemonStage({ saveKeyset: () => Promise.reject(new Error("disk full")) });
    const { controllerId, root, keys } = stage.strict;
    const newer = signedKeyset({ controllerId, version: 2, root, ...keys });
    const session = await stage.begin(false);
    stage.rogue.send(sealed(stage.rogue.accept(chained(stage, 2, newer))));
    expect(causeOf(await session.ended)).toBe("disk full");
    expect(stage.rogue.events.filter((event) => event.sealed)).toHaveLength(0);
  });

  test("a shutdown while it is stored is not forgotten", async () => {
    let store: () => void = () => {};
    const stage = daemonStage({ saveKeyset: () => new Promise((resolve) => (store = resolve)) });
    const { controllerId, root, keys } = stage.strict;
    const session = await stage.begin(false);
    const newer = signedKeyset({ controllerId, version: 2, root, ...keys });
    stage.rogue.send(sealed(stage.rogue.accept(chained(stage, 2, newer))));
    await settled();
    session.stop();
    store();
    expect(await session.ended).toEqual({ kind: "shutdown" });
  });

  test("none, one that another root signed, other bytes of the same version, or not the one announced: no connection", async () => {
    const stage = daemonStage();
    const { controllerId, root, keys, keyset } = stage.strict;
    const make = (given: object) => signedKeyset({ controllerId, version: 2, root, ...keys, ...given });
    const rooted = newKey();
    const cases: Array<[ReturnType<typeof chained>, RegExp]> = [
      [chained(stage, 1), /keyset_missing/],
      [chained(stage, 2, make({ root: rooted })), /keyset_signature/],
      [chained(stage, 1, make({ version: 1, command: newKey() })), /keyset_equivocation/],
      [chained(stage, 2, keyset.signed), /keyset_missing/],
      [chained(stage, 2, make({ controllerId: crypto.randomUUID() })), /keyset_controller/],
      [chained(stage, 2, make({ root: rooted, formerRoot: root }), keyset.signed), /keyset_rollback/],
    ];
    for (const [accept, reason] of cases) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept(accept)));
      expect(causeOf(await session.ended)).toMatch(reason);
      expect(stage.daemon.keyset().version).toBe(1);
    }
  });
});

test("a daemon behind a change of root catches up, also when the change came right after its own version", async () => {
  const pair = await strictPair();
  const { store, sessions, clock, time, log, strict, identity } = pair;
  const { controllerId, root, keys } = strict;
  const next = newKey();
  const chain = [
    strict.keyset.signed,
    signedKeyset({ controllerId, version: 2, root: next, formerRoot: root, ...keys }),
    signedKeyset({ controllerId, version: 3, root: next, ...keys }),
  ];
  const newest = advance(strict.keyset, chain);
  if (newest.kind === "refused") throw new Error(newest.reason);
  for (const [index, signed] of chain.entries())
    await store.insertKeyset({ version: index + 1, signed, rootKey: index === 0 ? root.raw : next.raw, createdAt: 0 });
  const ledger = resultLedger({ store, time, log });
  const doorman = createDoorman({
    store,
    keys: { ...keys, keyset: newest.keyset },
    sessions,
    ledger,
    clock,
    time,
    log,
  });
  const link = memoryLink({ doorman: () => doorman, relay: honestRelay(), log });
  const daemon = strictDaemon({ link, clock: pair.host, strict, identity });
  daemon.connect();
  await settled();
  await settled();
  expect(daemon.states).toContain("connected");
  expect(daemon.keyset().version).toBe(3);
});

test("more messages than an honest controller sends before CONFIRM end the session instead of making it deaf", async () => {
  let store: () => void = () => {};
  const stage = daemonStage({ saveKeyset: () => new Promise((resolve) => (store = resolve)) });
  const { controllerId, root, keys } = stage.strict;
  const newer = signedKeyset({ controllerId, version: 2, root, ...keys });
  const session = await stage.begin(false);
  const body = { keysetVersion: toLong(2), keysetChain: [wire.SignedKeySet.decode(newer)] };
  stage.rogue.send(sealed(stage.rogue.accept({ body })));
  await settled();
  const ack = wire.Ack.encode({}).finish();
  for (let n = 0; n < 100; n++) stage.rogue.send(sealed(stage.rogue.frame("ack", ack)));
  store();
  expect(causeOf(await session.ended)).toMatch(/more than 64 messages/);
});
