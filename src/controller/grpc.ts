/** The gRPC server: enrollment calls and edge streams. Everything it knows of grpc-js stays in this file. */
import {
  logVerbosity,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type StatusObject,
  type sendUnaryData,
  setLogVerbosity,
} from "@grpc/grpc-js";
import { AegisError, errorTable } from "../errors.ts";
import type { Log } from "../platform/log.ts";
import { aegis } from "../wire/gen/messages.js";
import { clusterService, maxMessageBytes, refusalTrailer } from "../wire/service.ts";
import { toSeconds } from "../wire/whole.ts";
import { clientNetwork } from "./client-network.ts";
import type { Doorman } from "./doorman.ts";
import { type EdgeCommand, type EdgeEvent, type EdgeTransport, edgeStream } from "./edge-stream.ts";
import type { Enrollment } from "./enrollment.ts";
import { addHealth } from "./grpc-health.ts";
import { addReflection } from "./grpc-reflection.ts";
import { type Rotations, rotationAnswer } from "./rotation.ts";
import type { TlsIdentity } from "./tls.ts";

const { SealMode, SignedKeySet } = aegis.cluster.v1;

type EdgeCall = ServerDuplexStream<EdgeEvent, EdgeCommand>;

export interface GrpcOptions {
  /** Address to listen on, and port; port 0 picks a free one. */
  host: string;
  port: number;
  /** Null = plaintext: a front end on this machine ends TLS, and says who is connected. */
  tls: TlsIdentity | null;
  doorman: Doorman;
  enrollment: Enrollment;
  rotations: Pick<Rotations, "rotate">;
  log: Log;
}

export interface GrpcServer {
  port: number;
  /** New connections get this certificate; those that are open keep theirs. */
  renew(tls: TlsIdentity): void;
  /** Answers health checks with NOT_SERVING from now on; what is connected stays. */
  stopServing(): void;
  /** Stops listening and ends what is left open. */
  close(): void;
}

export async function startGrpc(options: GrpcOptions): Promise<GrpcServer> {
  const { host, port, tls, doorman, enrollment, rotations, log } = options;
  // It would write to stderr by itself; what it knows comes back as errors.
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server({
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    // A host that vanished without a word is noticed within 30 s.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
  const addressOf = (call: Called) => clientNetwork(tls ? call.getPeer() : forwardedFor(call));
  server.addService(clusterService as unknown as ServiceDefinition, {
    attestNode: unary<aegis.cluster.v1.AttestNodeRequest.$Properties, object>(log, addressOf, async (request, peer) =>
      enrollment.attest(request, peer),
    ),
    challengeNode: unary<aegis.cluster.v1.ChallengeNodeRequest.$Properties, object>(log, addressOf, async (request) => {
      const { nodeSecurityToken, expiresAtMs, seal, keysetChain, enrollGrant } = await enrollment.challenge(request);
      return {
        nodeSecurityToken,
        expiresAt: toSeconds(expiresAtMs),
        keysetChain: keysetChain.map((signed) => SignedKeySet.decode(signed)),
        enrollGrant,
        sealMode: seal === "strict" ? SealMode.SEAL_MODE_STRICT : SealMode.SEAL_MODE_COMPAT,
      };
    }),
    rotateEdgeKey: unary<aegis.cluster.v1.RotateEdgeKeyRequest.$Properties, object>(log, addressOf, async (request) => {
      return rotationAnswer(await rotations.rotate(request));
    }),
    connectEdge: (call: EdgeCall) => connectEdge(call, addressOf(call), doorman, log),
  });
  const health = addHealth(server);
  addReflection(server);
  const credentials = tls
    ? ServerCredentials.createSsl(null, [
        { private_key: Buffer.from(tls.keyPem), cert_chain: Buffer.from(tls.certPem) },
      ])
    : ServerCredentials.createInsecure();
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
  return {
    port: bound,
    renew({ certPem, keyPem }) {
      if (!tls) return;
      // grpc-js offers this to its own certificate providers only.
      (credentials as unknown as { updateSecureContextOptions(options: object): void }).updateSecureContextOptions({
        ...{ cert: [Buffer.from(certPem)], key: [Buffer.from(keyPem)] },
      });
    },
    stopServing: health.stopServing,
    close: () => server.forceShutdown(),
  };
}

function connectEdge(call: EdgeCall, address: string, doorman: Doorman, log: Log): void {
  const transport: EdgeTransport = {
    // Headers at once: a client may wait for them before it says anything more.
    accept: () => call.sendMetadata(new Metadata()),
    send: (command) => void call.write(command),
    refuse(code, details, refusal) {
      const metadata = new Metadata();
      if (refusal) metadata.set(refusalTrailer, Buffer.from(refusal));
      // Before any header is sent this becomes a response of trailers only, which every client reads as a refused call.
      call.emit("error", { code, details, metadata } satisfies Partial<StatusObject>);
    },
    end: () => call.end(),
  };
  const stream = edgeStream({ doorman, address, transport, log });
  call.on("cancelled", stream.gone);
  call.on("error", stream.gone);
  call.on("close", stream.gone);
  call.on("end", stream.end);
  call.on("data", stream.event);
}

type Called = Pick<EdgeCall, "getPeer" | "metadata">;

/** What the front end on this machine saw, which is the last to have written there. */
function forwardedFor(call: Called): string {
  const said = call.metadata.get("x-forwarded-for").join(",").split(",").at(-1)?.trim();
  return said || call.getPeer();
}

function unary<Request, Response>(
  log: Log,
  addressOf: (call: Called) => string,
  handler: (request: Request, address: string) => Promise<Response>,
) {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    handler(call.request, addressOf(call))
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
