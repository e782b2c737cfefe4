/** Traces and logs for a collector of the owner's choosing; where none is named, nothing of it is even loaded. */
import { headerRule, isHeaderValue, type OtlpConfig } from "../config/otlp.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { type Log, type LogLevel, Secret } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import { noTracer, type Tracer } from "../platform/tracer.ts";

/** How long the end of a process is held up at most for what has not been sent. */
export const lastFlushMs = 1_000;

export interface Telemetry {
  tracer: Tracer;
  /** A log whose lines of at least this level go to the collector too. */
  watch(log: Log, least: LogLevel): Log;
  /** Sends what waits, for `lastFlushMs` at most. */
  close(): Promise<void>;
}

export interface TelemetryOptions {
  /** Null = none. */
  config: OtlpConfig | null;
  /** Attributes of everything that is sent. */
  resource: Readonly<Record<string, string>>;
  env: Environment;
  clock: Clock;
  /** Hears what is wrong with the collector; must not be one that `watch` made. */
  log: Log;
  /** A secret of this host, for `secret_headers`. */
  secret?(name: string): Promise<Secret | null>;
}

export const noTelemetry: Telemetry = { tracer: noTracer, watch: (log) => log, close: async () => {} };

/** Never throws: what cannot be sent is said in the log, and the work goes on. */
export async function openTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const { config, log } = options;
  if (!config) return noTelemetry;
  try {
    const headers = await headersOf(config, options.secret);
    const { otlpTelemetry } = await import("./otlp.ts");
    return await otlpTelemetry({ ...options, config, headers });
  } catch (thrown) {
    const { message, hint } = AegisError.from(thrown);
    log.error("otlp_not_started", { endpoint: config.url, error: message, ...(hint ? { hint } : {}) });
    return noTelemetry;
  }
}

/** Throws `config_invalid` for a secret that this host does not keep, or that is no header. */
export async function headersOf(
  { headers, secretHeaders }: OtlpConfig,
  secret: TelemetryOptions["secret"],
): Promise<Record<string, Secret>> {
  const all: Record<string, Secret> = { ...headers };
  for (const [header, name] of Object.entries(secretHeaders)) {
    const value = await secret?.(name);
    if (!value)
      throw new AegisError("config_invalid", `secret_headers.${header}: this host keeps no secret named ${name}`, {
        hint: `aegis edge secret set ${name}, then restart the daemon`,
      });
    const text = value.reveal().trim();
    // gRPC would print it with its complaint.
    if (!isHeaderValue(text))
      throw new AegisError(
        "config_invalid",
        `secret_headers.${header}: the secret ${name} is no header: ${headerRule}`,
        {
          hint: `aegis edge secret set ${name}, then restart the daemon`,
        },
      );
    all[header] = new Secret(text);
  }
  return all;
}
