/** Carries one request to the controller's REST API and turns whatever goes wrong into an error that says what to do. */
import type { z } from "zod";
import { AegisError, type ErrorCode, errorTable, isErrorCode } from "../errors.ts";
import type { Secret } from "../platform/log.ts";
import { isLoopback } from "../platform/loopback.ts";
import { type TraceContext, traceparent } from "../platform/trace-context.ts";
import { version } from "../version.ts";
import { readValue } from "./read.ts";
import { apiVersion, apiVersionHeader } from "./version.ts";

export interface TransportOptions {
  /** Where the API is, such as `https://controller.example:8088`. */
  url: string;
  token: Secret;
  /** What alone is trusted; null = what the system trusts. */
  caPem: string | null;
  /** Ends every request. */
  signal?: AbortSignal;
  /** What the controller's spans belong under. */
  trace?: TraceContext | null;
}

export interface ApiRequest {
  method?: "GET" | "POST" | "PATCH" | "DELETE";
  /** Below the base, with a leading slash. */
  path: string;
  query?: Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;
  body?: unknown;
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
}

export interface Transport {
  send(request: ApiRequest): Promise<Response>;
  /** The body, checked. */
  body<T>(schema: z.ZodType<T>, response: Response): Promise<T>;
}

export function httpTransport({ url, token, caPem, signal, trace }: TransportOptions): Transport {
  const base = baseUrl(url);
  const traced = trace ? { traceparent: traceparent(trace), ...(trace.state ? { tracestate: trace.state } : {}) } : {};

  async function send(request: ApiRequest): Promise<Response> {
    const target = new URL(`${base.pathname.replace(/\/$/, "")}${request.path}`, base);
    for (const [name, value] of Object.entries(request.query ?? {}))
      for (const one of Array.isArray(value) ? value : [value])
        if (one !== undefined) target.searchParams.append(name, String(one));
    const signals = [signal, request.signal].filter((one) => one !== undefined);
    const stop = signals.length > 0 ? AbortSignal.any(signals) : null;
    const response = await fetch(target, {
      method: request.method ?? "GET",
      headers: {
        authorization: `Bearer ${token.reveal()}`,
        accept: "application/json, text/event-stream",
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
        ...traced,
        ...request.headers,
      },
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
      // The token goes to the controller and nowhere else.
      redirect: "error",
      ...(stop ? { signal: stop } : {}),
      ...(caPem === null ? {} : { tls: { ca: caPem } }),
    }).catch((cause: unknown) => {
      throw stop?.aborted ? new AegisError("cancelled", "cancelled", { cause }) : unreachable(base, cause);
    });
    if (response.ok) return response;
    throw await refusal(response);
  }

  async function body<T>(schema: z.ZodType<T>, response: Response): Promise<T> {
    const reading = readValue(schema, await response.json().catch(() => undefined));
    if (reading.kind === "value") return reading.value;
    const [problem] = reading.problems;
    throw new AegisError(
      "internal",
      `${base.origin} answered in a way this aegis does not understand: ${problem?.path} ${problem?.message}`,
      { hint: "compare the two versions: aegis --version, here and on the controller" },
    );
  }

  return { send, body };
}

/** For another protocol at the same address: `fetch` adds the token, trusts what is to be trusted and throws as `send` does. */
export function authorizedFetch({ url, token, caPem }: TransportOptions, path: string) {
  const base = baseUrl(url);
  const target = new URL(`${base.pathname.replace(/\/$/, "")}${path}`, base);
  return {
    url: target,
    async fetch(input: string | URL, init: RequestInit = {}): Promise<Response> {
      const headers = new Headers(init.headers);
      headers.set("authorization", `Bearer ${token.reveal()}`);
      const options = {
        ...init,
        headers,
        redirect: "error",
        ...(caPem === null ? {} : { tls: { ca: caPem } }),
      } as const;
      const response = await fetch(input, options).catch((cause: unknown) => {
        throw init.signal?.aborted ? new AegisError("cancelled", "cancelled", { cause }) : unreachable(base, cause);
      });
      if (response.ok || response.status === 405) return response;
      throw await refusal(response);
    },
  };
}

function baseUrl(text: string): URL {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:"))
    throw new AegisError("usage", `the controller's address ${JSON.stringify(text)} is no http or https URL`, {
      hint: "for example https://controller.example:8088",
    });
  if (url.protocol === "http:" && !isLoopback(url.hostname.replace(/^\[(.*)\]$/, "$1")))
    throw new AegisError("usage", `the token would travel unencrypted to ${url.host}: http is for this machine only`, {
      hint: `use https://${url.host}`,
    });
  return url;
}

const tlsCodes = /CERT|TLS|SSL|SIGNATURE|ISSUER/;

function unreachable(base: URL, cause: unknown): AegisError {
  const { code = "", message = String(cause) } = cause as { code?: string; message?: string };
  const untrusted = tlsCodes.test(code);
  // Some of Bun's messages begin with the code.
  const why = message.startsWith(code) ? message : `${code}: ${message}`;
  return new AegisError("unavailable", `cannot reach the controller at ${base.origin}: ${why}`, {
    cause,
    hint: untrusted
      ? `its certificate is not trusted here, as after a renewal; sign in again with the fingerprint that aegis controller ca prints there (the stored token stays): aegis login ${base.origin} --fingerprint SHA256:...`
      : "is it running (aegis controller start), and is the address right? aegis doctor looks closer",
  });
}

/** The server's own code, message and hint; where a proxy answered instead, what its status means. */
async function refusal(response: Response): Promise<AegisError> {
  const spoken = Number(response.headers.get(apiVersionHeader) ?? apiVersion);
  if (spoken !== apiVersion && response.status === 404)
    return new AegisError(
      "unprocessable",
      `${new URL(response.url).origin} speaks version ${spoken} of the API, and this aegis (${version}) speaks ${apiVersion}`,
      { hint: spoken > apiVersion ? "update this one: aegis update" : "update the controller: aegis update, there" },
    );
  const { errorBodySchema } = await import("./types.ts");
  const body = readValue(errorBodySchema, await response.json().catch(() => undefined));
  const known = body.kind === "value" ? body.value.error : null;
  const code: ErrorCode = known && isErrorCode(known.code) ? known.code : codeOf(response.status);
  const retryAfter = response.headers.get("retry-after");
  const hint = known?.hint ?? (retryAfter ? `try again in ${retryAfter} s` : undefined);
  const message =
    known?.message ?? `${new URL(response.url).origin} answered ${response.status} ${response.statusText}`;
  return new AegisError(code, message, hint ? { hint } : {});
}

function codeOf(status: number): ErrorCode {
  if (status === 502 || status === 504) return "unavailable";
  const found = Object.entries(errorTable).find(([code, { http }]) => http === status && code !== "usage");
  return (found?.[0] as ErrorCode | undefined) ?? "internal";
}
