/** The REST API as one function from request to response: who may call at all, what every error looks like, and the routes. */
import { randomUUID } from "node:crypto";
import { Hono } from "hono";
import { apiPage } from "../../api/api-page.ts";
import { openApiDocument } from "../../api/openapi.ts";
import { apiVersion, apiVersionHeader, versionOf } from "../../api/version.ts";
import { AegisError, errorTable } from "../../errors.ts";
import type { Log } from "../../platform/log.ts";
import { isLoopback } from "../../platform/loopback.ts";
import { version } from "../../version.ts";
import { isoOrNull } from "../host-view.ts";
import type { Metrics } from "../metrics.ts";
import { auditRoutes } from "./audit.ts";
import { type Authenticated, type Authenticator, createAuthenticator, requireScope } from "./auth.ts";
import { type FleetRoutes, fleetRoutes } from "./fleet.ts";
import { type GroupRoutes, groupRoutes } from "./groups.ts";
import { type HostRoutes, hostRoutes } from "./hosts.ts";
import type { McpHub } from "./mcp.ts";
import { TryLater } from "./rate-limit.ts";
import type { HttpContext, HttpEnv } from "./request.ts";
import { route } from "./route.ts";
import { type TenantRoutes, tenantRoutes } from "./tenants.ts";
import { type TokenRoutes, tokenRoutes } from "./tokens.ts";

export interface AppOptions extends FleetRoutes, GroupRoutes, HostRoutes, TenantRoutes, TokenRoutes {
  /** Names this controller is reached by, besides IP addresses and loopback: public endpoint, names of the certificate. */
  hostNames: readonly string[];
  log: Log;
  /** Whether requests can be served: the database answers, hosts can connect, nothing is closing. */
  ready(): Promise<boolean>;
  authenticator?: Authenticator;
  metrics?: Pick<Metrics, "text" | "contentType">;
  mcp?: Pick<McpHub, "handle">;
}

export type App = Hono<HttpEnv>;

export function createApp(options: AppOptions): App {
  const { log, store, time, ready } = options;
  const authenticator = options.authenticator ?? createAuthenticator({ store, time, log });
  const app = new Hono<HttpEnv>();

  app.use(async (c, next) => {
    const given = c.req.header("x-request-id");
    const requestId = given && /^[\w.-]{1,64}$/.test(given) ? given : randomUUID();
    c.set("requestId", requestId);
    const startedAt = time();
    await next();
    c.res.headers.set("x-request-id", requestId);
    c.res.headers.set(apiVersionHeader, String(apiVersion));
    c.res.headers.set("x-content-type-options", "nosniff");
    log.info("http", {
      ...{ method: c.req.method, path: c.req.path, status: c.res.status },
      ...{ duration_ms: time() - startedAt, request_id: requestId, principal: c.var.principal?.name },
    });
  });

  app.use(async (c, next) => {
    requireKnownHost(new URL(c.req.url).host, options.hostNames, c.req.header("origin"));
    await next();
  });

  async function identify(c: HttpContext): Promise<Authenticated> {
    try {
      return await authenticator.authenticate(c.req.header("authorization"));
    } catch (thrown) {
      const { code, message } = AegisError.from(thrown);
      const from = c.env?.remoteAddress;
      if (code === "unauthenticated") log.warn("api_refused", { reason: message, address: from, path: c.req.path });
      throw thrown;
    }
  }

  // Whoever is on this machine may look, and from elsewhere an administrator, who sees their own tenant.
  app.get("/metrics", async (c) => {
    const { metrics } = options;
    if (!metrics) return c.notFound();
    const local = isLocal(c);
    const tenantId = local ? undefined : requireScope(await identify(c), "aegis.admin").tenantId;
    return c.body(await metrics.text(tenantId), 200, { "content-type": metrics.contentType });
  });

  app.all("/mcp", async (c) => {
    const { mcp } = options;
    if (!mcp) return c.notFound();
    return await mcp.handle(c.req.raw, await identify(c));
  });

  app.get("/healthz", (c) => c.json({ status: "ok" }));
  app.get("/readyz", async (c) => {
    const isReady = await ready();
    return c.json({ status: isReady ? "ready" : "not_ready" }, isReady ? 200 : 503);
  });

  app.get("/openapi.json", (c) => c.json(openApiDocument({ version })));
  app.get("/docs", (c) => c.html(apiPage({ version })));

  app.use("/v1/*", async (c, next) => {
    c.set("principal", await identify(c));
    c.header("cache-control", "no-store");
    await next();
  });

  route(app, "whoami", async ({ principal: { name, tenantId, scopes, contexts, expiresAt } }) => ({
    ...{ principal: name, tenant_id: tenantId, scopes: [...scopes], contexts: [...contexts] },
    expires_at: isoOrNull(expiresAt),
  }));
  tokenRoutes(app, options);
  hostRoutes(app, options);
  groupRoutes(app, options);
  fleetRoutes(app, options);
  tenantRoutes(app, options);
  auditRoutes(app, options);

  app.notFound((c) => {
    const methods = app.routes
      .filter(({ method, path }) => method !== "ALL" && pathMatches(path, c.req.path))
      .map(({ method }) => method);
    const allow = [...new Set(methods)].sort().join(", ");
    const { method, path } = c.req;
    const wanted = versionOf(path);
    if (wanted !== null && wanted !== apiVersion)
      return errorResponse(
        new AegisError(
          "not_found",
          `this controller (aegis ${version}) speaks version ${apiVersion} of the API, and was asked in version ${wanted}`,
          {
            hint: wanted > apiVersion ? "update the controller: aegis update, there" : "update what asks: aegis update",
          },
        ),
      );
    if (!allow)
      return errorResponse(
        new AegisError("not_found", `there is nothing at ${path}`, {
          hint: "the API's description is at /openapi.json",
        }),
      );
    const body = { code: "invalid_request", message: `${path} does not take ${method}`, hint: `it takes ${allow}` };
    return Response.json({ error: body }, { status: 405, headers: { allow } });
  });

  app.onError((thrown, c) => {
    const error = AegisError.from(thrown);
    if (errorTable[error.code].http < 500 || errorTable[error.code].http === 503) return errorResponse(error);
    const requestId = c.var.requestId;
    log.error("http_failed", { method: c.req.method, path: c.req.path, request_id: requestId, error });
    return errorResponse(
      new AegisError("internal", "this controller could not answer", {
        hint: `its log says why; look for request ${requestId}`,
      }),
    );
  });
  return app;
}

