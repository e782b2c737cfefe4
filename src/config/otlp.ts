/** Where traces and logs go, for those who want them somewhere: one OTLP/gRPC collector that the owner names. */
import { X509Certificate } from "node:crypto";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { Secret } from "../platform/log.ts";
import { isLoopback } from "../platform/loopback.ts";
import type { Environment } from "../platform/paths.ts";
import { readTextFile } from "../platform/text-file.ts";
import { parseEndpoint } from "./endpoint.ts";
import { inWords } from "./problems.ts";

export interface OtlpConfig {
  host: string;
  port: number;
  /** As people read it, with its port. */
  url: string;
  /** False: the connection is not encrypted. */
  tls: boolean;
  /** What the collector's certificate must come from, PEM; null = the system's authorities. */
  caPem: string | null;
  /** Sent with every export. */
  headers: Readonly<Record<string, Secret>>;
  /** Header -> the secret of this host that is its value. */
  secretHeaders: Readonly<Record<string, string>>;
  /** Attributes of everything that is sent, beside our own. */
  resource: Readonly<Record<string, string>>;
  /** Share of the traces that begin here which are kept, 0..1. One that began elsewhere keeps its own answer. */
  sampleRatio: number;
}

const defaultPort = 4317;

/** gRPC's own names, and binary ones, are not for settings. */
const headerForm = /^(?!grpc-|te$|content-type$|user-agent$)[a-z0-9_.-]{1,64}$(?<!-bin)/;
const headerName = z.string().regex(headerForm, "expected a gRPC header in lower case");
export const isHeaderValue = (text: string): boolean => /^[\x20-\x7e]{1,4096}$/.test(text);
export const headerRule = "expected up to 4096 printable ASCII characters";
const attribute = z.string().regex(/^[a-z][a-z0-9_.]{0,127}$/, "expected a name such as deployment.environment");

const endpoint = z.string().refine((text) => parseOtlpEndpoint(text) !== null, {
  error: "expected a URL such as https://collector.example:4317",
});

const shape = {
  endpoint,
  protocol: z.literal("grpc").default("grpc"),
  ca_path: z.string().min(1).optional(),
  resource: z.record(attribute, z.union([z.string().max(256), z.number(), z.boolean()]).transform(String)).default({}),
  sample_ratio: z.number().min(0).max(1).default(1),
};
/** What is wrong is said of all of them: a problem with one would print its value, which may be a secret. */
const headers = z
  .record(z.string(), z.unknown())
  .default({})
  .superRefine((all, context) => {
    const problem = (message: string) => context.addIssue({ code: "custom", message });
    for (const [name, value] of Object.entries(all))
      if (!headerForm.test(name)) problem(`${JSON.stringify(name)}: expected a gRPC header in lower case`);
      else if (typeof value !== "string" || !isHeaderValue(value)) problem(`${name}: ${headerRule}`);
  })
  .transform((all) => all as Record<string, string>);

/** A host's, whose owner keeps secrets there. */
export const edgeOtlpSchema = z.strictObject({
  ...shape,
  headers,
  secret_headers: z.record(headerName, z.string().min(1)).default({}),
});
/** A controller's. */
export const controllerOtlpSchema = z.strictObject({ ...shape, headers });

export type OtlpDocument = z.output<typeof controllerOtlpSchema> & { secret_headers?: Record<string, string> };

/** Null for what is no place that speaks gRPC: a path, a password, another scheme. */
export function parseOtlpEndpoint(text: string): { host: string; port: number; url: string; tls: boolean } | null {
  const parsed = /^https?:\/\//.test(text) ? parseEndpoint(text) : null;
  if (!parsed) return null;
  const isPortGiven = /:\d+\/?$/.test(text);
  const port = isPortGiven ? parsed.port : defaultPort;
  const host = parsed.host.includes(":") ? `[${parsed.host}]` : parsed.host;
  return { host: parsed.host, port, url: `${parsed.scheme}://${host}:${port}`, tls: parsed.scheme === "https" };
}

export function otlpConfig(document: OtlpDocument, caPem: string | null): OtlpConfig {
  const place = parseOtlpEndpoint(document.endpoint);
  if (!place) throw new RangeError(`${document.endpoint} is no endpoint`);
  return {
    ...place,
    caPem,
    headers: Object.fromEntries(Object.entries(document.headers).map(([name, value]) => [name, new Secret(value)])),
    secretHeaders: document.secret_headers ?? {},
    resource: document.resource,
    sampleRatio: document.sample_ratio,
  };
}

/** Reads the authority that the settings name, at `caPath`, and finds what no schema can: each by the key to change. */
export async function otlpFiles(
  { endpoint: text, secret_headers = {} }: OtlpDocument,
  caPath: string | null,
): Promise<{ caPem: string | null; problems: { key: string; message: string }[] }> {
  const place = parseOtlpEndpoint(text);
  const problems: { key: string; message: string }[] = [];
  const problem = (key: string, message: string) => void problems.push({ key, message });
  if (place && !place.tls) {
    if (caPath !== null) problem("ca_path", `expected an https endpoint beside it, found ${place.url}`);
    if (!isLoopback(place.host) && Object.keys(secret_headers).length > 0)
      problem("secret_headers", `expected an https endpoint: ${place.url} would carry the secret unencrypted`);
  }
  if (caPath === null) return { caPem: null, problems };
  const caPem = await readTextFile(caPath).catch((error: Error) => void problem("ca_path", error.message));
  if (caPem === null) problem("ca_path", `${caPath} does not exist`);
  else if (caPem !== undefined && !isCertificate(caPem))
    problem("ca_path", `expected PEM text of a certificate in ${caPath}`);
  return { caPem: caPem ?? null, problems };
}

export function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).subject !== undefined;
  } catch {
    return false;
  }
}

/**
 * What the variables say by which every OpenTelemetry program is told: OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS and
 * _PROTOCOL, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME. Null without an endpoint, and with OTEL_SDK_DISABLED=true.
 * Throws `config_invalid` naming the variable.
 */
export function otlpFromEnvironment(env: Environment): OtlpConfig | null {
  const endpoint = env.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!endpoint || env.OTEL_SDK_DISABLED?.toLowerCase() === "true") return null;
  const protocol = env.OTEL_EXPORTER_OTLP_PROTOCOL || "grpc";
  const headers = pairsOf(env.OTEL_EXPORTER_OTLP_HEADERS, (name) => name.toLowerCase());
  const service = env.OTEL_SERVICE_NAME ? { "service.name": env.OTEL_SERVICE_NAME } : {};
  const resource = { ...pairsOf(env.OTEL_RESOURCE_ATTRIBUTES), ...service };
  const document = { endpoint, protocol, headers, resource };
  const parsed = controllerOtlpSchema.safeParse(document);
  if (parsed.success) return otlpConfig(parsed.data, null);
  const variable = ([key]: readonly PropertyKey[]) =>
    key === "resource" ? "OTEL_RESOURCE_ATTRIBUTES" : `OTEL_EXPORTER_OTLP_${String(key).toUpperCase()}`;
  throw new AegisError("config_invalid", inWords(parsed.error.issues, document, variable).join("; "), {
    hint: "correct the variable, or unset it: without an endpoint nothing is sent",
  });
}

/** `a=b,c=d`, with what would be mistaken for a separator percent-encoded. */
function pairsOf(text = "", spelt = (name: string) => name): Record<string, string> {
  const pairs = text.split(",").filter((pair) => pair.trim() !== "");
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = Math.max(pair.indexOf("="), 0);
      return [spelt(pair.slice(0, at).trim()), decoded(pair.slice(at + 1).trim())];
    }),
  );
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
