/** Asks a collector whether it would take what is sent to it, by an export of nothing. */
import type { OtlpConfig } from "../config/otlp.ts";
import { openCollector } from "./collector.ts";
import { headersOf, type TelemetryOptions } from "./telemetry.ts";

/** Null when it would; else why not. Throws `config_invalid` where a secret or SSL_CERT_FILE is no good. */
export async function probeCollector(
  config: OtlpConfig,
  { env, clock, secret }: Pick<TelemetryOptions, "env" | "clock" | "secret">,
): Promise<string | null> {
  let trouble = "it did not answer";
  const headers = await headersOf(config, secret);
  const collector = openCollector({ config, headers, env, clock, onTrouble: (why) => (trouble = why) });
  try {
    collector.hurry();
    return (await collector.send("traces", new Uint8Array())) ? null : trouble;
  } finally {
    collector.close();
  }
}
