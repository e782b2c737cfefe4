/** A host changes its key and renews its token: whatever is cut off in between, it goes on with one of the two keys. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { overlapMs } from "../src/controller/rotation.ts";
import { defaultKeepOldMs } from "../src/daemon/credentials.ts";
import { signRotateGrant } from "../src/envelope/rotation.ts";
import { AegisError } from "../src/errors.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { eventually } from "./support/aegis.ts";
import { failure } from "./support/enrolling.ts";
import { frameOf, sealed } from "./support/rogue.ts";
import { type CrashPlan, type RotatingHost, rotatingHost } from "./support/rotating.ts";
import { settled } from "./support/scripted-host.ts";
import { controllerStage, daemonStage } from "./support/stages.ts";
import { causeOf } from "./support/strict-daemon.ts";
import { hostIdentity, newKey, rawText } from "./support/strict-keys.ts";

const dayMs = 24 * 60 * 60_000;
const usual = { keepOldMs: defaultKeepOldMs, force: false };

let host: RotatingHost;
beforeEach(async () => {
  host = await rotatingHost();
});
afterEach(() => host.remove());

const first = () => rawText(host.identity.nodeKey);
const pending = () => existsSync(join(host.dir, "node.key.next"));

/** Of the node's session at the controller. */
const session = () => {
  const live = host.sessions.get(host.identity.nodeId);
  if (!live) throw new Error("no session");
  return live;
};

describe("a rotation while a call goes on", () => {
  test("disturbs neither the call nor the stream, and the result is proved by the new key", async () => {
    const one = await host.start();
    await one.connect();
    const live = session();
    const call = host.call({ nodeId: host.identity.nodeId });
    await eventually("the call runs", () => one.daemon.tool.runs.length === 1);
    const done = await one.credentials.rotate(usual);
    await settled();
    expect(session()).toBe(live);
    one.daemon.tool.runs[0]?.end();
    const result = await call.result;
    expect(result).toMatchObject({ ok: true, receipt: "verified" });
    const row = await host.store.command(call.commandId);
    expect(Buffer.from(row?.receiptKeyId ?? [])).toEqual(Buffer.from(one.credentials.current.nodeKey.keyId));
    expect(done).toMatchObject({ resumed: false });
    expect(host.keyOnDisk()).toBe(await host.keyAtController());
    expect(host.keyOnDisk()).not.toBe(first());
    expect(pending()).toBe(false);
  });

  test("the stream outlives the overlap, because it has shown the new key; and the next one is opened with it", async () => {
    const one = await host.start();
    const { ended } = await one.connect();
    const live = session();
    await one.credentials.rotate(usual);
    await settled();
    await host.pass(overlapMs + 60_000);
    expect(session()).toBe(live);
    host.sessions.end(host.identity.nodeId, aegis.cluster.v1.GoodbyeReason.GOODBYE_REASON_REBALANCE, "moved");
    await ended;
    expect((await one.connect()).connected).toBe(true);
  });

  test("a stream that does not show the new key ends with the overlap: it may be somebody else's", async () => {
    const one = await host.start();
    const { ended } = await one.connect();
    // The host itself, on another process of it, where this stream's end knows nothing of the change.
    const other = await host.start();
    await other.credentials.rotate(usual);
    await host.pass(overlapMs + 60_000);
    expect(causeOf(await ended)).toMatch(/the key that opened this session was replaced/);
  });

  test("the old key stays in the archive for as long as the owner wants, and no longer", async () => {
    const { credentials } = await host.start();
    const stop = new AbortController();
    await credentials.rotate({ keepOldMs: 2 * 3_600_000, force: false });
    expect(host.archived()).toEqual([
      expect.stringMatching(/^\d{8}T\d{6}Z\.key$/),
      expect.stringMatching(/^\d{8}T\d{6}Z\.until$/),
    ]);
    const kept = credentials.keepArchive(stop.signal);
    const anHour = async () => {
      await eventually("it looked", () => host.host.sleeping === 1);
      await host.host.advance(3_600_000);
    };
    await anHour();
    await anHour();
    await eventually("it looked", () => host.host.sleeping === 1);
    expect(host.archived()).toHaveLength(2);
    await anHour();
    await eventually("it is gone", () => host.archived().length === 0);
    stop.abort();
    await kept;
    await credentials.rotate({ keepOldMs: 0, force: false });
    expect(host.archived()).toEqual([]);
  });
});

