/** Our controller and a daemon of the other implementation, over real sockets, both ends' bytes made by their own code. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes, randomUUID } from "node:crypto";
import { aegis } from "../src/wire/gen/messages.js";
import { type PeerKey, peerKey } from "./support/peer/envelope.ts";
import { peerChannel, StatusError } from "./support/peer/grpc.ts";
import { Fields, message, readStruct } from "./support/peer/protobuf.ts";
import {
  connectLikeRust,
  enrollLikeRust,
  type Forgery,
  type RustDaemon,
  rotateLikeRust,
} from "./support/peer/rust-daemon.ts";
import { type TestController, testController } from "./support/test-controller.ts";

const UNAUTHENTICATED = 16;
const PERMISSION_DENIED = 7;
const FAILED_PRECONDITION = 9;
const RESOURCE_EXHAUSTED = 8;

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller.remove());

interface Host {
  key: PeerKey;
  nodeId: string;
  token: string;
}

async function issue(on: TestController, change: { compat?: boolean; for_node?: string } = {}): Promise<string> {
  return (await on.api.issueEnrollmentToken({ name: "rusty", compat: true, ...change })).token;
}

async function enroll(on: TestController = controller): Promise<Host> {
  const key = peerKey(randomBytes(32));
  const channel = peerChannel(on.grpcUrl, on.caPem);
  try {
    const enrollmentToken = await issue(on);
    return { key, ...(await enrollLikeRust(channel, { key, nodeId: randomUUID(), enrollmentToken })) };
  } finally {
    channel.close();
  }
}

const open: RustDaemon[] = [];
afterAll(() => {
  for (const daemon of open) daemon.close();
});

async function connect(
  host: Host,
  change: Forgery & { stream?: string; now?: () => number } = {},
): Promise<RustDaemon> {
  const { stream, now, ...forgery } = change;
  const options = { url: controller.grpcUrl, ca: controller.caPem, ...host, ...(now ? { now } : {}) };
  const daemon = await connectLikeRust({ ...options, ...(stream ? { streamId: stream } : {}) }, forgery);
  open.push(daemon);
  return daemon;
}

/** The status of a call that must not succeed. */
async function refusal(attempt: Promise<unknown>): Promise<{ code: number; message: string }> {
  try {
    await attempt;
  } catch (error) {
    if (error instanceof StatusError) return error.status;
    throw error;
  }
  throw new Error("it was let in");
}

async function until(condition: () => unknown): Promise<void> {
  const end = Date.now() + 5_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error("it did not come to that");
    await Bun.sleep(5);
  }
}

/** The id of the first command that a daemon was sent. */
async function commandOf(daemon: RustDaemon): Promise<string> {
  await until(() => daemon.received.length > 0);
  return new Fields(daemon.received[0] ?? Buffer.alloc(0)).sub(1).text(1);
}

const logged = (event: string, fields: Record<string, unknown>) =>
  controller.log.lines.some(
    (line) => line.event === event && Object.entries(fields).every(([name, value]) => line[name] === value),
  );
const statusOf = async ({ nodeId }: Host) => (await controller.api.host(nodeId)).status;

