/** Processor time of each thing that a strict session seals, signs or verifies, by the code that the executable has. */
import { randomUUID } from "node:crypto";
import { controllerChannel, daemonChannel, type Frame } from "../../src/envelope/frame.ts";
import { answerHello, hearHello, sayHello } from "../../src/envelope/handshake.ts";
import { type Claims, signJwt, verifyJwt } from "../../src/envelope/jwt.ts";
import type { TrustedKeyset } from "../../src/envelope/keyset.ts";
import { importSigningKey, newSeed } from "../../src/envelope/public-key.ts";
import { progressChain, signReceipt, verifyReceipt } from "../../src/envelope/receipt.ts";
import { digestOf } from "../../src/envelope/statement.ts";
import { signUserCall } from "../../src/envelope/user.ts";

/** Seconds of one each. */
export interface SealCosts {
  /** Of a progress frame with so much output: digest, chain and seal; open and chain. */
  frameSealed: number;
  frameOpened: number;
  /** The controller's of one connect: node token, Hello, ACCEPT with its key agreement, CONFIRM. */
  connect: number;
  /** The controller's of one call: the caller's statement, COMMAND, RESULT, receipt and Ack. */
  call: number;
}

const cpuSeconds = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

const limits = { maxBody: 4 << 20, maxWindow: 4 << 20, heartbeatSecs: 30 };

/** `bytes`: the output in a progress frame. `rounds`: how often each is done; the first fifth warms up and does not count. */
export function sealCosts(bytes: number, rounds: number): SealCosts {
  const key = importSigningKey(newSeed());
  const [nodeId, controllerId, commandId] = [randomUUID(), randomUUID(), randomUUID()];
  const body = new Uint8Array(bytes).fill(97);
  const small = new Uint8Array(400).fill(1);
  const iat = Math.floor(Date.now() / 1000);
  const claims: Claims<"node"> = {
    ...{ sub: nodeId, tid: "default", cep: "https://localhost", cap_hash: "", iss: controllerId },
    ...({ role: "edge", aud: "aegis-controller" } as const),
    ...{ jti: randomUUID(), iat, exp: iat + 86_400, cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: key.kid } } },
  };
  claims.cnf.jwk.x = Buffer.from(key.raw).toString("base64url");
  const token = signJwt("node", claims, key);
  const tokenKeys = new Map([[key.kid, key]]);

  /** Seconds of one `work`, after what does not count of it was made by `prepare`. */
  function cost<T>(prepare: () => T, work: (prepared: T) => void, times = rounds): number {
    const run = (count: number) => {
      const all = Array.from({ length: count }, prepare);
      const began = cpuSeconds();
      for (const one of all) work(one);
      return (cpuSeconds() - began) / count;
    };
    run(Math.ceil(times / 5));
    return run(times);
  }

  const must = <T>(value: T | null): T => {
    if (value === null) throw new Error("the handshake was refused");
    return value;
  };

  const none = new Uint8Array();
  const keyset: TrustedKeyset = {
    ...{ controllerId, version: 1, rootKey: key, digest: none, commandKey: key, tokenKeys, keys: [], tlsPins: [] },
    ...{ withdrawnPins: [], anchors: [], createdMs: Date.now(), signed: none, bytes: none },
  };
  const hello = () => {
    const streamId = randomUUID();
    const said = sayHello({
      ...{ nodeId, streamId, nodeKey: key, keyset, capabilities: small, softwareVersion: "bench", wallMs: Date.now() },
    });
    return { streamId, said };
  };
  const heard = ({ streamId, said: { sealHello, signature } }: ReturnType<typeof hello>) => {
    const judged = hearHello({ nodeId, streamId, sealHello, signature, nodeKey: key });
    return must(judged.kind === "heard" ? judged.hello : null);
  };
  const answered = (from: ReturnType<typeof hello>) =>
    must(
      answerHello(heard(from), {
        ...{ commandKey: key, keysetChain: [], keysetVersion: 1, serverTimeMs: Date.now(), limits, mustRefresh: false },
      }),
    );
  const digest = digestOf(small).sha256;
  const session = () => {
    const secrets = { nodeId, sessionId: digest, toController: digest, toDaemon: digest };
    const daemon = daemonChannel(secrets, key, key);
    const confirm = daemon.seal("confirm", small, Date.now());
    return { controller: controllerChannel(secrets, key, key), daemon, confirm };
  };
  const opens = (channel: { open(frame: Frame): { kind: string } }, frame: Frame) => {
    if (channel.open(frame).kind !== "frame") throw new Error(`a frame of kind ${frame.kind} was refused`);
  };

  const { controller, daemon, confirm } = session();
  opens(controller, confirm);
  const chain = progressChain();
  const sealed = () => {
    const digest = digestOf(body);
    chain.add(digest);
    return daemon.seal("progress", body, Date.now(), digest);
  };
  const frameSealed = cost(() => null, sealed);
  // What was sealed above was opened by nobody, so the other end needs a session of its own.
  const other = session();
  opens(other.controller, other.confirm);
  const frameOpened = cost(
    () => other.daemon.seal("progress", body, Date.now()),
    (frame) => {
      opens(other.controller, frame);
      chain.add(digestOf(small));
    },
  );

  const few = Math.ceil(rounds / 10);
  const greeting = cost(
    hello,
    (from) => {
      if (verifyJwt("node", token, { keys: tokenKeys, issuer: controllerId }).kind === "refused")
        throw new Error("the token was refused");
      answered(from);
    },
    few,
  );
  const confirming = cost(session, (one) => opens(one.controller, one.confirm), few);

  const receipt = { nodeId, commandId, commandBody: small, result: small };
  const signature = signReceipt(key, receipt);
  const calls = session();
  opens(calls.controller, calls.confirm);
  const call = cost(
    () => calls.daemon.seal("result", small, Date.now()),
    (frame) => {
      signUserCall(key, token, {
        ...{ nodeId, commandId, tenant: "default", context: "operator", tool: "bench.nothing", argsJson: small },
        ...{ deadlineMs: 0, operator: new Uint8Array() },
      });
      calls.controller.seal("command", small, Date.now());
      opens(calls.controller, frame);
      if (!verifyReceipt(key, receipt, signature)) throw new Error("the receipt was refused");
      calls.controller.seal("ack", small.subarray(0, 40), Date.now());
    },
    few,
  );
  return { frameSealed, frameOpened, connect: greeting + confirming, call };
}
