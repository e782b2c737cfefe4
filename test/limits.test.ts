/** Each limit of the one table: as much passes, one more does not, and who is refused reads the figure. */
import { afterAll, describe, expect, test } from "bun:test";
import { randomBytes, randomUUID } from "node:crypto";
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createChallenges } from "../src/controller/challenges.ts";
import { creditBook } from "../src/controller/credit.ts";
import { createEnrollment } from "../src/controller/enrollment.ts";
import { startGrpc } from "../src/controller/grpc.ts";
import { keepHouse } from "../src/controller/run.ts";
import { createTls, loadTls } from "../src/controller/tls.ts";
import { createInvocations } from "../src/daemon/invocations.ts";
import { createOutbox } from "../src/daemon/outbox.ts";
import { progressRing } from "../src/daemon/progress-ring.ts";
import { readInvoke } from "../src/daemon/received.ts";
import { signEnrollProof } from "../src/envelope/enrollment.ts";
import { controllerChannel, daemonChannel } from "../src/envelope/frame.ts";
import { AegisError } from "../src/errors.ts";
import { limits } from "../src/platform/limits.ts";
import { silentLog } from "../src/platform/log.ts";
import { securityContextsSchema } from "../src/policy/context.ts";
import { evaluate } from "../src/policy/evaluate.ts";
import { operatorContext } from "../src/policy/written-contexts.ts";
import { capOutput } from "../src/tools/output-cap.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { toLong } from "../src/wire/whole.ts";
import { fakeClock } from "./support/fake-clock.ts";
import { installation } from "./support/installation.ts";
import { peerChannel } from "./support/peer/grpc.ts";
import { message } from "./support/peer/protobuf.ts";
import { receivedCall, scriptedHost, scriptedTool, settled } from "./support/scripted-host.ts";
import { controllerStage } from "./support/stages.ts";
import { newKey } from "./support/strict-keys.ts";
import { testApi } from "./support/test-api.ts";

type Name = keyof typeof limits;
const tried = new Set<Name>();
/** A test of what happens at the limit of this name. */
const at = (name: Name, says: string, body: (limit: number) => void | Promise<void>) => {
  tried.add(name);
  test(`${name}: ${says}`, () => body(limits[name]));
};