describe("a Rust daemon against our controller", () => {
  test("enrolls with a compat token, connects, runs a program with live output, and beats", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    const { progress, result } = await controller.call(host.nodeId, {
      args: { command: "sh", args: ["-c", "echo one; echo two >&2; echo three"] },
    });
    expect(progress).toMatchObject([
      { stream: "stdout", seq: 0, offset: 0, data: "one\n", skipped_bytes: 0 },
      { stream: "stdout", seq: 1, offset: 4, data: "three\n", skipped_bytes: 0 },
    ]);
    expect(result).toMatchObject({
      ...{ ok: true, outcome: "ok", exit_code: 0, output: "complete", receipt: "peer_id_only", receipt_proof: null },
      stdout: { head: "one\nthree\n", tail: "", bytes: 10, omitted: 0 },
      stderr: { head: "two\n" },
    });
    expect(result.duration_ms).toBeGreaterThan(0);

    const before = await controller.api.host(host.nodeId);
    expect(before).toMatchObject({ status: "connected", seal: "compat", name: "rusty", tenant_id: "acme" });
    expect(before.capabilities).toMatchObject({ os: "linux", labels: { region: "home" } });
    expect(before.tools.map(({ name }) => name)).toEqual(["cmd.run"]);
    await Bun.sleep(2);
    daemon.heartbeat();
    await until(async () => (await controller.api.host(host.nodeId)).last_heartbeat_at !== before.last_heartbeat_at);
  });

  test("is sent base fields only, with the inner envelope that it demands", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    await controller.call(host.nodeId, {
      args: { command: "true", n: [1, { x: null }] },
      policy: { deadline_secs: 2 },
    });
    const [command] = daemon.received.map((bytes) => new Fields(bytes));
    const invoke = command?.sub(1) ?? new Fields(new Uint8Array());
    expect(command?.numbers).toEqual([1]);
    expect(invoke.numbers).toEqual([1, 2, 3, 4, 5, 6]);
    expect(invoke.text(2)).toBe("default");
    expect(invoke.text(4)).toBe("cmd.run");
    expect(readStruct(invoke.sub(5))).toEqual({ command: "true", n: [1, { x: null }] });
    expect(invoke.sub(6).number(1)).toBe(2);
    const inner = invoke.sub(3);
    expect(inner.numbers).toEqual([1, 2, 3]);
    expect(inner.text(1).split(".")).toHaveLength(3);
    expect(inner.text(2)).toBe("acme");
    expect(inner.text(3)).toBe("default");
  });

  test("heeds timeout_secs, because it travels as the deadline", async () => {
    const host = await enroll();
    await connect(host);
    const { result } = await controller.call(host.nodeId, {
      args: { command: "sleep", args: ["30"], timeout_secs: 1 },
    });
    expect(result).toMatchObject({ ok: false, outcome: "timed_out", error_kind: "timeout", receipt: "peer_id_only" });
  });

  test("says why it refuses, and that is what the caller reads", async () => {
    const host = await enroll();
    await connect(host);
    const { result } = await controller.call(host.nodeId, { context: "operator", args: { command: "true" } });
    expect(result).toMatchObject({ ok: false, outcome: "err", error_kind: "security_context_not_found" });
  });

  test("keeps a result in the store that anyone can check against the host's key", async () => {
    const host = await enroll();
    await connect(host);
    const { commandId } = await controller.call(host.nodeId, { args: { command: "echo", args: ["kept"] } });
    const row = await controller.store.command(commandId);
    expect(row).toMatchObject({ receipt: "peer_id_only", outcome: "ok", nodeId: host.nodeId });
    const kept = new Fields(row?.result ?? new Uint8Array());
    const envelope = kept.sub(1);
    // The token is a credential of the host; the database has no use for it.
    expect(envelope.numbers).toEqual([2, 3]);
    expect(envelope.bytes(2).equals(host.key.sign(envelope.bytes(3)))).toBe(true);
    expect(envelope.bytes(3).subarray(-36).toString()).toBe(commandId);
    expect(envelope.bytes(2).equals(row?.receiptSignature ?? Buffer.alloc(0))).toBe(true);
    expect(kept.sub(3).text(3)).toBe("kept\n");
  });

  test("gets response headers before it has said more than Hello", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    await daemon.call.headers;
    expect(daemon.received).toEqual([]);
  });

  test("leaves at once: its calls end as edge_disconnected", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    daemon.mute();
    const call = controller.call(host.nodeId, { args: { command: "true" } });
    await until(() => daemon.received.length > 0);
    daemon.close();
    expect((await call).result).toMatchObject({ outcome: "edge_disconnected", receipt: "missing" });
    expect(await statusOf(host)).toBe("disconnected");
  });

  test("opens a second stream: it takes over, and the first one's end does not take it away", async () => {
    const host = await enroll();
    const first = await connect(host);
    const second = await connect(host);
    expect((await first.call.status).code).toBe(0);
    first.close();
    await Bun.sleep(20);
    const { result } = await controller.call(host.nodeId, { args: { command: "true" } });
    expect(result.ok).toBe(true);
    expect(second.received).toHaveLength(1);
  });

  test("is asked to cancel, and a call ends with what it answers", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    daemon.mute();
    const stop = new AbortController();
    const call = controller.call(host.nodeId, { args: { command: "true" } }, stop.signal);
    await until(() => daemon.received.length === 1);
    stop.abort("caller");
    await until(() => daemon.received.length === 2);
    const cancel = new Fields(daemon.received[1] ?? new Uint8Array());
    const commandId = cancel.sub(2).text(1);
    expect(cancel.sub(2).numbers).toEqual([1]);
    daemon.result(commandId, message([1, false], [6, "cancelled"]));
    expect((await call).result).toMatchObject({ outcome: "cancelled", error_kind: "cancelled" });
  });
});