describe("53 an answer that the controller did not give", () => {
  const altered: [what: string, alter: (answer: RotatingHost["answer"]) => void][] = [
    [
      "without a grant",
      (answer) => {
        answer.alter = (given) => ({ ...given, rotateGrant: new Uint8Array() });
      },
    ],
    [
      "with a grant of the token key",
      (answer) => {
        answer.alter = (given) => ({
          ...given,
          rotateGrant: signRotateGrant(host.strict.keys.token, {
            ...{ nodeId: host.identity.nodeId, rotation: new Uint8Array(), overlapUntilMs: 0 },
            nodeToken: Buffer.from(given.nodeSecurityToken),
          }),
        });
      },
    ],
    [
      "with another token than was granted",
      (answer) => {
        answer.alter = (given) => ({ ...given, nodeSecurityToken: host.identity.nodeToken });
      },
    ],
    [
      "with another end of the overlap",
      (answer) => {
        answer.alter = (given) => ({ ...given, overlapUntilMs: (given.overlapUntilMs ?? 0) + 1 });
      },
    ],
  ];
  for (const [what, alter] of altered)
    test(`53 ${what}: the old key stays in use, and the change is finished once the answer is true`, async () => {
      alter(host.answer);
      const one = await host.start();
      await one.connect();
      const before = one.credentials.current;
      expect(await failure(one.credentials.rotate(usual))).toMatchObject({
        message: expect.stringContaining("did not come unchanged"),
        hint: expect.stringContaining("the old key is in use"),
      });
      expect(one.credentials.current).toBe(before);
      expect(host.keyOnDisk()).toBe(first());
      host.answer.alter = (given) => given;
      expect(await one.credentials.rotate(usual)).toMatchObject({ resumed: true });
      expect(host.keyOnDisk()).toBe(await host.keyAtController());
    });

  test("53 a refusal that nobody signed does not make the host forget the key it was changing to", async () => {
    host.answer.alter = () => {
      throw new AegisError("conflict", "this key belongs to another host");
    };
    const one = await host.start();
    await one.connect();
    await failure(one.credentials.rotate(usual));
    expect(pending()).toBe(true);
  });

  for (const [what, message, claims] of [
    ["another host", /its node token is for host [0-9a-f-]+, not for [0-9a-f-]+$/, { sub: crypto.randomUUID() }],
    ["another tenant", /its node token is for tenant other, not for \S+$/, { tid: "other" }],
    [
      "another key",
      /its node token is for another key$/,
      { cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: rawText(newKey()) } } },
    ],
  ] as const)
    test(`53 a token for ${what}, granted by the controller itself, is not taken`, async () => {
      const one = await host.start();
      await one.connect();
      const { nodeId } = host.identity;
      const wrong = hostIdentity(host.strict, host.clock.now(), { ...host.identity, claims });
      let rotation = new Uint8Array();
      const up = host.rotations.rotate;
      host.rotations.rotate = async (request) => {
        rotation = Uint8Array.from(request.currentEnvelope?.payload ?? []);
        return await up(request);
      };
      host.answer.alter = (given) => ({
        ...given,
        nodeSecurityToken: wrong.nodeToken,
        rotateGrant: signRotateGrant(host.strict.keys.command, {
          ...{ nodeId, rotation, nodeToken: Buffer.from(wrong.nodeToken), overlapUntilMs: given.overlapUntilMs ?? 0 },
        }),
      });
      expect((await failure(one.credentials.refresh({ force: true }))).message).toMatch(message);
    });
});

