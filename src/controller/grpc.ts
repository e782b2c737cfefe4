/** The gRPC server: enrollment calls and edge streams. Everything it knows of grpc-js stays in this file. */
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type StatusObject,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import type { Frame } from "../envelope/frame.ts";
import { AegisError, errorTable } from "../errors.ts";
import type { Log } from "../platform/log.ts";
import type { aegis } from "../wire/gen/messages.js";
import { clusterService, maxMessageBytes, refusalTrailer } from "../wire/service.ts";
import { toLong, whole } from "../wire/whole.ts";
import type { CompatGuest } from "./compat-door.ts";
import type { Doorman, Guest } from "./doorman.ts";
import type { Enrollment } from "./enrollment.ts";
import { addHealth } from "./grpc-health.ts";
import { addReflection } from "./grpc-reflection.ts";
import type { TlsIdentity } from "./tls.ts";

type EdgeEvent = ReturnType<typeof aegis.cluster.v1.EdgeEvent.decode>;
type EdgeCommand = aegis.cluster.v1.EdgeCommand.$Properties;
type EdgeCall = ServerDuplexStream<EdgeEvent, EdgeCommand>;

export interface GrpcOptions {
  /** Address to listen on, and port; port 0 picks a free one. */
  host: string;
  port: number;
  tls: TlsIdentity;
  doorman: Doorman;
  enrollment: Enrollment;
  log: Log;
}

export interface GrpcServer {
  port: number;
  /** Answers health checks with NOT_SERVING from now on; what is connected stays. */
  stopServing(): void;
  /** Stops listening and ends what is left open. */
  close(): void;
}

export async function startGrpc({ host, port, tls, doorman, enrollment, log }: GrpcOptions): Promise<GrpcServer> {
  const server = new Server({
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    // A host that vanished without a word is noticed within 30 s.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
  server.addService(clusterService as unknown as ServiceDefinition, {
    attestNode: unary<aegis.cluster.v1.AttestNodeRequest.$Properties, object>(log, async (request, peer) =>
      enrollment.attest(request, peer),
    ),
    challengeNode: unary<aegis.cluster.v1.ChallengeNodeRequest.$Properties, object>(log, async (request) => {
      const { nodeSecurityToken, expiresAtMs, seal, keysetChain, enrollGrant } = await enrollment.challenge(request);
      const { SealMode, SignedKeySet } = (await import("../wire/gen/messages.js")).aegis.cluster.v1;
      return {
        nodeSecurityToken,
        expiresAt: { seconds: toLong(Math.floor(expiresAtMs / 1000)), nanos: (expiresAtMs % 1000) * 1_000_000 },
        keysetChain: keysetChain.map((signed) => SignedKeySet.decode(signed)),
        enrollGrant,
        sealMode: seal === "strict" ? SealMode.SEAL_MODE_STRICT : SealMode.SEAL_MODE_COMPAT,
      };
    }),
    connectEdge: (call: EdgeCall) => connectEdge(call, doorman),
  });
  const health = addHealth(server);
  addReflection(server);
  const credentials = ServerCredentials.createSsl(null, [
    { private_key: Buffer.from(tls.keyPem), cert_chain: Buffer.from(tls.certPem) },
  ]);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`, credentials, (error, actual) => {
      if (!error) return resolve(actual);
      reject(
        new AegisError("unavailable", `cannot listen on port ${port} for hosts: ${error.message}`, {
          cause: error,
          hint: "another program may use it; stop that one or choose another with --grpc-port",
        }),
      );
    });
  });
  return { port: bound, stopServing: health.stopServing, close: () => server.forceShutdown() };
}

/** Feeds one stream to the doorman: Hello first, and until it is answered nothing else. */
function connectEdge(call: EdgeCall, doorman: Doorman): void {
  let guest: Guest | CompatGuest | null = null;
  let state: "hello" | "judging" | "open" | "over" = "hello";

  const refuse = (code: number, details: string, refusal: Uint8Array | null = null) => {
    if (state === "over") return;
    state = "over";
    const metadata = new Metadata();
    if (refusal) metadata.set(refusalTrailer, Buffer.from(refusal));
    // Before any header is sent this becomes a response of trailers only, which every client reads as a refused call.
    call.emit("error", { code, details, metadata } satisfies Partial<StatusObject>);
  };
  const end = () => {
    if (state === "over") return;
    state = "over";
    call.end();
  };
  const over = () => {
    state = "over";
    guest?.gone();
    guest = null;
  };

  call.on("cancelled", over);
  call.on("error", over);
  call.on("close", over);
  call.on("end", () => {
    end();
    over();
  });
  call.on("data", (event: EdgeEvent) => {
    if (state === "over") return;
    if (state === "open") {
      if (!guest || !heard(guest, event)) end();
      return;
    }
    if (state === "judging" || !event.hello)
      return refuse(
        status.FAILED_PRECONDITION,
        "the first event must be a Hello, and the next one waits for its answer",
      );
    state = "judging";
    const stream = {
      write: (frame: Frame) =>
        void call.write({ sealed: { ...frame, seq: toLong(frame.seq), timeMs: toLong(frame.timeMs) } }),
      send: (command: EdgeCommand) => void call.write(command),
      end,
    };
    void doorman
      .hello(event.hello, peerAddress(call.getPeer()), stream)
      .then((answer) => {
        if (state !== "judging") return answer.kind === "come_in" ? answer.guest.gone() : undefined;
        if (answer.kind === "refused") return refuse(answer.status, answer.message, answer.refusal);
        // Headers at once: a client may wait for them before it says anything more.
        call.sendMetadata(new Metadata());
        state = "open";
        guest = answer.guest;
        guest.welcome();
      })
      .catch(() => refuse(status.INTERNAL, "this controller could not answer; its log says why"));
  });
}

/** A strict session has frames and nothing else, a compat session none. */
function heard(guest: Guest | CompatGuest, event: EdgeEvent): boolean {
  if (guest.kind === "compat") return guest.event(event);
  const frame = sealedFrame(event);
  return frame !== null && guest.frame(frame);
}

function sealedFrame({ event, sealed }: EdgeEvent): Frame | null {
  if (event !== "sealed" || !sealed) return null;
  const seq = whole(sealed.seq);
  const timeMs = whole(sealed.timeMs);
  if (seq === null || timeMs === null) return null;
  return {
    kind: sealed.kind ?? 0,
    seq,
    timeMs,
    body: sealed.body ?? new Uint8Array(),
    auth: sealed.auth ?? new Uint8Array(),
  };
}

/** `127.0.0.1:4711` -> `127.0.0.1`. */
const peerAddress = (peer: string): string => peer.replace(/:\d+$/, "");

function unary<Request, Response>(log: Log, handler: (request: Request, address: string) => Promise<Response>) {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    handler(call.request, peerAddress(call.getPeer()))
      .then((response) => callback(null, response))
      .catch((thrown: unknown) => {
        const error = AegisError.from(thrown);
        if (error.code === "internal") log.error("rpc_failed", { path: call.getPath(), error });
        const details =
          error.code === "internal" ? "this controller could not answer; its log says why" : error.message;
        callback({ code: errorTable[error.code].grpc, details });
      });
  };
}
