/** The REST client against real sockets: a whole controller, and servers that behave badly. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createApiClient } from "../src/api/client.ts";
import type { FleetEvent } from "../src/api/events.ts";
import { formatSse } from "../src/api/sse.ts";
import { serveHttp } from "../src/controller/http/serve.ts";
import { initController } from "../src/controller/init.ts";
import { startController } from "../src/controller/run.ts";
import { createTls, loadTls } from "../src/controller/tls.ts";
import { AegisError } from "../src/errors.ts";
import { systemClock } from "../src/platform/clock.ts";
import { Secret, silentLog } from "../src/platform/log.ts";
import { testApi } from "./support/test-api.ts";

const never = new AbortController().signal;
const clock = systemClock;
const failure = async (work: Promise<unknown>): Promise<AegisError> => {
  const thrown = await work.then(
    () => null,
    (error: unknown) => error,
  );
  if (thrown instanceof AegisError) return thrown;
  throw new Error(`expected an AegisError, got ${String(thrown)}`);
};

let directory: string;
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "aegis-api-"));
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
  await rm(directory, { recursive: true });
});

async function controller(publicEndpoint: string, options: { insecureHttp?: boolean } = {}) {
  const dataDir = join(directory, "controller");
  const init = await initController({ dataDir, publicEndpoint, tenantId: "acme", clock });
  const running = await startController({ dataDir, grpcPort: 0, httpPort: 0, clock, log: silentLog, ...options });
  cleanUp.push(() => running.close());
  return { running, token: init.operatorToken, dataDir };
}

describe("a whole controller", () => {
  test("serves plaintext on loopback only for a loopback endpoint, and says who is signed in", async () => {
    const { running, token } = await controller("localhost:50056");
    expect(running.httpUrl).toBe(`http://localhost:${running.httpPort}`);
    const api = createApiClient({ url: running.httpUrl, token, caPem: null });
    expect(await api.whoami()).toMatchObject({ principal: "admin", tenant_id: "acme", scopes: ["aegis.admin"] });
    expect((await fetch(`${running.httpUrl}/readyz`)).status).toBe(200);
  });

  test("serves TLS under its own CA for any other endpoint; who does not trust it is told how to", async () => {
    const { running, token } = await controller("controller.example:50056");
    expect(running.httpUrl).toBe(`https://controller.example:${running.httpPort}`);
    const url = `https://localhost:${running.httpPort}`;
    expect(await createApiClient({ url, token, caPem: running.caPem }).whoami()).toMatchObject({ tenant_id: "acme" });
    const stranger = await failure(createApiClient({ url, token, caPem: null }).whoami());
    expect(stranger).toMatchObject({ code: "unavailable", message: expect.stringContaining(url) });
    expect(stranger.hint).toContain("--fingerprint");
    await expect(fetch(`http://127.0.0.1:${running.httpPort}/healthz`)).rejects.toThrow();
  });

  test("with insecureHttp it speaks plaintext on 127.0.0.1, whatever its endpoint", async () => {
    const { running } = await controller("controller.example:50056", { insecureHttp: true });
    expect(running.httpUrl).toBe(`http://127.0.0.1:${running.httpPort}`);
    expect((await fetch(`${running.httpUrl}/healthz`, { headers: { host: "controller.example" } })).status).toBe(200);
  });

  test("a port that is in use is named, with the flag that changes it, and nothing stays open", async () => {
    const { running, dataDir } = await controller("localhost:50056");
    const start = (ports: { grpcPort: number; httpPort: number }) =>
      failure(startController({ dataDir, clock, log: silentLog, ...ports }));
    const http = await start({ grpcPort: 0, httpPort: running.httpPort });
    expect(http.message).toContain(String(running.httpPort));
    expect(http.hint).toContain("--port");
    const grpc = await start({ grpcPort: running.grpcPort, httpPort: 0 });
    expect(grpc.message).toContain(String(running.grpcPort));
    expect(grpc.hint).toContain("--grpc-port");
  });

  test("closes once, ends its connections, and its data can be opened again", async () => {
    const { running, token, dataDir } = await controller("localhost:50056");
    const api = createApiClient({ url: running.httpUrl, token, caPem: null });
    await api.whoami();
    await Promise.all([running.close(), running.close(), running.stopped]);
    const gone = await failure(api.whoami());
    expect(gone).toMatchObject({ code: "unavailable", exitCode: 5 });
    expect(gone.message.match(/ECONNREFUSED/g)).toHaveLength(1);
    expect(gone.message).toContain(running.httpUrl);
    expect(gone.hint).toContain("aegis controller start");
    const again = await startController({ dataDir, grpcPort: 0, httpPort: 0, clock, log: silentLog });
    cleanUp.push(() => again.close());
    expect(await createApiClient({ url: again.httpUrl, token, caPem: null }).whoami()).toMatchObject({
      principal: "admin",
    });
  });

  test("its own certificate files are served, one without the other is refused", async () => {
    const dataDir = join(directory, "controller");
    const { operatorToken: token } = await initController({
      ...{ dataDir, publicEndpoint: "controller.example:50056", tenantId: "acme", clock },
    });
    await Bun.write(join(directory, "keys", "x"), "");
    await createTls(directory, "rest.example", clock.now());
    const own = await loadTls(directory);
    const tlsCert = join(directory, "keys", "tls.pem");
    const tlsKey = join(directory, "keys", "tls.key");
    const half = await failure(startController({ dataDir, tlsCert, grpcPort: 0, httpPort: 0, clock, log: silentLog }));
    expect(half.message).toContain("--tls-key");
    const start = { dataDir, tlsCert, tlsKey, grpcPort: 0, httpPort: 0, clock, log: silentLog };
    const running = await startController(start);
    cleanUp.push(() => running.close());
    expect(running.caPem).toBeNull();
    const url = `https://localhost:${running.httpPort}`;
    expect(await createApiClient({ url, token, caPem: own.caPem }).whoami()).toMatchObject({ principal: "admin" });
    const named = await fetch(`${url}/healthz`, { headers: { host: "rest.example" }, tls: { ca: own.caPem ?? "" } });
    expect(named.status).toBe(200);
  });
});

describe("readers of a run", () => {
  async function flood() {
    const api = await testApi();
    await api.nodes.add(api.store, "a");
    const server = serveHttp({ app: api.app, host: "127.0.0.1", port: 0, tls: null });
    cleanUp.push(
      () => api.close(),
      () => server.close(true),
    );
    const { token } = await api.token();
    /** A client as slow as the test wants it. */
    const invoke = async (request: object) => {
      const body = JSON.stringify({ target: "All", tool: "cmd.run", ...request });
      const socket = connect(server.port, "127.0.0.1");
      const head = `POST /v1/edge/fleet/invoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}`;
      socket.write(`${head}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      while (api.dispatcher.open.length === 0) await new Promise(setImmediate);
      return socket;
    };
    return { api, invoke };
  }

  test("one that stops reading holds nobody up, costs little, and learns how much it missed", async () => {
    const { api, invoke } = await flood();
    const socket = await invoke({});
    let text = "";
    socket.on("data", (bytes) => {
      text += bytes;
      socket.pause();
    });
    const chunk = "x".repeat(32 * 1024);
    for (let at = 0; at < 2_000; at++) {
      api.dispatcher.open[0]?.print(chunk);
      if (at % 50 === 0) await new Promise(setImmediate);
    }
    api.dispatcher.open[0]?.answer();
    const runId = api.dispatcher.calls[0]?.request.runId ?? "";
    while (api.fleet.get("acme", runId)?.end === null) await new Promise(setImmediate);
    socket.removeAllListeners("data");
    const over = Promise.withResolvers<void>();
    socket.on("data", (bytes) => {
      text += bytes;
      if (text.includes("event: fleet_result")) over.resolve();
    });
    socket.resume();
    await over.promise;
    socket.destroy();
    expect(text.length).toBeLessThan(40 * 1024 * 1024);
    const missed = [...text.matchAll(/"skipped_bytes":(\d+)/g)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    const told = [...text.matchAll(/"data":"(x+)"/g)].reduce((sum, [, data]) => sum + (data?.length ?? 0), 0);
    expect(missed).toBeGreaterThan(0);
    expect(missed + told).toBe(2_000 * chunk.length);
  });

  test("one that vanishes ends its run only if it asked for that", async () => {
    const { api, invoke } = await flood();
    for (const abort of [true, false]) {
      const socket = await invoke({ abort_on_disconnect: abort });
      const call = api.dispatcher.calls.at(-1);
      socket.destroy();
      if (abort) while (!call?.signal.aborted) await new Promise(setImmediate);
      else {
        for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
        expect(call?.signal.aborted).toBe(false);
        call?.answer();
      }
      if (abort) expect(call?.signal.reason).toBe("client_gone");
    }
  });
});

describe("the client", () => {
  const token = new Secret("aegis_secret");
  const serve = (fetch: (request: Request) => Response | Promise<Response>) => {
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch });
    cleanUp.push(() => server.stop(true));
    return createApiClient({ url: `http://127.0.0.1:${server.port}/`, token, caPem: null });
  };

  test("passes on the controller's code, message and hint", async () => {
    const error = { code: "not_found", message: "no host", hint: "aegis edge ls" };
    const api = serve(() => Response.json({ error }, { status: 404 }));
    expect(await failure(api.host("x"))).toMatchObject(error);
  });

  test("understands an answer that is not the controller's by its status", async () => {
    const statuses = {
      401: "unauthenticated",
      413: "too_large",
      429: "rate_limited",
      502: "unavailable",
      500: "internal",
    };
    for (const [status, code] of Object.entries(statuses)) {
      const api = serve(() => new Response("<html>", { status: Number(status), headers: { "retry-after": "7" } }));
      expect(await failure(api.whoami())).toMatchObject({ code, hint: "try again in 7 s" });
    }
    const odd = await failure(serve(() => Response.json({ principal: 1 })).whoami());
    expect(odd).toMatchObject({ code: "internal", message: expect.stringContaining("principal") });
  });

  test("sends its token nowhere else: neither after a redirect nor unencrypted over a network", async () => {
    let seen = "";
    const elsewhere = Bun.serve({
      port: 0,
      fetch(request) {
        seen = request.headers.get("authorization") ?? "none";
        return Response.json({});
      },
    });
    cleanUp.push(() => elsewhere.stop(true));
    const api = serve(() => Response.redirect(`http://127.0.0.1:${elsewhere.port}/`, 307));
    expect((await failure(api.whoami())).code).toBe("unavailable");
    expect(seen).toBe("");
    expect(() => createApiClient({ url: "http://controller.example:8088", token, caPem: null })).toThrow("unencrypted");
    expect(() => createApiClient({ url: "controller.example", token, caPem: null })).toThrow("no http or https URL");
    expect(String(token)).not.toContain("secret");
  });

  test("an aborted request is cancelled, not unreachable", async () => {
    const stop = new AbortController();
    const api = serve(() => {
      stop.abort();
      return new Promise(() => {});
    });
    const events = api.invoke({ target: "All", tool: "cmd.run" }, { signal: stop.signal });
    expect(await failure(Array.fromAsync(events))).toMatchObject({ code: "cancelled", exitCode: 7 });
  });

  const started = { event: "started", data: { run_id: "r1", resolved: ["n1"], skipped: [], waves: null } };
  const nodeStarted = { event: "node_started", data: { run_id: "r1", node_id: "n1", name: "a", command_id: "c1" } };
  const printed = {
    event: "command_progress",
    data: { node_id: "n1", command_id: "c1", stream: "stdout", seq: 0, offset: 0, data: "x", skipped_bytes: 0 },
  };
  const summary = { ok: 1, err: 0, timed_out: 0, cancelled: 0, edge_disconnected: 0, skipped: 0, not_started: 0 };
  const at = "2026-01-01T00:00:00.000Z";
  const result = {
    event: "fleet_result",
    data: { run_id: "r1", outcome: "complete", summary, started_at: at, ended_at: at },
  };
  const stream = (...blocks: string[]) =>
    new Response(blocks.join(""), { headers: { "content-type": "text/event-stream" } });
  const invoke = (api: ReturnType<typeof serve>): Promise<FleetEvent[]> =>
    Array.fromAsync(api.invoke({ target: "All", tool: "cmd.run" }, { signal: never, idempotencyKey: "k1" }));

  test("takes up a run's events where a broken connection left them, and asks for the run only once", async () => {
    const asked: string[] = [];
    const api = serve((request) => {
      const after = request.headers.get("last-event-id");
      asked.push(
        `${request.method} ${new URL(request.url).pathname} ${after ?? request.headers.get("idempotency-key")}`,
      );
      if (after === null) return stream(formatSse({ id: 1, ...started }), "id: 2\nevent: node_st");
      const told = [formatSse({ id: 2, ...nodeStarted }), formatSse({ id: 3, ...printed })];
      if (asked.length === 2) return stream(...told);
      return stream(...told, formatSse({ id: 9, ...result }));
    });
    expect((await invoke(api)).map(({ id, event }) => `${id} ${event}`)).toEqual([
      "1 started",
      "2 node_started",
      "3 command_progress",
      "9 fleet_result",
    ]);
    expect(asked).toEqual([
      "POST /v1/edge/fleet/invoke k1",
      "GET /v1/edge/fleet/runs/r1/events 1",
      "GET /v1/edge/fleet/runs/r1/events 3",
    ]);
  });

  test("gives up on a stream that breaks without anything new, and names the run that goes on", async () => {
    let connections = 0;
    const api = serve(() => {
      connections++;
      return stream(formatSse({ id: 1, ...started }));
    });
    const error = await failure(invoke(api));
    expect(error).toMatchObject({ code: "unavailable", hint: expect.stringContaining("r1") });
    expect(connections).toBeLessThan(6);
  });

  test("passes over events it does not know, and over comments", async () => {
    const unknown = formatSse({ id: 2, event: "of_a_newer_version", data: { x: 1 } });
    const api = serve(() =>
      stream(formatSse({ id: 1, ...started }), ": hi\n\n", unknown, formatSse({ id: 3, ...result })),
    );
    expect((await invoke(api)).map(({ event }) => event)).toEqual(["started", "fleet_result"]);
  });
});