describe("54 a request that was answered before", () => {
  const recorded = async (act: (one: Awaited<ReturnType<RotatingHost["start"]>>) => Promise<unknown>) => {
    const heard: aegis.cluster.v1.RotateEdgeKeyRequest.$Properties[] = [];
    const real = host.rotations.rotate;
    host.rotations.rotate = async (request) => {
      heard.push(request);
      return await real(request);
    };
    const one = await host.start();
    await one.connect();
    await act(one);
    const [request] = heard;
    if (!request) throw new Error("nothing was asked");
    const before = await host.store.node(host.identity.nodeId);
    await failure(real(request));
    expect(await host.store.node(host.identity.nodeId)).toEqual(before);
    return one;
  };

  test("54 a rotation, replayed: refused, and nothing changes", async () => {
    const one = await recorded((host) => host.credentials.rotate(usual));
    expect(await host.keyAtController()).toBe(rawText(one.credentials.current.nodeKey));
  });

  test("54 a refresh with the same key, replayed: refused, and the token stays", async () => {
    await recorded((host) => host.credentials.refresh({ force: true }));
  });
});

describe("55 a crash at every step leaves a host that comes back by itself", () => {
  const whole: CrashPlan = { at: 0, when: "after", steps: [] };

  /** Crashes one process where the plan says; answers whether it got that far. */
  async function crashed(plan: CrashPlan): Promise<boolean> {
    const one = await host.start(plan);
    const { stop, ended } = await one.connect();
    await one.credentials.rotate(usual).catch(() => {});
    stop();
    await ended;
    await settled();
    return plan.steps.length >= plan.at;
  }

  test("55 these are the steps", async () => {
    await crashed(whole);
    expect(whole.steps).toEqual(["drawNext", "ask", "promote"]);
  });

  for (const awayMs of [0, overlapMs / 2, overlapMs + 60_000, 40 * dayMs])
    for (const when of ["before", "after"] as const)
      for (const at of [1, 2, 3])
        test(`55 ${when} step ${at}, and away for ${awayMs / 60_000} min`, async () => {
          expect(await crashed({ at, when, steps: [] })).toBe(true);
          await host.pass(Math.min(awayMs, overlapMs + 60_000));
          if (awayMs > overlapMs) await host.host.advance(awayMs).then(() => host.clock.advance(awayMs));
          const two = await host.start();
          const session = await two.connect();
          expect(session.connected).toBe(true);
          expect(pending()).toBe(false);
          expect(host.keyOnDisk()).toBe(await host.keyAtController());
          expect(rawText(two.credentials.current.nodeKey)).toBe(host.keyOnDisk());
          // Not only connected: it can change its key again, and call after call is proved.
          const call = host.call({ nodeId: host.identity.nodeId });
          await eventually("the call runs", () => two.daemon.tool.runs.length === 1);
          two.daemon.tool.runs[0]?.end();
          expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });
          await two.credentials.rotate(usual);
          expect(host.keyOnDisk()).toBe(await host.keyAtController());
          // Whatever happened, no key is lost: each is in use, or in the archive.
          expect(host.archived().filter((name) => name.endsWith(".key")).length).toBeGreaterThanOrEqual(1);
        });

  test("55 a second crash, in the recovery from the first", async () => {
    for (const at of [1, 2])
      for (const when of ["before", "after"] as const) {
        const again = await rotatingHost();
        const begun = await again.start({ at: 2, when: "after", steps: [] });
        const { stop } = await begun.connect();
        await begun.credentials.rotate(usual).catch(() => {});
        stop();
        await again.pass(overlapMs + 60_000);
        const second = await again.start({ at, when, steps: [] });
        await second.connect().catch(() => {});
        const third = await again.start();
        expect((await third.connect()).connected).toBe(true);
        expect(again.keyOnDisk()).toBe(await again.keyAtController());
        again.remove();
      }
  });

  test("55 a refresh that is cut off before or after its answer leaves a token that works", async () => {
    for (const [at, when] of [
      [1, "before"],
      [1, "after"],
      [2, "before"],
      [2, "after"],
    ] as const) {
      const one = await host.start({ at, when, steps: [] });
      const { stop, ended } = await one.connect();
      await one.credentials.refresh({ force: true }).catch(() => {});
      stop();
      await ended;
      const two = await host.start();
      const session = await two.connect();
      expect(session.connected).toBe(true);
      session.stop();
      await session.ended;
    }
  });
});