const scratch = mkdtempSync(join(tmpdir(), "aegis-limits-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const messageOf = async (act: () => unknown): Promise<string> => {
  try {
    await act();
    return "nothing was wrong";
  } catch (error) {
    return (error as Error).message;
  }
};

describe("what travels", () => {
  at("messageBytes", "a longer message is refused before it is read", async (limit) => {
    mkdirSync(join(scratch, "keys"));
    await createTls(scratch, "localhost", Date.now());
    const tls = await loadTls(scratch);
    const nobody = () => Promise.reject(new AegisError("internal", "not part of this test"));
    let read = 0;
    const attest = () => {
      read++;
      throw new AegisError("invalid_request", "read");
    };
    const server = await startGrpc({
      ...{ host: "127.0.0.1", port: 0, tls, log: silentLog },
      doorman: { isFull: () => false, enter: () => null, hello: nobody },
      enrollment: { issue: nobody, challenge: nobody, attest },
      rotations: { rotate: nobody },
    });
    const channel = peerChannel(`https://localhost:${server.port}`, tls.caPem ?? "");
    // One field and what stands before it: a tag of one byte and a length of four.
    const send = (bytes: number) =>
      messageOf(() =>
        channel.unary("/aegis.cluster.v1.NodeClusterService/AttestNode", message([3, new Uint8Array(bytes - 5)])),
      );
    expect(await send(limit)).toContain("read");
    expect(await send(limit + 1)).toContain(String(limit));
    expect(read).toBe(1);
    channel.close();
    server.close();
  });

  at("sealedBodyBytes", "a longer body is neither sealed nor opened", (limit) => {
    const nodeId = randomUUID();
    const [nodeKey, commandKey] = [newKey(), newKey()];
    const [sessionId, toController, toDaemon] = [randomBytes(32), randomBytes(32), randomBytes(32)];
    const secrets = { nodeId, sessionId, toController, toDaemon };
    const controller = controllerChannel(secrets, commandKey, nodeKey);
    const daemon = daemonChannel(secrets, nodeKey, commandKey);
    daemon.open(controller.seal("accept", new Uint8Array(), 0));
    controller.open(daemon.seal("confirm", new Uint8Array(), 0));
    expect(daemon.open(controller.seal("command", new Uint8Array(limit), 0)).kind).toBe("frame");
    expect(() => controller.seal("command", new Uint8Array(limit + 1), 0)).toThrow(String(limit));
    const frame = controller.seal("command", new Uint8Array(), 0);
    expect(daemon.open({ ...frame, body: new Uint8Array(limit + 1) })).toEqual({
      kind: "refused",
      reason: "body_too_large",
    });
  });

  at("progressChunkBytes", "more live output is another frame", async (limit) => {
    const nodeKey = newKey();
    const outbox = createOutbox({
      nodeId: randomUUID(),
      nodeKey: () => nodeKey,
      clock: fakeClock(),
      log: silentLog,
    });
    const chunks: number[] = [];
    outbox.attach({
      send(kind, body) {
        if (kind === "progress") chunks.push(aegis.cluster.v1.CommandProgressEvent.decode(body).chunk.length);
        return true;
      },
      drained: () => Promise.resolve(),
    });
    const { signal } = new AbortController();
    const open = { commandId: randomUUID(), commandBody: new Uint8Array(), initialCredit: 4 * limit };
    const delivery = outbox.open(open);
    await delivery.progress("stdout", new Uint8Array(limit), signal);
    await delivery.progress("stdout", new Uint8Array(limit + 1), signal);
    expect(chunks).toEqual([limit, limit, 1]);
  });

  const received = (change: aegis.cluster.v1.InvokeToolCommand.$Properties) => {
    const sealEnvelope = { tenantId: "acme", securityContextName: "default", signature: new Uint8Array(64) };
    const call = { commandId: randomUUID(), securityContextName: "default", sealEnvelope, toolName: "cmd.run" };
    const body = aegis.cluster.v1.InvokeToolCommand.encode({ ...call, ...change }).finish();
    return readInvoke(aegis.cluster.v1.InvokeToolCommand.decode(body), { body, timeMs: 7, receivedAt: 9 });
  };

  at(
    "argsBytes",
    "longer arguments are refused by the controller, and by a host that gets them all the same",
    async (limit) => {
      const argsJson = (bytes: number) => Buffer.from(JSON.stringify({ command: "x".repeat(bytes - 14) }));
      expect(argsJson(limit)).toHaveLength(limit);
      expect(received({ argsJson: argsJson(limit) })).toMatchObject({ kind: "call" });
      const reason = `args_json has ${limit + 1} bytes, the limit is ${limit}`;
      expect(received({ argsJson: argsJson(limit + 1) })).toMatchObject({ kind: "malformed", reason });

      const api = await testApi();
      await api.nodes.add(api.store, "one");
      api.react = (call) => call.answer({});
      const invoke = async (bytes: number) => {
        const args = JSON.parse(argsJson(bytes).toString());
        const response = await api.request("POST", "/v1/edge/fleet/invoke", {
          body: { target: "All", tool: "cmd.run", args },
        });
        return { status: response.status, text: await response.text() };
      };
      expect((await invoke(limit)).status).toBe(200);
      const over = await invoke(limit + 1);
      expect(over.status).toBe(413);
      expect(over.text).toContain(String(limit));
      await api.close();
    },
  );

  at("requestBodyBytes", "a longer request is refused", async (limit) => {
    const api = await testApi();
    const post = async (bytes: number) => {
      const body = `{"name":"${"x".repeat(bytes - 11)}"}`;
      expect(body).toHaveLength(bytes);
      const response = await api.request("POST", "/v1/edge/enrollment-tokens", { body });
      return { status: response.status, text: await response.text() };
    };
    // Read, and found wanting for its name.
    expect((await post(limit)).status).toBe(400);
    const over = await post(limit + 1);
    expect(over.status).toBe(413);
    expect(over.text).toContain(String(limit));
    await api.close();
  });

  at("creditPerCommandBytes", "a host gives no more credit than that", (limit) => {
    const credit = (bytes: number) =>
      received({ initialCredit: toLong(bytes), onNoCredit: aegis.cluster.v1.OnNoCredit.ON_NO_CREDIT_WAIT });
    expect(credit(limit)).toMatchObject({ kind: "call", call: { initialCredit: limit } });
    expect(credit(limit + 1)).toMatchObject({ kind: "malformed", reason: expect.stringContaining(String(limit)) });
  });
});

describe("live output", () => {
  at("firstCreditBytes", "is what a call may send before anybody has taken anything", (limit) => {
    const credit = creditBook().open(limit);
    expect([credit.arrived(limit), credit.arrived(1)]).toEqual([true, false]);
  });

  at("creditPerSessionBytes", "of all calls of a session together is no further ahead", (limit) => {
    const book = creditBook();
    const calls = Array.from({ length: 64 }, () => book.open(limits.firstCreditBytes));
    for (const call of calls) call.taken(0);
    expect(calls.reduce((sum, { granted }) => sum + granted, 0)).toBeLessThanOrEqual(limit);
  });

  at("progressRingBytes", "that nobody takes is kept on the host, the newest of it", (limit) => {
    const ring = progressRing(limits.progressRingBytes);
    expect(ring.add({ pipe: "stdout", offset: 0, bytes: new Uint8Array(limit) })).toBe(0);
    expect(ring.add({ pipe: "stdout", offset: limit, bytes: new Uint8Array(1) })).toBe(1);
    expect(ring.take(1)?.offset).toBe(1);
  });
});

describe("a host", () => {
  at("outputBytes", "keeps that much of a stream, and counts what it left out", (limit) => {
    const [context] = securityContextsSchema.parse([operatorContext()]);
    if (!context) throw new Error("no context");
    const command = { kind: "command", name: "cat", executable: "/bin/cat", args: [] } as const;
    const caller = { sub: "ann", scopes: [] };
    const verdict = evaluate(
      context,
      { tool: "cmd.run", accesses: [command], caller },
      { protectedPaths: [], home: "/h" },
    );
    if (verdict.kind !== "allowed") throw new Error(verdict.reason);
    expect(verdict.maxOutputBytes).toBe(limit);
    for (const [bytes, omitted] of [
      [limit, 0],
      [limit + 1, 1],
    ] as const) {
      const cap = capOutput(verdict.maxOutputBytes);
      cap.add(new Uint8Array(bytes));
      const { head, tail, bytes: counted } = cap.captured();
      expect({ counted, omitted: counted - head.length - tail.length }).toEqual({ counted: bytes, omitted });
    }
  });

  function host(maxConcurrent: number) {
    const clock = fakeClock();
    const { tool, runs } = scriptedTool();
    const nodeKey = newKey();
    const nodeId = randomUUID();
    const outbox = createOutbox({ nodeId, nodeKey: () => nodeKey, clock, log: silentLog });
    const refused: string[] = [];
    outbox.attach({
      send(kind, body) {
        const { result } = aegis.cluster.v1.CommandResultEvent.decode(
          aegis.cluster.v1.SealedResult.decode(body).result,
        );
        if (kind === "result" && !result?.ok) refused.push(`${result?.errorKind}: ${result?.errorMessage}`);
        return true;
      },
      drained: () => Promise.resolve(),
    });
    const scripted = scriptedHost({ clock, tools: [tool], nodeId });
    const invocations = createInvocations({ host: () => scripted, outbox, clock, log: silentLog, maxConcurrent });
    const submit = async (count: number) => {
      for (let n = 0; n < count; n++) invocations.submit(receivedCall(clock));
      await settled();
    };
    return { runs, refused, invocations, submit };
  }

  at("callsPerHost", "runs so many at once; one more waits", async (limit) => {
    const { runs, invocations, submit } = host(limit);
    await submit(limit);
    expect([runs.length, invocations.queued]).toEqual([limit, 0]);
    await submit(1);
    expect([runs.length, invocations.queued]).toEqual([limit, 1]);
  });

  at("queuedCallsPerHost", "lets so many wait; one more is told so", async (limit) => {
    const { invocations, refused, submit } = host(1);
    await submit(1 + limit);
    expect([invocations.queued, refused]).toEqual([limit, []]);
    await submit(1);
    expect(invocations.queued).toBe(limit);
    expect(refused).toEqual([expect.stringMatching(new RegExp(`^overloaded: .* ${limit} wait`))]);
  });
});

describe("a controller", () => {
  at("hostsPerController", "enrolls no more until one is revoked, and spends no token on it", async (limit) => {
    const stage = await controllerStage();
    const { strict, store, clock, time, log } = stage;
    const known = await store.node(stage.identity.nodeId);
    if (!known) throw new Error("no host");
    await store.transaction(async (tx) => {
      for (let n = 1; n < limit - 1; n++)
        await tx.putNode({ ...known, nodeId: randomUUID(), publicKey: randomBytes(32) });
    });
    const enrollment = createEnrollment({
      ...{ store, keys: strict.keys, keyset: strict.keyset, clock, time, log },
      ...{ pins: [`spki-sha256:${"A".repeat(43)}`], publicEndpoint: "controller.example:50056" },
      ...{ challenges: createChallenges(clock), onAdmitted: () => {} },
    });
    const enroll = async (token: string) => {
      const [key, nodeId] = [newKey(), randomUUID()];
      const { challengeNonce: nonce, challengeId } = enrollment.attest(
        {
          nodeId,
          role: aegis.cluster.v1.NodeRole.NODE_ROLE_EDGE,
          publicKey: key.raw,
          capabilities: {},
          sealVersions: [1],
        },
        "192.0.2.9",
      );
      const proof = { nodeId, nodePublicKey: key.raw, enrollmentToken: Buffer.from(token), nonce };
      await enrollment.challenge({
        ...{ challengeId, nodeId, enrollmentToken: token, challengeSignature: key.sign(nonce) },
        enrollProof: signEnrollProof(key, { ...proof, rootKeyId: strict.keyset.rootKey.keyId }),
      });
    };
    const issue = async () =>
      (await enrollment.issue({ tenantId: "acme", issuedTo: "web", ttlMs: 60_000, tags: [], forNode: null })).token;
    await enroll(await issue());
    expect(await store.nodeCount()).toBe(limit);
    const token = await issue();
    expect(await messageOf(() => enroll(token))).toContain(`this controller has as many hosts as it may, ${limit}`);
    await store.revokeNode(known.nodeId, time());
    await enroll(token);
    expect(await store.nodeCount()).toBe(limit);
  });

  at("enrollmentAttemptsPerMinute", "lets one address begin no more", async (limit) => {
    const challenges = createChallenges(fakeClock());
    const begin = () =>
      challenges.open("192.0.2.1", () => ({
        nodeId: randomUUID(),
        key: newKey(),
        nonce: randomBytes(32),
        strict: true,
      }));
    for (let n = 0; n < limit; n++) begin();
    expect(await messageOf(begin)).toContain(`more than ${limit} enrollment attempts a minute`);
  });

  at("enrollmentTokensPerMinute", "issues no more for one tenant", async (limit) => {
    const api = await testApi();
    const issue = async () => {
      const response = await api.request("POST", "/v1/edge/enrollment-tokens", { body: { name: "x" } });
      return { status: response.status, text: await response.text() };
    };
    for (let n = 0; n < limit; n++) expect((await issue()).status).toBe(201);
    const over = await issue();
    expect(over.status).toBe(429);
    expect(over.text).toContain(`more than ${limit} enrollment tokens`);
    await api.clock.advance(60_000);
    expect((await issue()).status).toBe(201);
    await api.close();
  });

  at("targetsInFlight", "asks no more hosts at a time for one run", async (limit) => {
    const api = await testApi();
    await api.store.transaction(async (tx) => {
      for (let n = 0; n <= limit; n++) await api.nodes.add(tx as typeof api.store, `h${n}`);
    });
    const invoke = (concurrency: number) =>
      api.request("POST", "/v1/edge/fleet/invoke", {
        body: { target: "All", tool: "cmd.run", args: {}, policy: { max_concurrency: concurrency } },
      });
    const over = await invoke(limit + 1);
    expect(over.status).toBe(400);
    expect(await over.text()).toContain(String(limit));
    const response = await invoke(limit);
    expect(response.status).toBe(200);
    const finished = response.text();
    await settled();
    expect(api.dispatcher.calls).toHaveLength(limit);
    api.react = (call) => call.answer();
    api.dispatcher.calls[0]?.answer();
    while (api.dispatcher.calls.length === limit) await settled();
    for (const call of api.dispatcher.open) call.answer();
    expect(await finished).toContain(`"ok":${limit + 1}`);
    await api.close();
  });
});

describe("what is remembered", () => {
  at("runRetentionDays", "a run that ended so long ago is there, and a day later it is not", async (limit) => {
    const api = await testApi();
    const row = {
      ...{ runId: "r1", tenantId: "acme", tool: "cmd.run", context: "default", target: '"All"', policy: "{}" },
      ...{ principal: "ann", startedAt: 0, endedAt: api.clock.now(), summary: "{}" },
      outcome: "complete",
      ...{ resolved: [], skipped: [] },
    } as const;
    await api.store.insertRun(row);
    const stop = new AbortController();
    const dayMs = 24 * 60 * 60_000;
    await api.clock.advance(limit * dayMs);
    const house = { store: api.store, time: api.clock.now, clock: api.clock, log: silentLog, runRetentionDays: limit };
    const keeping = keepHouse(house, stop.signal);
    await settled();
    expect(await api.store.run("r1")).not.toBeNull();
    await api.clock.advance(dayMs);
    await settled();
    expect(await api.store.run("r1")).toBeNull();
    stop.abort();
    await keeping;
    await api.close();
  });
});

test("a controller's owner may set other limits, and they hold", async () => {
  const site = await installation();
  try {
    appendFileSync(
      join(site.server.home, ".aegis/controller/controller.yaml"),
      "limits: {hosts: 1, enrollment_tokens_per_minute: 3}\n",
    );
    await site.controller.stop();
    await site.restartController();
    await site.addHost("one", { start: false });
    expect(await messageOf(() => site.addHost("two", { start: false }))).toContain(
      "this controller has as many hosts as it may, 1",
    );
    await site.token("third");
    expect(await messageOf(() => site.token("fourth"))).toContain("more than 3 enrollment tokens");
  } finally {
    await site.close();
  }
}, 30_000);

test("no limit of the table is left out", () => {
  expect([...tried].sort()).toEqual((Object.keys(limits) as Name[]).sort());
});
