/** The ControllerLink over grpc-js: one channel, so one TCP connection, for each stream or enrollment. */
import { Client, connectivityState, Metadata, type ServiceError, type StatusObject, status } from "@grpc/grpc-js";
import { AegisError, type ErrorCode } from "../errors.ts";
import { grpc } from "../wire/gen/messages.js";
import { clusterService, healthService, maxMessageBytes, refusalTrailer } from "../wire/service.ts";
import {
  type ControllerLink,
  connectTimeoutMs,
  type EdgeCommand,
  type EdgeStream,
  LinkError,
  type StreamHandlers,
} from "./link.ts";
import { clientRefusal, nameCertificate } from "./tls-trust.ts";
import { TunnelCredentials, type TunnelOptions } from "./tunnel.ts";

export interface GrpcLinkOptions {
  host: string;
  port: number;
  /** Null = plaintext, which config allows to loopback only. */
  tls: TunnelOptions | (() => TunnelOptions) | null;
  silence?: { pingAfterMs: number; answerWithinMs: number };
}

const authorityOf = ({ host, port }: { host: string; port: number }) =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;

/** A ping after this much silence, and how long it may go unanswered: a dead path is noticed within 25 s. */
export const patience = { pingAfterMs: 15_000, answerWithinMs: 10_000 };

export interface GrpcLink extends ControllerLink {
  /** What the far end's health service says; null where it has none. */
  health(): Promise<"serving" | "not serving" | null>;
}

export function grpcLink({ host, port, tls: given, silence = patience }: GrpcLinkOptions): GrpcLink {
  /** As it is at the next connection: what is trusted may change while this host runs. */
  const tls = () => (typeof given === "function" ? given() : given);
  const { proxy = null, clientCertificate = null } = tls() ?? {};
  const authority = authorityOf({ host, port });
  const where = `${given ? "https" : "http"}://${authority}`;
  // grpc-js opens the socket; with a proxy that is the only place it may open one to.
  const dialled = proxy ? authorityOf(proxy) : authority;
  const open = new Set<Client>();
  let tlsFailure: AegisError | null = null;
  let isOpened = false;
  let isBelieved = false;

  function dial(): Client {
    tlsFailure = null;
    isOpened = false;
    isBelieved = false;
    const trust = tls();
    const options = trust && {
      ...trust,
      onOpened: () => (isOpened = true),
      onFailure: (error: Error) => (tlsFailure = AegisError.from(error)),
      onBelieved: () => (isBelieved = true),
    };
    const channel = new TunnelCredentials({ host, port }, options);
    const client = new Client(`dns:${dialled}`, channel, {
      "grpc.enable_http_proxy": 0,
      "grpc.default_authority": authority,
      "grpc.keepalive_time_ms": silence.pingAfterMs,
      "grpc.keepalive_timeout_ms": silence.answerWithinMs,
      "grpc.max_receive_message_length": maxMessageBytes,
      "grpc.max_send_message_length": maxMessageBytes,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
    });
    open.add(client);
    return client;
  }

  function hangUp(client: Client): void {
    open.delete(client);
    client.close();
  }

  /** Why nothing could be reached, in words that name the proxy when it was the proxy. */
  const unreachable: Unreachable = ({ code, details }) => {
    if (tlsFailure) return { reason: tlsFailure.message, ...(tlsFailure.hint ? { hint: tlsFailure.hint } : {}) };
    const refused = clientRefusal(details);
    if (refused) return refused;
    // Each step of the dial has its own patience; what is left is a path that swallows packets, or all steps together.
    const isLate = code === status.DEADLINE_EXCEEDED;
    const reason = isLate ? `no answer within ${connectTimeoutMs / 1000} s` : plain(details);
    if (isBelieved) return { reason: `after TLS: ${reason}`, ...(clientCertificate ? { hint: nameCertificate } : {}) };
    return {
      reason:
        proxy && !isOpened ? `the proxy ${authorityOf(proxy)} (${proxy.from}) cannot be reached: ${reason}` : reason,
    };
  };

  /**
   * Waits until the channel has decided, and says on what. Hello is stamped when it is written, so it must not be written while the dial
   * still goes on; a dial that failed is left to the call to report, which knows the reason.
   */
  async function decided(client: Client, signal: AbortSignal): Promise<"ready" | "failed" | "undecided"> {
    const channel = client.getChannel();
    const deadline = Date.now() + connectTimeoutMs;
    for (;;) {
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY) return "ready";
      if (state !== connectivityState.IDLE && state !== connectivityState.CONNECTING) return "failed";
      if (signal.aborted || Date.now() >= deadline) return "undecided";
      await new Promise<void>((resolve) => {
        const done = () => {
          signal.removeEventListener("abort", done);
          resolve();
        };
        signal.addEventListener("abort", done, { once: true });
        channel.watchConnectivityState(state, deadline, done);
      });
    }
  }

  async function call<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    shared: Client | null = null,
  ): Promise<Response> {
    const client = shared ?? dial();
    try {
      return await new Promise<Response>((resolve, reject) => {
        const done = (error: ServiceError | null, response?: Response) => {
          if (error || response === undefined) reject(failed(where, method.path, error, unreachable));
          else resolve(response);
        };
        const deadline = Date.now() + connectTimeoutMs;
        client.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          request,
          new Metadata(),
          { deadline },
          done,
        );
      });
    } finally {
      if (!shared) hangUp(client);
    }
  }

  return {
    async open(handlers, signal) {
      const client = dial();
      const outcome = await decided(client, signal);
      if (outcome === "undecided" && !signal.aborted) {
        hangUp(client);
        const { reason, hint = checkPath } = unreachable({ code: status.DEADLINE_EXCEEDED, details: "" });
        throw new AegisError("unavailable", notReached(where, reason), { hint });
      }
      const onEnd: StreamHandlers["onEnd"] = (end) =>
        handlers.onEnd(
          outcome === "ready" || end.status !== status.UNAVAILABLE
            ? end
            : { ...end, message: notReached(where, inFull(unreachable({ code: end.status, details: end.message }))) },
        );
      return stream(client, { ...handlers, onEnd }, () => hangUp(client));
    },
    attest: (request) => call(clusterService.attestNode, request),
    challenge: (request) => call(clusterService.challengeNode, request),
    rotate: (request) => call(clusterService.rotateEdgeKey, request, [...open].at(-1) ?? null),
    async health() {
      try {
        const answer = await call(healthService.check, { service: "" });
        return answer.status === ServingStatus.SERVING ? "serving" : "not serving";
      } catch (thrown) {
        if ((AegisError.from(thrown).cause as ServiceError | undefined)?.code === status.UNIMPLEMENTED) return null;
        throw thrown;
      }
    },
    close() {
      for (const client of [...open]) hangUp(client);
    },
  };
}