describe("56 a new key that another host has", () => {
  test("56 is refused by the controller; the host goes on with its own, and says how to draw another", async () => {
    const one = await host.start();
    await one.connect();
    await one.credentials.rotate(usual).catch(() => {});
    const other = hostIdentity(host.strict, host.clock.now());
    // The key that this host is about to ask for becomes another host's in between.
    const real = host.rotations.rotate;
    let taken = false;
    host.rotations.rotate = async (request) => {
      if (!taken) {
        taken = true;
        await host.store.ensureTenant("acme", 0);
        await host.enroll(other, { publicKey: request.newPublicKey ?? new Uint8Array() });
      }
      return await real(request);
    };
    const before = host.keyOnDisk();
    expect(await failure(one.credentials.rotate(usual))).toMatchObject({
      code: "conflict",
      message: expect.stringContaining("belongs, or belonged, to a host"),
    });
    expect(host.keyOnDisk()).toBe(before);
    expect(await host.keyAtController()).toBe(before);
    // Trying again cannot help, and does not draw a new key by itself: the other might be the one that counts.
    expect(await failure(one.credentials.rotate(usual))).toMatchObject({ code: "conflict" });
    expect(await one.credentials.rotate({ ...usual, force: true })).toMatchObject({ resumed: false });
    expect(host.keyOnDisk()).toBe(await host.keyAtController());
    expect(pending()).toBe(false);
  });
});

describe("57 a token that has expired", () => {
  const expiry = async () => (await host.store.node(host.identity.nodeId))?.tokenExpiresAt ?? 0;
  const sleepUntil = async (ms: number) => {
    // Both machines at once, in one step: neither process runs meanwhile.
    await host.clock.advance(ms - host.clock.now());
    await host.host.advance(ms - host.host.now());
  };

  test("57 on day 365 after its end: the key brings a new one over the same connection, and the session begins", async () => {
    await sleepUntil((await expiry()) + 365 * dayMs - 1_000);
    const one = await host.start();
    const { connected } = await one.connect();
    expect(connected).toBe(true);
    expect(one.daemon.log.events()).toContain("node_token_renewed");
    expect(await expiry()).toBeGreaterThan(host.clock.now());
  });

  test("57 on day 366: refused, and the host says what to do", async () => {
    await sleepUntil((await expiry()) + 365 * dayMs + 1_000);
    const one = await host.start();
    const { connected, ended } = await one.connect();
    expect(connected).toBe(false);
    expect(causeOf(await ended)).toMatch(
      /^token_expired: .*; a new token was refused: the node token expired more than a year ago; enroll the host again$/,
    );
  });

  test("57 no clock of the host has a say in it: ten years ahead or behind, the token is renewed when the controller says so", async () => {
    for (const years of [10, -10]) {
      const one = await rotatingHost();
      one.host.step(years * 365 * dayMs);
      const daemon = await one.start();
      expect((await daemon.connect()).connected).toBe(true);
      expect(daemon.daemon.log.events()).not.toContain("node_token_renewed");
      one.remove();
    }
  });

  test("a refusal that nobody signed costs no more than one new token an hour, and no long wait", async () => {
    host.doorman.hello = async () => ({
      ...{ kind: "refused", status: 16, message: "the node token is good no more", refusal: null },
    });
    const one = await host.start();
    const renewed = () => one.daemon.log.events().filter((event) => event === "node_token_renewed").length;
    for (const expected of [1, 1, 2]) {
      const { ended } = await one.connect();
      const end = await ended;
      expect(causeOf(end)).toBe("the node token is good no more");
      expect(end.kind === "lost" ? (end.retryAfterMs ?? 0) : -1).toBe(0);
      expect(renewed()).toBe(expected);
      await host.pass(31 * 60_000);
    }
  });

  test("a token whose key the controller revoked is replaced, by the host's own key", async () => {
    const one = await host.start();
    // As after `controller keys revoke token`: what that key signed counts no more.
    const { keys } = host.strict;
    const tokenKeys = new Map([...keys.keyset.tokenKeys].filter(([kid]) => kid !== keys.token.kid));
    const next = newKey();
    Object.assign(keys, { token: next, keyset: { ...keys.keyset, tokenKeys: tokenKeys.set(next.kid, next) } });
    Object.assign(host.strict.keyset, { tokenKeys });
    expect((await one.connect()).connected).toBe(true);
    expect(one.daemon.log.events()).toContain("node_token_renewed");
  });
});