describe("a Hello is refused, with a status and before any header,", () => {
  const other = peerKey(randomBytes(32));
  const forged: Record<string, Forgery> = {
    "signed by another key": { key: other },
    "about another node": { nodeId: randomUUID() },
    "for another stream": { streamId: randomUUID() },
    "that is really a heartbeat": { kind: 2 },
    "with something inside": { inner: Buffer.of(1) },
    "without a token of ours": { token: "a.b.c" },
  };
  for (const [what, forgery] of Object.entries(forged)) {
    test(what, async () => {
      const host = await enroll();
      expect(await refusal(connect(host, forgery))).toMatchObject({ code: UNAUTHENTICATED });
      expect(await statusOf(host)).toBe("disconnected");
    });
  }

  test("from a clock more than 300 s away; within, it is let in", async () => {
    const host = await enroll();
    for (const ms of [-301_000, 301_000]) {
      const status = await refusal(connect(host, { now: () => Date.now() + ms }));
      expect(status).toMatchObject({ code: UNAUTHENTICATED, message: expect.stringContaining("clock") });
    }
    for (const ms of [-298_000, 298_000]) await connect(host, { now: () => Date.now() + ms });
  });

  test("that was recorded: the session it once opened stays as it is", async () => {
    const host = await enroll();
    const stream = randomUUID();
    const timestampMs = Date.now();
    const genuine = await connect(host, { stream, timestampMs });
    expect(await refusal(connect(host, { stream, timestampMs }))).toMatchObject({ code: UNAUTHENTICATED });
    const { result } = await controller.call(host.nodeId, { args: { command: "true" } });
    expect(result.ok).toBe(true);
    expect(genuine.received).toHaveLength(1);
  });

  test("after 64 streams in ten minutes, which only a recording or a loop needs", async () => {
    const host = await enroll();
    for (let n = 0; n < 64; n++) (await connect(host)).close();
    expect(await refusal(connect(host))).toMatchObject({ code: RESOURCE_EXHAUSTED });
  });

  test("from a host that was revoked", async () => {
    const host = await enroll();
    await controller.store.revokeNode(host.nodeId, Date.now());
    expect(await refusal(connect(host))).toMatchObject({ code: PERMISSION_DENIED });
  });

  test("61 from a host that is enrolled for strict sessions", async () => {
    const host = await enroll();
    const row = await controller.store.node(host.nodeId);
    if (!row) throw new Error("no row");
    await controller.store.putNode({ ...row, seal: "strict" });
    const status = await refusal(connect(host));
    expect(status).toMatchObject({ code: FAILED_PRECONDITION, message: expect.stringContaining("strict") });
    expect(logged("downgrade_refused", { node_id: host.nodeId, level: "error" })).toBe(true);
  });

  test("with a seal_hello, from a host that is enrolled for compat sessions", async () => {
    const host = await enroll();
    const channel = peerChannel(controller.grpcUrl, controller.caPem);
    const call = channel.open("/aegis.cluster.v1.NodeClusterService/ConnectEdge");
    const streamId = randomUUID();
    const sealHello = aegis.cluster.v1.SealHello.encode({
      versions: [1],
      daemonNonce: randomBytes(32),
      x25519: randomBytes(32),
      controllerId: Buffer.from(controller.controllerId.replaceAll("-", ""), "hex"),
    }).finish();
    const id = (uuid: string) => Buffer.from(uuid.replaceAll("-", ""), "hex");
    const digest = new Bun.CryptoHasher("sha256").update(sealHello).digest();
    const signed = Buffer.concat([Buffer.from("AEGIS-SEAL/1\0\x01"), id(host.nodeId), id(streamId), digest]);
    call.send(
      message([
        1,
        message([1, message([1, host.token])], [3, streamId], [1000, sealHello], [1001, host.key.sign(signed)]),
      ]),
    );
    expect(await refusal(call.headers)).toMatchObject({
      code: FAILED_PRECONDITION,
      message: expect.stringContaining("compat"),
    });
    channel.close();
  });

  test("never for a token that is merely old: the peer's daemon does not renew it, and the key proves the host", async () => {
    const host = await enroll();
    const day = 24 * 60 * 60 * 1000;
    // The token lives 30 days; the controller's time moves, and the host's clock with it.
    controller.skew(200 * day);
    try {
      await connect(host, { now: () => Date.now() + 200 * day });
      controller.skew(200 * day);
      const status = await refusal(connect(host, { now: () => Date.now() + 400 * day }));
      expect(status).toMatchObject({ code: UNAUTHENTICATED, message: expect.stringContaining("expired") });
    } finally {
      controller.skew(-400 * day);
    }
  });
});

