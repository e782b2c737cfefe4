/**
 * A daemon that behaves as the Rust one does: enrolls without proofs of ours, waits for response headers before anything
 * else, takes one command at a time, checks the inner envelope as it does and no more, and looks at no field above 999.
 */
import { spawn } from "node:child_process";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { envelope, kinds, type PeerKey, progressInner } from "./envelope.ts";
import { type PeerCall, type PeerChannel, peerChannel } from "./grpc.ts";
import { Fields, message, readStruct } from "./protobuf.ts";

const service = "/aegis.cluster.v1.NodeClusterService";

export interface Enrolled {
  nodeId: string;
  token: string;
}

/** AttestNode and ChallengeNode as the Rust CLI sends them. Rejects with a StatusError. */
export async function enrollLikeRust(
  channel: PeerChannel,
  { key, nodeId, enrollmentToken }: { key: PeerKey; nodeId: string; enrollmentToken: string },
): Promise<Enrolled> {
  const attest = message([1, nodeId], [2, 4], [3, key.publicKey], [4, Buffer.alloc(0)]);
  const challenge = new Fields(await channel.unary(`${service}/AttestNode`, attest));
  const nonce = challenge.bytes(1);
  const answer = message([1, challenge.text(2)], [2, nodeId], [3, key.sign(nonce)], [4, enrollmentToken]);
  const admitted = new Fields(await channel.unary(`${service}/ChallengeNode`, answer));
  const token = admitted.text(1);
  const [, claims = "", ...rest] = token.split(".");
  if (rest.length !== 1) throw new Error(`the node token has no three parts: ${token}`);
  const { sub } = JSON.parse(Buffer.from(claims, "base64url").toString("utf8")) as { sub: string };
  return { nodeId: sub, token };
}

export interface RustDaemonOptions {
  url: string;
  ca: string;
  key: PeerKey;
  nodeId: string;
  token: string;
  /** Its wall clock. */
  now?: () => number;
  streamId?: string;
}

export interface RustDaemon {
  readonly streamId: string;
  /** Commands as they came, serialised. */
  readonly received: Buffer[];
  readonly call: PeerCall;
  heartbeat(change?: Forgery): void;
  progress(commandId: string, sequence: number, chunk: string, change?: Forgery): void;
  result(commandId: string, result: Uint8Array, change?: Forgery): void;
  hello(): void;
  /** Stops reacting to commands; they are still received. */
  mute(): void;
  close(): void;
}

/** What a message may have wrong with it. */
export interface Forgery {
  kind?: number;
  nodeId?: string;
  streamId?: string;
  inner?: Uint8Array;
  timestampMs?: number;
  token?: string;
  key?: PeerKey;
}

/** Resolves when response headers came, and rejects with the StatusError of a refusal. */
export async function connectLikeRust(options: RustDaemonOptions, forgery: Forgery = {}): Promise<RustDaemon> {
  const { key, nodeId, token, now = Date.now, streamId = randomUUID() } = options;
  const channel = peerChannel(options.url, options.ca);
  const call = channel.open(`${service}/ConnectEdge`);
  const received: Buffer[] = [];
  let muted = false;

  const signed = (kind: number, inner: Uint8Array, change: Forgery = {}) =>
    envelope(change.key ?? key, change.token ?? token, {
      kind: change.kind ?? kind,
      timestampMs: change.timestampMs ?? now(),
      nodeId: change.nodeId ?? nodeId,
      streamId: change.streamId ?? streamId,
      inner: change.inner ?? inner,
    });
  const capabilities = message(
    [1, "linux"],
    [2, "x86_64"],
    [3, "shell"],
    [4, "/"],
    [5, message([1, "region"], [2, "home"])],
  );
  const hello = (change: Forgery = {}) =>
    call.send(
      message([1, message([1, signed(kinds.hello, Buffer.alloc(0), change)], [2, capabilities], [3, streamId])]),
    );

  const daemon: RustDaemon = {
    streamId,
    received,
    call,
    hello,
    heartbeat: (change) =>
      call.send(message([2, message([1, signed(kinds.heartbeat, Buffer.alloc(0), change)], [2, 0])])),
    progress(commandId, sequence, chunk, change) {
      const data = Buffer.from(chunk);
      const inner = progressInner(commandId, sequence, false, data);
      const fields = message(
        [1, signed(kinds.progress, inner, change)],
        [2, commandId],
        [3, data],
        [4, sequence],
        [5, false],
      );
      call.send(message([4, fields]));
    },
    result(commandId, result, change) {
      const fields = message([1, signed(kinds.result, Buffer.from(commandId), change)], [2, commandId], [3, result]);
      call.send(message([3, fields]));
    },
    mute() {
      muted = true;
    },
    close() {
      call.cancel();
      channel.close();
    },
  };

  hello(forgery);
  try {
    await call.headers;
  } catch (error) {
    channel.close();
    throw error;
  }
  void (async () => {
    for await (const command of call.messages) {
      received.push(command);
      if (!muted) await obey(new Fields(command), daemon);
    }
  })();
  return daemon;
}