describe("a token is renewed before it ends", () => {
  const renewals = (one: Awaited<ReturnType<RotatingHost["start"]>>) =>
    one.daemon.log.events().filter((event) => event === "node_token_renewed").length;

  test("at half its life, on the session that lives", async () => {
    const short = await rotatingHost({ tokenLifeMs: 2 * 3_600_000 });
    const one = await short.start();
    await one.connect();
    await short.pass(59 * 60_000);
    expect(renewals(one)).toBe(0);
    const live = short.sessions.get(short.identity.nodeId);
    await short.pass(2 * 60_000);
    await eventually("renewed", () => renewals(one) === 1);
    expect(short.sessions.get(short.identity.nodeId)).toBe(live as never);
    // The next one is good for 30 days.
    await short.pass(2 * 3_600_000);
    expect(renewals(one)).toBe(1);
    short.remove();
  });

  test("at once when the controller says that it must be", async () => {
    await host.clock.advance(16 * dayMs);
    await host.host.advance(16 * dayMs);
    const one = await host.start();
    await one.connect();
    await eventually("renewed", () => renewals(one) === 1);
  });

  test("when the controller says so, though by this host's reading it is new", async () => {
    const one = await host.start();
    const over = new AbortController();
    const nowMs = () => host.clock.now();
    const idle = one.credentials.keepToken({ mustRefresh: false, nowMs, signal: over.signal });
    await settled();
    expect(renewals(one)).toBe(0);
    const told = one.credentials.keepToken({ mustRefresh: true, nowMs, signal: over.signal });
    await eventually("renewed", () => renewals(one) === 1);
    over.abort();
    await Promise.all([idle, told]);
  });

  test("and its word reaches who renews, from the token's half life on to the host that hears ACCEPT", async () => {
    const heard: boolean[] = [];
    const keepToken = async ({ mustRefresh }: { mustRefresh: boolean }) => void heard.push(mustRefresh);
    const stage = daemonStage({ session: () => ({ keepToken }) });
    for (const mustRefresh of [true, false]) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept({ body: { mustRefresh } })));
      await settled();
      session.stop();
      await session.ended;
    }
    expect(heard).toEqual([true, false]);

    const { rogue, clock, identity } = await controllerStage();
    const { iat, exp } = JSON.parse(Buffer.from(identity.nodeToken.split(".")[1] ?? "", "base64url").toString());
    const said = async () => {
      await rogue.dial();
      rogue.send(rogue.hello());
      await settled();
      const [command] = rogue.commands;
      return command && aegis.cluster.v1.SealAccept.decode(frameOf(command).body).mustRefresh;
    };
    await clock.advance(((iat + exp) / 2) * 1000 - clock.now() - 1_000);
    expect(await said()).toBe(false);
    await clock.advance(2_000);
    expect(await said()).toBe(true);
  });

  test("a renewal that fails is tried again, ten minutes later, and costs no session", async () => {
    let fails = 2;
    host.answer.alter = (given) => {
      if (fails-- > 0) throw new Error("database is locked");
      return given;
    };
    await host.clock.advance(16 * dayMs);
    await host.host.advance(16 * dayMs);
    const one = await host.start();
    await one.connect();
    await eventually("tried", () => one.daemon.log.events().includes("node_token_not_renewed"));
    expect(renewals(one)).toBe(0);
    await host.pass(9 * 60_000);
    expect(fails).toBe(1);
    // The answer comes over a real connection, for which a busy machine needs time of its own.
    for (let minute = 0; minute < 300 && renewals(one) === 0; minute++) {
      await host.pass(60_000);
      await Bun.sleep(10);
    }
    expect(renewals(one)).toBe(1);
  });

  test("a token from the last hour is left alone unless it is forced", async () => {
    const one = await host.start();
    await one.connect();
    expect(await one.credentials.refresh({ force: false })).toMatchObject({ renewed: false });
    expect(await one.credentials.refresh({ force: true })).toMatchObject({ renewed: true });
    await host.pass(61 * 60_000);
    expect(await one.credentials.refresh({ force: false })).toMatchObject({ renewed: true });
  });
});