describe("an event that does not verify ends the stream, and what it says does not count:", () => {
  const other = peerKey(randomBytes(32));
  const forged: Record<string, (host: Host) => Forgery> = {
    "another key": () => ({ key: other }),
    "another node": () => ({ nodeId: randomUUID() }),
    "another stream": () => ({ streamId: randomUUID() }),
    "another kind": () => ({ kind: 1 }),
    "another command": () => ({ inner: Buffer.from(randomUUID()) }),
    "an old time": () => ({ timestampMs: Date.now() - 301_000 }),
    "a time to come": () => ({ timestampMs: Date.now() + 301_000 }),
    "another token": (host) => ({ token: `${host.token}A` }),
    "no token": () => ({ token: "" }),
  };
  const sends: Record<string, (daemon: RustDaemon, commandId: string, forgery: Forgery) => void> = {
    heartbeat: (daemon, _commandId, forgery) => daemon.heartbeat(forgery),
    progress: (daemon, commandId, forgery) => daemon.progress(commandId, 0, "lies\n", forgery),
    result: (daemon, commandId, forgery) => daemon.result(commandId, message([1, true], [3, "lies"]), forgery),
  };
  for (const [event, send] of Object.entries(sends)) {
    test(`a ${event} with ${Object.keys(forged).join(", ")}`, async () => {
      const host = await enroll();
      for (const [what, forgery] of Object.entries(forged)) {
        const daemon = await connect(host);
        daemon.mute();
        const call = controller.call(host.nodeId, { args: { command: "true" } });
        const commandId = await commandOf(daemon);
        const beat = async () => (await controller.store.node(host.nodeId))?.lastHeartbeatAt;
        const before = await beat();
        send(daemon, commandId, forgery(host));
        const { progress, result } = await call;
        expect({ what, progress, outcome: result.outcome }).toEqual({
          what,
          progress: [],
          outcome: "edge_disconnected",
        });
        expect(await beat()).toBe(before as number);
        expect((await daemon.call.status).code).toBe(0);
        daemon.close();
      }
    });
  }

  test("a second Hello, or a frame of a strict session", async () => {
    const host = await enroll();
    const twice = await connect(host);
    twice.hello();
    expect((await twice.call.status).code).toBe(0);
    const mixed = await connect(host);
    mixed.call.send(message([1000, message([1, 0x21], [2, 1])]));
    expect((await mixed.call.status).code).toBe(0);
  });

  test("progress that is sent again", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    daemon.mute();
    const call = controller.call(host.nodeId, { args: { command: "true" } });
    const commandId = await commandOf(daemon);
    daemon.progress(commandId, 0, "once\n");
    daemon.progress(commandId, 0, "once\n");
    const { progress, result } = await call;
    expect(progress).toHaveLength(1);
    expect(result.outcome).toBe("edge_disconnected");
  });
});

describe("a result", () => {
  test("counts once: a second one for the same call changes nothing", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    daemon.mute();
    const call = controller.call(host.nodeId, { args: { command: "true" } });
    const commandId = await commandOf(daemon);
    daemon.result(commandId, message([1, true], [3, "first"]));
    daemon.result(commandId, message([1, true], [3, "second"]));
    expect((await call).result.stdout.head).toBe("first");
    daemon.heartbeat();
    await until(() => logged("result_of_no_call", { command_id: commandId }));
    expect(new Fields((await controller.store.command(commandId))?.result ?? Buffer.alloc(0)).sub(3).text(3)).toBe(
      "first",
    );
  });

  test("of another host's call changes nothing", async () => {
    const [mine, yours] = [await enroll(), await enroll()];
    const [asked, liar] = [await connect(mine), await connect(yours)];
    asked.mute();
    const call = controller.call(mine.nodeId, { args: { command: "true" } });
    const commandId = await commandOf(asked);
    liar.result(commandId, message([1, true], [3, "forged"]));
    await until(() => logged("result_of_no_call", { node_id: yours.nodeId }));
    asked.result(commandId, message([1, true], [3, "mine"]));
    expect((await call).result.stdout.head).toBe("mine");
  });
});