const { ServingStatus } = grpc.health.v1.HealthCheckResponse;

type Unreachable = (error: { code: number; details: string }) => { reason: string; hint?: string };

interface Unary<Request, Response> {
  path: string;
  requestSerialize: (message: Request) => Buffer;
  responseDeserialize: (data: Buffer) => Response;
}

function stream(client: Client, { onCommand, onEnd }: StreamHandlers, hangUp: () => void): EdgeStream {
  const { path, requestSerialize, responseDeserialize } = clusterService.connectEdge;
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  let waiting: Array<() => void> = [];
  let ended = false;
  const release = () => {
    for (const wake of waiting) wake();
    waiting = [];
  };
  const end = (outcome: Pick<StatusObject, "code" | "details" | "metadata">) => {
    if (ended) return;
    ended = true;
    release();
    const [trailer] = outcome.metadata?.get(refusalTrailer) ?? [];
    onEnd({ status: outcome.code, message: outcome.details, refusal: Buffer.isBuffer(trailer) ? trailer : null });
  };
  call.on("data", (command: EdgeCommand) => onCommand(command));
  call.on("drain", release);
  call.on("error", (error: ServiceError) => end(error));
  call.on("status", end);
  return {
    send: (event) => !ended && call.write(event),
    drained: () =>
      ended || !call.writableNeedDrain ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve)),
    close() {
      call.cancel();
      hangUp();
    },
  };
}

/** gRPC status -> our code, for the calls beside the stream; the text is the controller's own. */
const codes: Partial<Record<number, ErrorCode>> = {
  [status.INVALID_ARGUMENT]: "invalid_request",
  [status.ALREADY_EXISTS]: "conflict",
  [status.PERMISSION_DENIED]: "forbidden",
  [status.RESOURCE_EXHAUSTED]: "rate_limited",
  [status.FAILED_PRECONDITION]: "precondition_failed",
  [status.UNAUTHENTICATED]: "unauthenticated",
};

const checkPath = "check that the controller runs, that this address is right and that nothing in between blocks it";

function failed(where: string, path: string, error: ServiceError | null, unreachable: Unreachable): AegisError {
  if (!error) return new AegisError("internal", `${path} of ${where} answered nothing`);
  const code = codes[error.code];
  const peerTimeMs = peerTime(error.metadata);
  if (code) return new LinkError(code, error.details, { cause: error, peerTimeMs });
  const { reason, hint = checkPath } = unreachable(error);
  return new LinkError("unavailable", notReached(where, reason), { cause: error, hint, peerTimeMs });
}

/** A stream ends with one text, which is all that status and log have. */
const inFull = ({ reason, hint }: { reason: string; hint?: string }): string => (hint ? `${reason}; ${hint}` : reason);

const notReached = (where: string, reason: string): string => `cannot reach the controller at ${where}: ${reason}`;

/** Without the words that grpc-js puts around what the system said. */
const plain = (details: string): string =>
  details.replace(/^No connection established\. Last error: (?:Error: )?/, "").replace(/\.? Resolution note: $/, "");

/** HTTP's own header, which every server sends with its answer. */
function peerTime(metadata: Metadata | undefined): number | null {
  const [date] = metadata?.get("date") ?? [];
  const ms = typeof date === "string" ? Date.parse(date) : Number.NaN;
  return Number.isNaN(ms) ? null : ms;
}