/** From a process on this machine, and not through a proxy on it. */
function isLocal(c: HttpContext): boolean {
  const address = c.env?.remoteAddress?.replace(/^::ffff:/, "");
  const forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].some((name) => c.req.header(name));
  return address !== undefined && isLoopback(address) && !forwarded;
}

function errorResponse(error: AegisError): Response {
  const { code, message, hint } = error;
  const status = errorTable[code].http;
  const retryAfterSecs = error instanceof TryLater ? error.retryAfterSecs : 5;
  return Response.json(
    { error: { code: code === "usage" ? "invalid_request" : code, message, hint: hint ?? null } },
    {
      status,
      headers: {
        ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
        ...(status === 429 || status === 503 ? { "retry-after": String(retryAfterSecs) } : {}),
      },
    },
  );
}

/** `/v1/edge/hosts/:id` against `/v1/edge/hosts/x`. */
function pathMatches(pattern: string, path: string): boolean {
  const [wanted, given] = [pattern.split("/"), path.split("/")];
  return wanted.length === given.length && wanted.every((part, at) => part.startsWith(":") || part === given[at]);
}

const ipLiteral = /^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\])$/i;

/**
 * Keeps web pages out: one that points a name of its own at this machine's address comes with that name, and one that
 * simply sends a request comes with its own origin. An IP address cannot be pointed elsewhere.
 */
function requireKnownHost(host: string, names: readonly string[], origin: string | undefined): void {
  const nameOf = (authority: string) => authority.replace(/:\d+$/, "").toLowerCase().replace(/\.$/, "");
  const isKnown = (name: string) =>
    isLoopback(name) || ipLiteral.test(name) || names.some((known) => matchesName(known, name));
  if (!isKnown(nameOf(host)))
    throw new AegisError("forbidden", `this controller is not called ${JSON.stringify(nameOf(host))}`, {
      hint: `use the name of its public endpoint: ${names[0] ?? "localhost"}`,
    });
  if (origin !== undefined && URL.parse(origin)?.host !== host)
    throw new AegisError("forbidden", `requests from web pages of ${JSON.stringify(origin)} are not taken`);
}

/** `*.example.com` of a certificate stands for one label. */
function matchesName(known: string, name: string): boolean {
  const lower = known.toLowerCase();
  return lower === name || (lower.startsWith("*.") && name.slice(name.indexOf(".")) === lower.slice(1));
}