describe("a Rust command line", () => {
  async function rotate(host: Host, to: PeerKey): Promise<Awaited<ReturnType<typeof rotateLikeRust>>> {
    const channel = peerChannel(controller.grpcUrl, controller.caPem);
    try {
      return await rotateLikeRust(channel, { nodeId: host.nodeId, from: host.key, to });
    } finally {
      channel.close();
    }
  }

  test("rotates the key: the stream goes on, the next one uses the new pair, and the old pair is good for a while", async () => {
    const host = await enroll();
    const daemon = await connect(host);
    const key = peerKey(randomBytes(32));
    const { token, overlapUntil } = await rotate(host, key);
    expect(Math.abs(overlapUntil - Date.now() / 1000 - 600)).toBeLessThan(30);
    // The daemon never switches in the middle of a stream.
    expect((await controller.call(host.nodeId, { args: { command: "true" } })).result.ok).toBe(true);
    daemon.heartbeat();
    const old = await connect(host);
    await connect({ ...host, key, token });
    expect((await old.call.status).code).toBe(0);
    expect((await controller.call(host.nodeId, { args: { command: "true" } })).result.ok).toBe(true);

    // Each token is bound to its key, in the overlap too.
    expect(await refusal(connect({ ...host, token }))).toMatchObject({ code: UNAUTHENTICATED });
    expect(await refusal(connect({ ...host, key }))).toMatchObject({ code: UNAUTHENTICATED });
    controller.skew(601_000);
    try {
      const later = { now: () => Date.now() + 601_000 };
      expect(await refusal(connect(host, later))).toMatchObject({ code: UNAUTHENTICATED });
      await connect({ ...host, key, token }, later);
    } finally {
      controller.skew(-601_000);
    }
  });

  test("renews the token alone", async () => {
    const host = await enroll();
    const { token, overlapUntil } = await rotate(host, host.key);
    expect(overlapUntil).toBe(0);
    expect(token).not.toBe(host.token);
    await connect({ ...host, token });
  });

  test("whose key is not the host's gets nothing", async () => {
    const host = await enroll();
    const thief = { ...host, key: peerKey(randomBytes(32)) };
    expect(await refusal(rotate(thief, thief.key))).toMatchObject({ code: UNAUTHENTICATED });
    await connect(host);
  });
});

describe("enrollment without strict sessions", () => {
  const attempt = async (on: TestController, change: Parameters<typeof issue>[1], nodeId: string = randomUUID()) => {
    const channel = peerChannel(on.grpcUrl, on.caPem);
    try {
      const enrollmentToken = await issue(on, change);
      return await enrollLikeRust(channel, { key: peerKey(randomBytes(32)), nodeId, enrollmentToken });
    } finally {
      channel.close();
    }
  };

  test("is refused for a token that says strict", async () => {
    const status = await refusal(attempt(controller, { compat: false }));
    expect(status).toMatchObject({ code: FAILED_PRECONDITION, message: expect.stringContaining("strict") });
  });

  test("takes a known host over only with a token bound to it", async () => {
    const host = await enroll();
    expect((await refusal(attempt(controller, {}, host.nodeId))).message).toContain(host.nodeId);
    expect(await attempt(controller, { for_node: host.nodeId }, host.nodeId)).toMatchObject({ nodeId: host.nodeId });
    // Its old key opens nothing any more.
    expect(await refusal(connect(host))).toMatchObject({ code: UNAUTHENTICATED });
  });

  test("does not exist on a controller started with --require-strict, nor do hosts that were let in before", async () => {
    const lax = await testController();
    const host = await enroll(lax);
    const spare = await issue(lax);
    await lax.close();
    const strict = await testController({ requireStrict: true, again: lax });
    try {
      const unissued: unknown = await issue(strict).catch((error: unknown) => error);
      expect(unissued).toMatchObject({ message: expect.stringContaining("strict sessions only") });
      const channel = peerChannel(strict.grpcUrl, strict.caPem);
      // Not even a challenge is handed out.
      const attest = message([1, randomUUID()], [2, 4], [3, peerKey(randomBytes(32)).publicKey], [4, Buffer.alloc(0)]);
      const challenge = channel.unary("/aegis.cluster.v1.NodeClusterService/AttestNode", attest);
      expect(await refusal(challenge)).toMatchObject({ code: FAILED_PRECONDITION });
      const again = { key: peerKey(randomBytes(32)), nodeId: randomUUID(), enrollmentToken: spare };
      expect(await refusal(enrollLikeRust(channel, again))).toMatchObject({ code: FAILED_PRECONDITION });
      channel.close();
      const status = await refusal(connectLikeRust({ url: strict.grpcUrl, ca: strict.caPem, ...host }));
      expect(status).toMatchObject({ code: FAILED_PRECONDITION, message: expect.stringContaining("strict") });
    } finally {
      await strict.remove();
    }
  });
});
