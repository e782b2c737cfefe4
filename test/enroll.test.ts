/** Enrollment between a real host directory and a real controller: what is written, when, and what every failure says. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { PlanEntry } from "../src/daemon/enroll-entries.ts";
import { planEnrollment, resolveConflicts } from "../src/daemon/enroll-plan.ts";
import { grpcLink } from "../src/daemon/grpc-link.ts";
import { type ControllerLink, LinkError } from "../src/daemon/link.ts";
import { signEnrollProof, signRekeyProof } from "../src/envelope/enrollment.ts";
import { readUnverified, signJwt } from "../src/envelope/jwt.ts";
import { importSigningKey, newSeed } from "../src/envelope/public-key.ts";
import { systemClock } from "../src/platform/clock.ts";
import { type BareHost, bareHost, type Enrolling, enrolling, failure } from "./support/enrolling.ts";
import { needs } from "./support/needs.ts";

let controller: Enrolling;
let other: Enrolling;
let host: BareHost;

beforeAll(async () => {
  [controller, other] = await Promise.all([enrolling(), enrolling()]);
});
afterAll(async () => {
  await Promise.all([controller.remove(), other.remove()]);
});
beforeEach(() => {
  host = bareHost();
});
afterEach(() => host.remove());

const mode = (name: string) => (statSync(host.file(name)).mode & 0o7777).toString(8);
const claimsOf = (token: string) => {
  const claims = readUnverified("enrollment", token);
  if (!claims) throw new Error("no enrollment token");
  return claims;
};
/** The same token with other claims, signed by nobody the controller knows: what somebody in between could paste. */
const forged = (token: string, change: object) =>
  signJwt("enrollment", { ...claimsOf(token), ...change }, importSigningKey(newSeed()));
const actions = (entries: readonly PlanEntry[]) =>
  Object.fromEntries(entries.map(({ what, action }) => [what, action]));
const link = (): ControllerLink =>
  grpcLink({
    host: "localhost",
    port: controller.port,
    tls: { pins: [], caPem: controller.caPem, serverName: "localhost", clientCertificate: null },
  });
const attests = () => controller.log.lines.length;

