/** The OTLP/gRPC collector: one connection, made when there is something to send and to no other place than was named. */
import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { Client, credentials, Metadata, type ServiceError, status, type VerifyOptions } from "@grpc/grpc-js";
import type { OtlpConfig } from "../config/otlp.ts";
import { systemAuthorities } from "../platform/authorities.ts";
import type { Clock } from "../platform/clock.ts";
import type { Secret } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import { version } from "../version.ts";

export type Signal = "traces" | "logs";

const methods: Readonly<Record<Signal, string>> = {
  traces: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
  logs: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
};

/** What the specification calls retryable. */
const passing = new Set<number>([
  ...[status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.CANCELLED, status.ABORTED],
  ...[status.OUT_OF_RANGE, status.DATA_LOSS, status.RESOURCE_EXHAUSTED],
]);
/** One attempt, all attempts for one batch, and the first wait between two; each next one is twice as long. */
const times = { attemptMs: 5_000, allMs: 10_000, firstWaitMs: 1_000 };

export interface CollectorOptions {
  config: Pick<OtlpConfig, "host" | "port" | "tls" | "caPem">;
  headers: Readonly<Record<string, Secret>>;
  env: Environment;
  clock: Clock;
  /** An attempt failed; another one may follow. */
  onTrouble(why: string): void;
}

export interface Collector {
  /** What the collector answered; null when it has not taken it. Never throws. */
  send(signal: Signal, body: Uint8Array): Promise<Uint8Array | null>;
  /** From now on nothing is tried twice. */
  hurry(): void;
  /** Ends what is under way. */
  close(): void;
}

const asIs = (bytes: Buffer): Buffer => bytes;

/** grpc-js asks TLS for its target by name, which no address is; the certificate is held against the address all the same. */
const nameOfAddresses = "address.invalid";

/** Throws `config_invalid` where SSL_CERT_FILE is no good. */
export function openCollector({ config, headers, env, clock, onTrouble }: CollectorOptions): Collector {
  const { host, port, tls, caPem } = config;
  const authorities = () => Buffer.from(caPem ?? systemAuthorities(env).join("\n"));
  const identity: VerifyOptions = isIP(host)
    ? { checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate) }
    : {};
  const client = new Client(
    `dns:${host.includes(":") ? `[${host}]` : host}:${port}`,
    tls ? credentials.createSsl(authorities(), null, null, identity) : credentials.createInsecure(),
    {
      ...(isIP(host) ? { "grpc.ssl_target_name_override": nameOfAddresses } : {}),
      // A variable for other programs must not lead this elsewhere.
      "grpc.enable_http_proxy": 0,
      "grpc.primary_user_agent": `aegis/${version}`,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
    },
  );
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value.reveal());
  const hurried = new AbortController();
  const closed = new AbortController();

  const attempt = (signal: Signal, body: Buffer, withinMs: number) =>
    new Promise<{ answer: Uint8Array } | { error: ServiceError }>((resolve) => {
      const cancel = () => call.cancel();
      const call = client.makeUnaryRequest(
        methods[signal],
        asIs,
        asIs,
        body,
        metadata,
        { deadline: Date.now() + withinMs },
        (error, answer) => {
          closed.signal.removeEventListener("abort", cancel);
          resolve(error ? { error } : { answer: answer ?? new Uint8Array() });
        },
      );
      closed.signal.addEventListener("abort", cancel, { once: true });
    });

  return {
    async send(signal, body) {
      const until = clock.monotonic() + times.allMs;
      const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
      for (let waitMs = times.firstWaitMs; ; waitMs *= 2) {
        if (closed.signal.aborted) return null;
        const left = until - clock.monotonic();
        const outcome = await attempt(signal, bytes, Math.min(times.attemptMs, left));
        if ("answer" in outcome) return outcome.answer;
        const { code, details, message } = outcome.error;
        if (!closed.signal.aborted) onTrouble(`${status[code] ?? code}: ${details || message}`);
        if (!passing.has(code) || hurried.signal.aborted || clock.monotonic() + waitMs >= until) return null;
        await clock.sleep(waitMs, hurried.signal);
      }
    },
    hurry: () => hurried.abort(),
    close() {
      hurried.abort();
      closed.abort();
      client.close();
    },
  };
}