const failure = (kind: string, text: string) => message([1, false], [2, 0], [6, kind], [7, text]);

/** One command at a time: nothing else is read while a tool runs. */
async function obey(command: Fields, daemon: RustDaemon): Promise<void> {
  if (command.has(2)) {
    const id = command.sub(2).text(1);
    return daemon.result(id, failure("cancelled", "cancelled"));
  }
  if (!command.has(1)) return;
  const invoke = command.sub(1);
  const id = invoke.text(1);
  const context = invoke.text(2);
  const refusal = refusedEnvelope(invoke, context);
  if (refusal) return daemon.result(id, failure("envelope_invalid", refusal));
  if (context !== "default")
    return daemon.result(id, failure("security_context_not_found", `no security context ${context}`));
  if (invoke.text(4) !== "cmd.run") return daemon.result(id, failure("tool_not_found", invoke.text(4)));
  const args = invoke.has(5) ? readStruct(invoke.sub(5)) : {};
  if (typeof args.command !== "string") return daemon.result(id, failure("policy_violation", "MissingArgument"));
  const seconds = invoke.has(6) ? invoke.sub(6).number(1) : 0;
  const limitMs = Math.min(seconds > 0 ? seconds : 600, 600) * 1000;
  daemon.result(
    id,
    await run(args.command, Array.isArray(args.args) ? args.args.map(String) : [], limitMs, daemon, id),
  );
}

function refusedEnvelope(invoke: Fields, context: string): string | null {
  if (!invoke.has(3)) return "seal_envelope is missing";
  const inner = invoke.sub(3);
  if (inner.text(1).trim() === "") return "user_security_token is blank";
  if (inner.text(1).split(".").length !== 3) return "user_security_token is no JWT";
  if (inner.text(2).trim() === "") return "tenant_id is blank";
  return inner.text(3) === context ? null : "security_context_name mismatch";
}

/** Each line is one progress event, and once more part of the result. */
function run(command: string, args: string[], limitMs: number, daemon: RustDaemon, id: string): Promise<Buffer> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], cwd: "/" });
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, limitMs);
    let out = "";
    let err = "";
    let sequence = 0;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      for (const line of text.split("\n").slice(0, -1)) daemon.progress(id, sequence++, `${line}\n`);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
    child.on("error", (error) => {
      clearTimeout(timer);
      resolve(failure("internal", error.message));
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      if (timedOut) return resolve(failure("timeout", `deadline of ${limitMs} ms`));
      const exit = code ?? -1;
      resolve(message([1, exit === 0], [2, exit], [3, out], [4, err], [6, exit === 0 ? "" : "nonzero_exit"]));
    });
  });
}

export interface RustRotation {
  token: string;
  /** Seconds since the epoch; 0 when the answer names none. */
  overlapUntil: number;
  answer: Fields;
}

/** RotateEdgeKey as the Rust CLI sends it: with an empty token. The same key twice is its `token refresh`. */
export async function rotateLikeRust(
  channel: PeerChannel,
  { nodeId, from, to }: { nodeId: string; from: PeerKey; to: PeerKey },
): Promise<RustRotation> {
  const nonce = randomBytes(32);
  const inner = message([1, nodeId], [2, to.publicKey], [3, nonce]);
  const id = Buffer.from(nodeId.replaceAll("-", ""), "hex");
  const digest = createHash("sha256")
    .update("aegis-edge-rotate")
    .update(id)
    .update(to.publicKey)
    .update(nonce)
    .digest();
  const request = message(
    [1, message([1, ""], [2, from.sign(inner)], [3, inner])],
    [2, to.publicKey],
    [3, to.sign(digest)],
  );
  const answer = new Fields(await channel.unary(`${service}/RotateEdgeKey`, request));
  const overlapUntil = answer.has(3) ? answer.sub(3).number(1) : 0;
  return { token: answer.text(1), overlapUntil, answer };
}