describe("a fresh host", () => {
  test("is enrolled, keeps nothing of its token, and connects", async () => {
    const token = await controller.issue({ name: "web-7" });
    const enrolled = await host.enroll(token, { labels: { region: "eu" } });
    expect(enrolled).toMatchObject({ tenantId: "acme", hostName: "web-7", stateDir: host.stateDir, unchanged: false });
    const names = [
      "",
      "node.key",
      "node.key.pub",
      "node.token",
      "controller.keys",
      "aegis-config.yaml",
      "secrets",
      "archive",
    ];
    expect(names.map(mode)).toEqual(["700", "600", "644", "600", "600", "644", "700", "700"]);
    expect(host.text("aegis-config.yaml")).toEndWith("\n");
    expect(Object.values(host.snapshot()).join()).not.toContain(Buffer.from(token).toString("base64").slice(8, 60));
    expect(existsSync(host.file("enrollment.jwt"))).toBe(false);
    const row = await controller.store.node(enrolled.nodeId);
    expect(row).toMatchObject({ tenantId: "acme", hostName: "web-7", seal: "strict", revokedAt: null });
    expect(Buffer.from(row?.publicKey ?? [])).toEqual(readFileSync(host.file("node.key.pub")));

    const daemon = await host.run();
    await daemon.stop();
    expect(daemon.log.events()).toContain("connected");
    expect(JSON.parse(host.text("run/status.json"))).toMatchObject({ state: "stopped", nodeId: enrolled.nodeId });
  });

  test("sees its plan without anything being touched or sent", async () => {
    const before = host.snapshot();
    const heard = attests();
    const plan = await planEnrollment(host.input(await controller.issue()));
    expect(plan).toMatchObject({ endpoint: `https://localhost:${controller.port}`, tenantId: "acme", nodeIdIs: "new" });
    expect(plan.rootFingerprint).toMatch(/^SHA256:[A-Za-z0-9+/]{43}$/);
    expect(plan.pins).toHaveLength(2);
    expect(actions(plan.entries)).toEqual({
      ...{
        directory: "create",
        settings: "create",
        key: "create",
        "controller keys": "create",
        "node token": "create",
      },
    });
    expect(host.snapshot()).toEqual(before);
    expect(controller.log.lines.slice(heard).filter(({ event }) => event === "enrolled")).toEqual([]);
  });

  test("is named by --name, else by its token, else by itself", async () => {
    const named = async (name: string, change = {}) =>
      (await planEnrollment(host.input(forged(await controller.issue(), { sub: name }), change))).hostName;
    expect(await named("web-1", { name: "mine" })).toBe("mine");
    expect(await named("web-1")).toBe("web-1");
    expect(await named("")).toBe("somewhere");
  });

  test("lets tools see the folders its owner chose, by their real paths, and never its identity", async () => {
    const folder = join(host.home, "projects");
    mkdirSync(folder);
    await host.enroll(await controller.issue(), { allow: ["~/projects"], fullAccess: true });
    const config = Bun.YAML.parse(host.text("aegis-config.yaml")) as {
      spec: { security_contexts: { name: string; capabilities: object[] }[] };
    };
    const [byDefault, operator] = config.spec.security_contexts;
    expect([byDefault?.name, operator?.name]).toEqual(["default", "operator"]);
    expect(byDefault?.capabilities).toContainEqual({ tool_pattern: "fs.read", path_allowlist: [realpathSync(folder)] });
    for (const [allow, message] of [
      ["~/.aegis/edge", "holds this host's identity"],
      ["~/nothing", "does not exist"],
      [host.file("node.key"), "is not a folder"],
    ] as const)
      expect(
        (await failure(planEnrollment(host.input(await controller.issue(), { allow: [allow] })))).message,
      ).toContain(message);
  });

  test("is not given comments and defaults with --minimal, and is the same host", async () => {
    await host.enroll(await controller.issue(), { minimal: true });
    expect(host.text("aegis-config.yaml")).not.toMatch(/#|heartbeat|backoff/);
    await (await host.run()).stop();
  });
});

describe("a token that cannot be used leaves the host as it was, and says", () => {
  const refused = async (token: string, change = {}) => {
    const before = host.snapshot();
    const error = await failure(host.enroll(token, change));
    expect(host.snapshot()).toEqual(before);
    return error;
  };

  test("that it is garbled", async () => {
    const token = await controller.issue();
    for (const text of [token.slice(0, 40), `${token.split(".")[0]}.${"!".repeat(20)}.x`, "", "hello"]) {
      const error = await refused(text);
      expect(error).toMatchObject({ code: "usage", hint: expect.stringContaining("aegis edge token issue") });
      expect(error.message).toStartWith("enrollment failed while reading the token: ");
    }
  });

  test("that it is a token for something else", async () => {
    await host.enroll(await controller.issue());
    const nodeToken = host.text("node.token");
    host.remove();
    host = bareHost();
    expect((await refused(nodeToken)).message).toContain("it is a node token, not an enrollment token");
  });

  test("that it expired, by whose clock, and how far the clocks are apart", async () => {
    const issued = await controller.issue();
    const { iss } = claimsOf(issued);
    const key = importSigningKey(readFileSync(join(controllerKeys(controller), "token.key")));
    const exp = Math.floor(Date.now() / 1000) - 120;
    const token = signJwt("enrollment", { ...claimsOf(issued), iss, exp, nbf: exp - 900 }, key);
    const slow = { ...systemClock, now: () => systemClock.now() - 3 * 3_600_000 };
    const error = await failure(host.enroll(token, {}, { clock: slow }));
    expect(error.code).toBe("unauthenticated");
    expect(error.message).toContain("the enrollment token expired at ");
    expect(error.message).toMatch(/\(this host's clock is (?:3h|10\d\d\ds) behind the controller's\)/);
    expect(error.hint).toContain("aegis edge token issue");
  });

  test("that it was redeemed already", async () => {
    const token = await controller.issue();
    await host.enroll(token);
    host.remove();
    host = bareHost();
    const error = await refused(token);
    expect(error.message).toContain("redeeming the token (ChallengeNode): the enrollment token was already redeemed");
    expect(error.message).toContain("this host's clock agrees with the controller's");
  });

  test("that its issuer is another controller", async () => {
    const token = forged(await controller.issue(), {});
    expect((await refused(token)).message).toContain("not one of this controller's");
  });

  test("that nobody answers at its address", async () => {
    const gone = await enrolling();
    const token = await gone.issue();
    await gone.remove();
    const error = await refused(token);
    expect(error).toMatchObject({ code: "unavailable", exitCode: 5 });
    expect(error.message).toStartWith(
      "enrollment failed while connecting to the controller: cannot reach the controller at localhost port ",
    );
  });

  test("58 that the server is not the pinned one, though its authority is trusted", async () => {
    const token = forged(await controller.issue(), { pin: [`spki-sha256:${"A".repeat(43)}`] });
    const ca = join(host.home, "ca.pem");
    writeFileSync(ca, controller.caPem);
    process.env.SSL_CERT_FILE = ca;
    const heard = attests();
    const error = await refused(token);
    delete process.env.SSL_CERT_FILE;
    expect(error).toMatchObject({ code: "unauthenticated", exitCode: 3 });
    expect(error.message).toContain("none of its certificates has the pinned key");
    // Nothing was said to it.
    expect(attests()).toBe(heard);
  });

  test("that a server without a pin is not trusted by itself", async () => {
    const { pin: _pin, ...claims } = claimsOf(await controller.issue());
    const token = signJwt("enrollment", claims, importSigningKey(newSeed()));
    const error = await refused(token);
    expect(error.message).toContain("the server's certificate is not trusted");
    expect(error.hint).toContain("SSL_CERT_FILE");
  });

  needs("linux")("that the state directory cannot be written, before the token is spent", async () => {
    const token = await controller.issue();
    const error = await refused(token, { stateDir: "/proc/aegis/edge" });
    expect(error).toMatchObject({ code: "config_invalid", exitCode: 78 });
    expect(error.message).toMatch(/^enrollment failed while looking at what is here: cannot write to \/proc: /);
    await host.enroll(token);
  });
});

const controllerKeys = (one: Enrolling) => join(one.dataDir, "keys");

describe("an answer that was altered on its way is refused before anything is written", () => {
  type Answer = Awaited<ReturnType<ControllerLink["challenge"]>>;
  const through = async (change: Partial<ControllerLink>, token: string) => {
    const before = host.snapshot();
    const real = link();
    const error = await failure(host.enroll(token, {}, { link: { ...real, ...change } }));
    expect(host.snapshot()).toEqual(before);
    return error;
  };
  const altering = (alter: (answer: Answer) => Partial<Answer>) => ({
    async challenge(request: Parameters<ControllerLink["challenge"]>[0]) {
      const answer = await link().challenge(request);
      return Object.assign(answer, alter(answer));
    },
  });

  test("59 keys of another root", async () => {
    const foreign = bareHost();
    let chain: Answer["keysetChain"] = [];
    const theirs = grpcLink({
      ...{ host: "localhost", port: other.port },
      tls: { pins: [], caPem: other.caPem, serverName: "localhost", clientCertificate: null },
    });
    await foreign.enroll(
      await other.issue(),
      {},
      {
        link: {
          ...theirs,
          challenge: async (request) => {
            const answer = await theirs.challenge(request);
            chain = answer.keysetChain;
            return answer;
          },
        },
      },
    );
    foreign.remove();
    const error = await through(
      altering(() => ({ keysetChain: chain })),
      await controller.issue(),
    );
    expect(error).toMatchObject({ code: "unauthenticated", message: expect.stringContaining("keyset_root") });
  });

  test("60 everything that is not the peer's protocol taken away", async () => {
    const stripped = altering(() => ({ keysetChain: [], enrollGrant: new Uint8Array(), sealMode: 0 }));
    expect((await through(stripped, await controller.issue())).message).toContain("it admitted this host for");
    const mute = altering(() => ({ keysetChain: [], enrollGrant: new Uint8Array() }));
    expect((await through(mute, await controller.issue())).message).toContain("keyset_missing");
    const unasked: Partial<ControllerLink> = {
      attest: ({ sealVersions: _sealVersions, ...rest }) => link().attest(rest),
      challenge: ({ enrollProof: _enrollProof, ...rest }) => link().challenge(rest),
    };
    expect((await through(unasked, await controller.issue())).message).toContain("this client knows none");
  });

  test("a grant, a token or a mode that is not what was granted", async () => {
    const flip = (bytes: Uint8Array) => Uint8Array.from(bytes, (byte, index) => (index === 9 ? byte ^ 1 : byte));
    const cases: Array<[(answer: Answer) => Partial<Answer>, string]> = [
      [({ enrollGrant }) => ({ enrollGrant: flip(enrollGrant) }), "its grant is not signed"],
      [
        ({ nodeSecurityToken }) => ({ nodeSecurityToken: `${nodeSecurityToken.slice(0, -3)}AAA` }),
        "its grant is not signed",
      ],
      [() => ({ sealMode: 2 }), "SEAL_MODE_COMPAT"],
    ];
    for (const [alter, message] of cases)
      expect((await through(altering(alter), await controller.issue())).message).toContain(message);
  });

  test("65 a nonce of another length than 32 bytes is not signed", async () => {
    for (const bytes of [0, 31, 33, 106]) {
      let challenged = false;
      const error = await through(
        {
          attest: async (request) =>
            Object.assign(await link().attest(request), { challengeNonce: new Uint8Array(bytes) }),
          challenge: (request) => {
            challenged = true;
            return link().challenge(request);
          },
        },
        await controller.issue(),
      );
      expect(error.message).toContain(`a nonce of ${bytes} bytes instead of 32; it is not signed`);
      expect(challenged).toBe(false);
    }
  });

  test("66 a challenge is used up by the attempt that failed", async () => {
    const token = await controller.issue();
    let kept: Parameters<ControllerLink["challenge"]>[0] | null = null;
    await through(
      {
        challenge: (request) => {
          kept = request;
          return link().challenge({ ...request, challengeSignature: new Uint8Array(64) });
        },
      },
      token,
    );
    if (!kept) throw new Error("no challenge was made");
    expect((await failure(link().challenge(kept))).message).toContain("the challenge is unknown, used or expired");
    // The token was not spent by it.
    await host.enroll(token);
  });

  test("an answer that is lost says that the token may be spent", async () => {
    const lost = altering(() => {
      throw new LinkError("unavailable", "the connection was cut", { peerTimeMs: null });
    });
    expect((await through(lost, await controller.issue())).hint).toContain("aegis edge ls");
  });
});

describe("a host that is enrolled already", () => {
  let nodeId: string;
  beforeEach(async () => {
    ({ nodeId } = await host.enroll(await controller.issue()));
  });
  const key = () => readFileSync(host.file("node.key")).toString("hex");

  test("is not touched without a word, and says what the words are", async () => {
    const before = host.snapshot();
    const error = await failure(host.enroll(await controller.issue()));
    expect(error).toMatchObject({
      code: "bootstrap_conflict",
      exitCode: 4,
      hint: expect.stringContaining("--keep-existing"),
    });
    expect(error.message).toContain(host.file("node.key"));
    expect(host.snapshot()).toEqual(before);
  });

  test("stays what it is with --keep-existing, which spends no token", async () => {
    const before = host.snapshot();
    const token = await controller.issue();
    expect(await host.enroll(token, { conflicts: "keep" })).toMatchObject({ nodeId, unchanged: true });
    expect(host.snapshot()).toEqual(before);
    const fresh = bareHost();
    await fresh.enroll(token);
    fresh.remove();
  });

  test("keeps key, id and its owner's settings with --keep-existing when something is to be changed", async () => {
    const before = key();
    writeFileSync(
      host.file("aegis-config.yaml"),
      host.text("aegis-config.yaml").replace("max_concurrent_invocations: 16", "max_concurrent_invocations: 3"),
    );
    const mine = host.text("aegis-config.yaml");
    const again = await host.enroll(await controller.issue(), { conflicts: "keep", labels: { rack: "12" } });
    expect(again).toMatchObject({ nodeId, unchanged: false });
    expect(key()).toBe(before);
    expect(host.text("aegis-config.yaml")).toContain("max_concurrent_invocations: 3");
    expect(host.text("aegis-config.yaml")).toContain("rack: '12'");
    expect(host.text("aegis-config.yaml.bak")).toBe(mine);
    expect(mode("aegis-config.yaml.bak")).toBe("600");
    await (await host.run()).stop();
  });

  test("63 becomes another host with --force and a plain token, and is told so", async () => {
    const before = key();
    writeFileSync(host.file("enrollment.jwt"), "left over");
    const plan = await planEnrollment(host.input(await controller.issue(), { conflicts: "force" }));
    expect(plan.nodeIdIs).toBe("new");
    expect(actions(plan.entries)).toMatchObject({ "enrollment token": "remove" });
    expect(plan.notes.join()).toContain(nodeId);
    const again = await host.enroll(await controller.issue(), { conflicts: "force" });
    expect(again.nodeId).not.toBe(nodeId);
    expect(existsSync(host.file("enrollment.jwt"))).toBe(false);
    expect(key()).not.toBe(before);
    const [archived] = [...new Bun.Glob("*.key").scanSync(host.file("archive"))];
    expect(archived).toMatch(/^\d{8}T\d{6}Z\.key$/);
    expect(readFileSync(host.file(`archive/${archived}`)).toString("hex")).toBe(before);
    expect(mode(`archive/${archived}`)).toBe("600");
    expect((await controller.store.node(nodeId))?.revokedAt).toBeNull();
    await (await host.run()).stop();
  });

  test("gets a new key under its old id with a token that is bound to it", async () => {
    const before = key();
    const again = await host.enroll(await controller.issue({ forNode: nodeId }), { conflicts: "force" });
    expect(again.nodeId).toBe(nodeId);
    expect(key()).not.toBe(before);
    await (await host.run()).stop();
  });

  test("gets one too when its key is lost", async () => {
    rmSync(host.file("node.key"));
    const plain = await failure(host.enroll(await controller.issue()));
    expect(plain).toMatchObject({
      code: "conflict",
      hint: expect.stringContaining(`aegis edge token issue --for ${nodeId}`),
    });
    expect(await host.enroll(await controller.issue({ forNode: nodeId }))).toMatchObject({ nodeId });
  });

  test("64 is not taken over by a plain token, with a proof by any key but its own", async () => {
    const thief = bareHost();
    mkdirSync(thief.stateDir, { recursive: true });
    writeFileSync(thief.file("aegis-config.yaml"), host.text("aegis-config.yaml"));
    const claimed = await controller.store.node(nodeId);
    // Without any proof, then with a proof by a third key.
    expect((await failure(thief.enroll(await controller.issue()))).code).toBe("conflict");
    writeFileSync(thief.file("node.key"), newSeed());
    expect(
      (await failure(thief.enroll(await controller.issue(), { conflicts: "keep", labels: { a: "b" } }))).message,
    ).toContain(`host ${nodeId} is enrolled already`);
    // Last with the right old key named, and the proof signed by another.
    const [key, third] = [importSigningKey(newSeed()), importSigningKey(newSeed())];
    const oldPublicKey = readFileSync(host.file("node.key.pub"));
    const token = await controller.issue();
    const crk = Buffer.from(claimsOf(token).crk ?? "", "base64url");
    const asking = { nodeId, role: 4, publicKey: key.raw, capabilities: {}, sealVersions: [1] };
    const { challengeNonce: nonce, challengeId } = await link().attest(asking);
    const enrollmentToken = Buffer.from(token);
    const proof = { nodeId, nodePublicKey: key.raw, enrollmentToken, nonce, rootKeyId: crk };
    const spoofed = link().challenge({
      ...{ challengeId, nodeId, oldPublicKey, enrollmentToken: token, challengeSignature: key.sign(nonce) },
      enrollProof: signEnrollProof(key, proof),
      rekeyProof: signRekeyProof(third, { nodeId, oldPublicKey, newPublicKey: key.raw, nonce }),
    });
    expect((await failure(spoofed)).message).toContain(`host ${nodeId} is enrolled already`);
    expect(await controller.store.node(nodeId)).toEqual(claimed);
    thief.remove();
  });

  test("comes back after a revocation only with a token bound to it and another key", async () => {
    await controller.store.revokeNode(nodeId, Date.now());
    const kept = { conflicts: "keep", labels: { a: "b" } } as const;
    expect((await failure(host.enroll(await controller.issue(), kept))).message).toContain(
      `host ${nodeId} was revoked`,
    );
    expect((await failure(host.enroll(await controller.issue({ forNode: nodeId }), kept))).message).toContain(
      "enroll with a new key",
    );
    expect(await host.enroll(await controller.issue({ forNode: nodeId }), { conflicts: "force" })).toMatchObject({
      nodeId,
    });
    await (await host.run()).stop();
  });

  test("does not move to another controller or host with its key", async () => {
    const error = await failure(host.enroll(await other.issue(), { conflicts: "keep" }));
    expect(error).toMatchObject({
      code: "bootstrap_conflict",
      message: expect.stringContaining("cannot be kept: it trusts another root key"),
    });
    const elsewhere = bareHost();
    const theirs = (await elsewhere.enroll(await controller.issue())).nodeId;
    elsewhere.remove();
    expect(
      (await failure(host.enroll(await controller.issue({ forNode: theirs }), { conflicts: "keep" }))).message,
    ).toContain(`it is host ${nodeId}, and the token is bound to ${theirs}`);
    const moved = await host.enroll(await other.issue(), { conflicts: "force" });
    expect(host.text("aegis-config.yaml")).toContain(`localhost:${other.port}`);
    expect(moved.nodeId).not.toBe(nodeId);
  });

  test("does not fall back to sessions that are not strict, unless it is replaced with a token bound to it", async () => {
    const compat = (change = {}) => controller.issue({ compat: true, forNode: nodeId, ...change });
    const kept = await failure(host.enroll(await compat(), { conflicts: "keep" }));
    expect(kept.message).toContain("its sessions are strict, and the token is for sessions that are not");
    expect(await host.enroll(await compat(), { conflicts: "force" })).toMatchObject({ nodeId });
    expect(existsSync(host.file("controller.keys"))).toBe(false);
    expect(host.text("aegis-config.yaml")).toContain("seal: compat");
  });

  test("whose daemon runs is told to restart it", async () => {
    const daemon = await host.run();
    const plan = await planEnrollment(host.input(await controller.issue(), { conflicts: "force" }));
    expect(plan.notes.join()).toContain(`a daemon (process ${process.pid}) runs here`);
    await daemon.stop();
  });

  needs("root")("that belongs to another user is left to that user", async () => {
    chownSync(host.stateDir, 4711, 4711);
    const error = await failure(host.enroll(await controller.issue(), { conflicts: "force" }));
    expect(error.message).toContain(`${host.stateDir} belongs to user 4711`);
  });

  test("is asked about each conflict, and an abort changes nothing", async () => {
    writeFileSync(host.file("aegis-config.yaml"), "spec: [");
    const before = host.snapshot();
    const plan = await planEnrollment(host.input(await controller.issue(), { conflicts: "ask" }));
    expect(actions(plan.entries)).toMatchObject({ key: "conflict", settings: "conflict" });
    const asked: string[] = [];
    const settled = await resolveConflicts(plan, async ({ what }) => {
      asked.push(what);
      return "overwrite";
    });
    expect(asked).toEqual(["settings", "key"]);
    expect(actions(settled.entries)).toMatchObject({ key: "overwrite", settings: "overwrite" });
    expect((await failure(resolveConflicts(plan, async () => "abort"))).code).toBe("cancelled");
    expect((await failure(resolveConflicts(plan, async () => "keep"))).message).toContain(
      "cannot be kept: it is damaged",
    );
    expect(host.snapshot()).toEqual(before);
  });

  test("whose settings would not be valid keeps its token", async () => {
    writeFileSync(
      host.file("aegis-config.yaml"),
      host.text("aegis-config.yaml").replace("heartbeat_interval_secs: 30", "heartbeat_interval_secs: soon"),
    );
    const token = await controller.issue();
    const error = await failure(host.enroll(token, { conflicts: "keep", labels: { a: "b" } }));
    expect(error).toMatchObject({
      code: "config_invalid",
      message: expect.stringContaining("heartbeat_interval_secs: expected a number"),
    });
    const fresh = bareHost();
    await fresh.enroll(token);
    fresh.remove();
  });
});

describe("settings that are there before the first enrollment", () => {
  test("keep everything of their owner's, wherever they and the key are", async () => {
    const elsewhere = join(host.home, "etc");
    mkdirSync(elsewhere);
    chmodSync(elsewhere, 0o755);
    const configPath = join(elsewhere, "edge.yaml");
    writeFileSync(
      configPath,
      `metadata: { name: mine }
cluster:
  node_keypair_path: id.key
  controller: { endpoint: "https://localhost:${controller.port}", tls: { ca_path: gone.pem } }
  edge: { max_concurrent_invocations: 2 }
security_contexts:
  - { name: narrow, principals: [{ sub: ann }] }
`,
    );
    const enrolled = await host.enroll(await controller.issue(), { configPath });
    expect(enrolled).toMatchObject({ hostName: "mine", configPath });
    expect(statSync(join(elsewhere, "id.key")).mode & 0o777).toBe(0o600);
    expect(statSync(elsewhere).mode & 0o777).toBe(0o755);
    const text = readFileSync(configPath, "utf8");
    expect(text).toContain("narrow");
    expect(text).not.toContain("name: default");
    expect(text).toContain("max_concurrent_invocations: 2");
    await (await host.run({ configPath })).stop();
  });
});
