import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { startOfTime, uuidOf } from "../../../test/support/controller-rows.ts";
import { type TestApi, testApi } from "../../../test/support/test-api.ts";
import type { FleetEvent } from "../../api/events.ts";
import { apiLimits } from "../../api/limits.ts";
import { parseSse } from "../../api/sse.ts";
import type { Host, HostDetail, Page } from "../../api/types.ts";
import { hashApiToken, newApiToken } from "./auth.ts";

let api: TestApi;
beforeEach(async () => {
  api = await testApi();
});
afterEach(() => api.close());

interface ErrorBody {
  error: { code: string; message: string; hint: string | null };
}
const errorOf = async (response: Response): Promise<[number, string, string]> => {
  const { error } = (await response.json()) as ErrorBody;
  return [response.status, error.code, error.message];
};
const json = async <T>(response: Response): Promise<T> => {
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as T;
};
const settle = async () => {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
};

describe("who may ask", () => {
  test("a token is recognisable, has 256 random bits and is kept as a hash", async () => {
    const token = newApiToken();
    expect(token).toMatch(/^aegis_[A-Za-z0-9_-]{43}$/);
    expect(newApiToken()).not.toBe(token);
    const { token: kept } = await api.token();
    expect(await api.store.apiTokenByHash(hashApiToken(kept))).toMatchObject({ name: "ann" });
  });

  test("nobody without a token, with another scheme, or with a token of someone else", async () => {
    const without = await api.request("GET", "/v1/whoami", { token: null });
    expect(without.headers.get("www-authenticate")).toBe("Bearer");
    expect(await errorOf(without)).toEqual([401, "unauthenticated", "a bearer token is needed"]);
    const basic = await api.request("GET", "/v1/whoami", { token: null, headers: { authorization: "Basic YTpi" } });
    expect((await errorOf(basic))[0]).toBe(401);
    const foreign = await api.request("GET", "/v1/whoami", { token: newApiToken() });
    expect(await errorOf(foreign)).toEqual([401, "unauthenticated", "the token is not one of this controller's"]);
  });

  test("whoami tells what the token is good for", async () => {
    const { token } = await api.token({ scopes: ["aegis.edge.fleet.read"], expiresAt: startOfTime + 60_000 });
    expect(await json<unknown>(await api.request("GET", "/v1/whoami", { token }))).toEqual({
      ...{ principal: "ann", tenant_id: "acme", scopes: ["aegis.edge.fleet.read"], contexts: ["default"] },
      expires_at: "2026-01-01T00:01:00.000Z",
    });
  });

  test("a token ends when it expires, and at once when it is revoked", async () => {
    const expiring = await api.token({ expiresAt: startOfTime + 1_000 });
    await api.clock.advance(999);
    expect((await api.request("GET", "/v1/whoami", { token: expiring.token })).status).toBe(200);
    await api.clock.advance(1);
    const [status, , message] = await errorOf(await api.request("GET", "/v1/whoami", { token: expiring.token }));
    expect([status, message]).toEqual([401, "the token expired at 2026-01-01T00:00:01.000Z"]);

    const { token, tokenId } = await api.token();
    expect((await api.request("GET", "/v1/whoami", { token })).status).toBe(200);
    await api.store.revokeApiToken("acme", tokenId, startOfTime);
    expect(await errorOf(await api.request("GET", "/v1/whoami", { token }))).toEqual([
      ...([401, "unauthenticated", "the token was revoked"] as const),
    ]);
  });

  test("the last use is written down once a minute at most", async () => {
    const { token } = await api.token();
    const lastUse = async () => {
      await settle();
      return (await api.store.apiTokenByHash(hashApiToken(token)))?.lastUsedAt;
    };
    for (const [afterMs, expected] of [
      [0, 0],
      [59_999, 0],
      [1, 60_000],
    ] as const) {
      await api.clock.advance(afterMs);
      await api.request("GET", "/v1/whoami", { token });
      expect(await lastUse()).toBe(startOfTime + expected);
    }
  });

  const routes: [method: string, path: string, scope: string][] = [
    ["POST", "/v1/edge/enrollment-tokens", "aegis.edge.enroll"],
    ["GET", "/v1/edge/hosts", "aegis.edge.hosts.read"],
    ["GET", "/v1/edge/hosts/x", "aegis.edge.hosts.read"],
    ["POST", "/v1/edge/fleet/preview", "aegis.edge.fleet.read"],
    ["POST", "/v1/edge/fleet/invoke", "aegis.edge.fleet.manage"],
    ["POST", "/v1/edge/fleet/x/cancel", "aegis.edge.fleet.manage"],
    ["GET", "/v1/edge/fleet/runs/x/events", "aegis.edge.fleet.read"],
  ];
  for (const [method, path, scope] of routes)
    test(`${method} ${path} needs ${scope}`, async () => {
      const body = method === "POST" ? {} : undefined;
      const others = [...new Set(routes.map(([, , one]) => one))].filter((one) => one !== scope);
      const refused = await errorOf(
        await api.request(method, path, { body, token: (await api.token({ scopes: others })).token }),
      );
      expect(refused.slice(0, 2)).toEqual([403, "forbidden"]);
      expect(refused[2]).toContain(scope);
      const allowed = await api.request(method, path, { body, token: (await api.token({ scopes: [scope] })).token });
      expect(allowed.status).not.toBe(403);
      expect((await api.request(method, path, { body, token: null })).status).toBe(401);
    });

  test("web pages are kept out: unknown names and foreign origins are refused, addresses and own names are not", async () => {
    const ask = (url: string, headers: Record<string, string> = {}) => api.app.fetch(new Request(url, { headers }));
    const known = [
      "localhost:8088",
      "127.0.0.1",
      "[::1]:8088",
      "10.1.2.3:8088",
      "controller.example",
      "a.fleet.example",
    ];
    for (const host of [...known, "CONTROLLER.example."])
      expect((await ask(`http://${host}/healthz`)).status).toBe(200);
    for (const host of ["evil.example", "fleet.example", "a.b.fleet.example", "localhost.evil.example"])
      expect(await errorOf(await ask(`http://${host}/healthz`))).toEqual([
        ...([403, "forbidden", `this controller is not called "${host}"`] as const),
      ]);
    expect((await ask("http://localhost/healthz", { origin: "https://evil.example" })).status).toBe(403);
    expect((await ask("http://localhost/healthz", { origin: "null" })).status).toBe(403);
    expect((await ask("http://localhost/healthz", { origin: "http://localhost" })).status).toBe(200);
    expect((await ask("http://localhost/healthz")).headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("what is not understood", () => {
  test("an unknown path is a 404 and a wrong method a 405 that names the right ones", async () => {
    expect((await errorOf(await api.request("GET", "/v1/edge/nothing"))).slice(0, 2)).toEqual([404, "not_found"]);
    const wrong = await api.request("DELETE", "/v1/edge/fleet/invoke");
    expect(wrong.headers.get("allow")).toBe("POST");
    expect((await errorOf(wrong)).slice(0, 2)).toEqual([405, "invalid_request"]);
  });

  const bodies: [string, string | Uint8Array<ArrayBuffer>, RegExp][] = [
    ["no JSON", "{", /the body is no JSON/],
    ["no object", "[1]", /expected object/],
    ["invalid UTF-8", new Uint8Array([0x22, 0xff, 0x22]), /not UTF-8/],
    ["no target", "{}", /target:/],
    ["a misspelt field", '{"target":"All","tool":"cmd.run","polcy":{}}', /polcy: unknown field; did you mean policy\?/],
    ["a misspelt field inside", '{"target":"All","tool":"a","policy":{"modus":"x"}}', /policy\.modus: unknown field/],
    ["an unknown mode", '{"target":"All","tool":"a","policy":{"mode":"fast"}}', /policy\.mode: .*parallel/],
    ["a nonsense target", '{"target":{"Everything":1},"tool":"a"}', /is no target: give "All"/],
    [
      "a nonsense selector",
      '{"target":{"Selector":{"labels":[{"Is":1}]}},"tool":"a"}',
      /target\.Selector\.labels\[0\]/,
    ],
    [
      "rolling without batch",
      '{"target":"All","tool":"a","policy":{"mode":"rolling"}}',
      /policy\.batch: mode rolling needs/,
    ],
    [
      "batch without rolling",
      '{"target":"All","tool":"a","policy":{"batch":2}}',
      /policy\.batch: is only for mode rolling/,
    ],
    ["both names of a field", '{"target":"All","tool":"a","tool_name":"b"}', /tool_name: is another name of tool/],
    ["args twice", '{"target":"All","tool":"a","args":{},"args_json":"{}"}', /args or args_json, not both/],
    ["args_json that is none", '{"target":"All","tool":"a","args_json":"[]"}', /args_json is no JSON object/],
  ];
  for (const [what, body, message] of bodies)
    test(`${what} is refused, and the message says so`, async () => {
      const headers = { "content-type": "application/json", authorization: `Bearer ${(await api.token()).token}` };
      const response = await api.app.fetch(
        new Request("http://localhost/v1/edge/fleet/invoke", { method: "POST", body, headers }),
      );
      const [status, code, words] = await errorOf(response);
      expect([status, code]).toEqual([400, "invalid_request"]);
      expect(words).toMatch(message);
      expect(api.dispatcher.calls).toEqual([]);
    });

  test("a body may be 2 MiB and not a byte more, with and without its length in front", async () => {
    const start = '{"name":"';
    const body = (bytes: number) => `${start}${"x".repeat(bytes - start.length - 2)}"}`;
    const atLimit = await errorOf(
      await api.request("POST", "/v1/edge/enrollment-tokens", { body: body(apiLimits.bodyBytes) }),
    );
    expect(atLimit.slice(0, 2)).toEqual([400, "invalid_request"]);
    const over = body(apiLimits.bodyBytes + 1);
    const [status, code, message] = await errorOf(
      await api.request("POST", "/v1/edge/enrollment-tokens", { body: over }),
    );
    expect([status, code]).toEqual([413, "too_large"]);
    expect(message).toContain(String(apiLimits.bodyBytes));
    const stream = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(over));
        controller.close();
      },
    });
    const headers = { authorization: `Bearer ${(await api.token()).token}` };
    const streamed = new Request("http://localhost/v1/edge/enrollment-tokens", {
      method: "POST",
      body: stream,
      headers,
    });
    expect((await errorOf(await api.app.fetch(streamed)))[0]).toBe(413);
  });

  test("what goes wrong inside is not shown, only the request's id", async () => {
    const broken = await testApi({ ready: () => Promise.reject(new Error("secret")) });
    const response = await broken.request("GET", "/readyz", { headers: { "x-request-id": "abc-1" } });
    await broken.close();
    expect(response.status).toBe(500);
    const { error } = (await response.json()) as ErrorBody;
    expect(JSON.stringify(error)).not.toContain("secret");
    expect(error.hint).toContain("abc-1");
    expect(response.headers.get("x-request-id")).toBe("abc-1");
  });
});

describe("hosts", () => {
  test("are listed with what they are, page by page, and an insert moves no page", async () => {
    for (let at = 0; at < 5; at++) await api.nodes.add(api.store, `h${at}`, { enrolledAt: startOfTime + at });
    await api.nodes.add(api.store, "foreign", { tenantId: "other" });
    await api.nodes.add(api.store, "gone", { revokedAt: startOfTime });
    const seen: string[] = [];
    let path = "/v1/edge/hosts?limit=2";
    for (let pages = 0; ; pages++) {
      const page = await json<Page<Host>>(await api.request("GET", path));
      expect(page.items.length).toBeLessThanOrEqual(2);
      seen.push(...page.items.map(({ name }) => name));
      if (page.next_cursor === null) break;
      path = `/v1/edge/hosts?limit=2&cursor=${page.next_cursor}`;
      await api.nodes.add(api.store, `new-${pages}`, { enrolledAt: startOfTime - 1 });
    }
    expect(seen).toEqual(["h0", "h1", "h2", "h3", "h4"]);
  });

  test("are filtered by tag, label, connection, and shown when revoked only if asked", async () => {
    await api.nodes.add(api.store, "a", { tags: ["prod", "web"], labels: { region: "eu" } });
    await api.nodes.add(api.store, "b", { tags: ["prod"], status: "disconnected" });
    await api.nodes.add(api.store, "c", { revokedAt: startOfTime });
    const names = async (query: string) =>
      (await json<Page<Host>>(await api.request("GET", `/v1/edge/hosts?${query}`))).items
        .map(({ name }) => name)
        .sort();
    expect(await names("")).toEqual(["a", "b"]);
    expect(await names("tag=prod&tag=web")).toEqual(["a"]);
    expect(await names("label=region=eu")).toEqual(["a"]);
    expect(await names("label=region=us")).toEqual([]);
    expect(await names("connected=true")).toEqual(["a"]);
    expect(await names("connected=false")).toEqual(["b"]);
    expect(await names("all=true")).toEqual(["a", "b", "c"]);
  });

  test("one host tells its tools and what ran on it last; another tenant's is not there", async () => {
    await api.nodes.add(api.store, "a", { labels: { region: "eu" } });
    await api.nodes.add(api.store, "b", { tenantId: "other" });
    const host = await json<HostDetail>(await api.request("GET", `/v1/edge/hosts/${uuidOf("acme a")}`));
    expect(host).toMatchObject({
      ...{ node_id: uuidOf("acme a"), name: "a", tenant_id: "acme", status: "connected", seal: "strict" },
      capabilities: { os: "linux", labels: { region: "eu" }, local_tools: ["shell"] },
      key_fingerprint: expect.stringMatching(/^SHA256:/),
      recent_commands: [],
    });
    expect(host.tools.map(({ name, read_only }) => [name, read_only])).toEqual([
      ["cmd.run", false],
      ["host.info", true],
    ]);
    const foreign = await errorOf(await api.request("GET", `/v1/edge/hosts/${uuidOf("other b")}`));
    expect(foreign.slice(0, 2)).toEqual([404, "not_found"]);
  });

  test("a cursor of another list, of another tenant, or made up is refused", async () => {
    for (let at = 0; at < 3; at++) await api.nodes.add(api.store, `h${at}`, { tenantId: "other" });
    const { token } = await api.token({ tenantId: "other" });
    const page = await json<Page<Host>>(await api.request("GET", "/v1/edge/hosts?limit=1", { token }));
    for (const cursor of [page.next_cursor, "nonsense", Buffer.from('["runs","acme",1,"x"]').toString("base64url")]) {
      for (const list of ["/v1/edge/hosts", "/v1/tenants"]) {
        const [status, , message] = await errorOf(await api.request("GET", `${list}?cursor=${cursor}`));
        expect([status, message]).toEqual([400, "the cursor is none of this list"]);
      }
    }
  });

  test("a nonsense query is refused by name", async () => {
    const cases: [string, RegExp][] = [
      ["limit=0", /limit/],
      ["limit=201", /limit/],
      ["tags=a", /tags: unknown field; did you mean tag\?/],
      ["limit=1&limit=2", /limit 2 times/],
      ["label=x", /KEY=VALUE/],
    ];
    for (const [query, message] of cases) {
      const [status, , words] = await errorOf(await api.request("GET", `/v1/edge/hosts?${query}`));
      expect(status).toBe(400);
      expect(words).toMatch(message);
    }
  });
});

describe("enrollment tokens", () => {
  test("are issued under either name, with the command to paste", async () => {
    for (const body of [{ name: "east" }, { issued_to: "east" }]) {
      const response = await api.request("POST", "/v1/edge/enrollment-tokens", { body });
      expect(response.status).toBe(201);
      expect(await response.json()).toEqual({
        token: "header.payload.signature",
        expires_at: "2026-01-01T00:15:00.000Z",
        controller_endpoint: "https://controller.example:50056",
        qr_payload: "aegis-edge-enroll://header.payload.signature",
        command_hint: "aegis edge enroll header.payload.signature",
        issued_to: "east",
      });
    }
  });

  test("live fifteen minutes at most, and are bound to hosts of the tenant only", async () => {
    const issue = async (body: unknown) => (await api.request("POST", "/v1/edge/enrollment-tokens", { body })).status;
    expect(await issue({ ttl_seconds: 900 })).toBe(201);
    expect(await issue({ ttl_seconds: 901 })).toBe(400);
    await api.nodes.add(api.store, "a");
    await api.nodes.add(api.store, "b", { tenantId: "other" });
    expect(await issue({ for_node: "a" })).toBe(201);
    expect(await issue({ for_node: uuidOf("other b") })).toBe(404);
  });
});

describe("runs over SSE", () => {
  const body = { target: "All", tool: "cmd.run", args: { command: "uptime" } };
  const messages = async (response: Response): Promise<FleetEvent[]> => {
    if (!response.ok || !response.body) throw new Error(await response.text());
    const events: FleetEvent[] = [];
    for await (const { id, event, data } of parseSse(response.body))
      events.push({ id: Number(id), event, data: JSON.parse(data) } as FleetEvent);
    return events;
  };

  test("every event has its number and name, and a later reader gets the same ones", async () => {
    await api.nodes.add(api.store, "a");
    api.react = (call) => {
      call.print("up 3 days\n");
      call.answer({ stdout: { head: Buffer.from("up 3 days\n"), tail: new Uint8Array(), bytes: 10 } });
    };
    const response = await api.request("POST", "/v1/edge/fleet/invoke", { body });
    expect(response.headers.get("content-type")).toStartWith("text/event-stream");
    const events = await messages(response);
    expect(events.map(({ event }) => event)).toEqual([
      "started",
      "node_started",
      "command_progress",
      "command_result",
      "fleet_result",
    ]);
    expect(events[2]?.data).toMatchObject({ stream: "stdout", data: "up 3 days\n", offset: 0, skipped_bytes: 0 });
    expect(events[3]?.data).toMatchObject({ ok: true, exit_code: 0, stdout: { head: "up 3 days\n", omitted: 0 } });
    const runId = api.dispatcher.calls[0]?.request.runId;
    const again = await api.request("GET", `/v1/edge/fleet/runs/${runId}/events`, {
      headers: { "last-event-id": "2" },
    });
    expect(await messages(again)).toEqual(events.slice(2));
    const foreign = await api.token({ tenantId: "other" });
    const other = await api.request("GET", `/v1/edge/fleet/runs/${runId}/events`, { token: foreign.token });
    expect(other.status).toBe(404);
  });

  test("a silent run is kept alive by a comment every 15 s", async () => {
    await api.nodes.add(api.store, "a");
    const response = await api.request("POST", "/v1/edge/fleet/invoke", { body });
    const reader = response.body?.getReader();
    const read = async () => new TextDecoder().decode((await reader?.read())?.value);
    expect(await read()).toContain("event: started");
    expect(await read()).toContain("event: node_started");
    const next = read();
    await settle();
    await api.clock.advance(15_000);
    expect(await next).toBe(": still here\n\n");
    api.dispatcher.open[0]?.answer();
    expect(await read()).toContain("event: command_result");
  });

  test("a client that goes away leaves its run alone, unless it asked for the contrary", async () => {
    await api.nodes.add(api.store, "a");
    for (const abort of [false, true]) {
      const response = await api.request("POST", "/v1/edge/fleet/invoke", {
        body: { ...body, abort_on_disconnect: abort },
      });
      const reader = response.body?.getReader();
      await reader?.read();
      await reader?.cancel();
      await settle();
      expect(api.dispatcher.calls.at(-1)?.signal.aborted).toBe(abort);
      if (abort) expect(api.dispatcher.calls.at(-1)?.signal.reason).toBe("client_gone");
      else api.dispatcher.open[0]?.answer();
    }
  });

  test("a run is cancelled by its id", async () => {
    await api.nodes.add(api.store, "a");
    const response = await api.request("POST", "/v1/edge/fleet/invoke", { body });
    await settle();
    const runId = api.dispatcher.calls[0]?.request.runId;
    const answer = await api.request("POST", `/v1/edge/fleet/${runId}/cancel`, { body: { reason: "enough" } });
    expect(await json<unknown>(answer)).toEqual({ run_id: runId, cancelled: 1, already_terminal: 0 });
    expect((await messages(response)).at(-1)?.data).toMatchObject({ outcome: "cancelled" });
    const { token } = await api.token({ tenantId: "other" });
    expect((await api.request("POST", `/v1/edge/fleet/${runId}/cancel`, { body: {}, token })).status).toBe(404);
  });

  test("a retried request with the same key does nothing twice, with another body it is refused", async () => {
    await api.nodes.add(api.store, "a");
    const headers = { "idempotency-key": "k-1" };
    const first = await api.request("POST", "/v1/edge/fleet/invoke", { body, headers });
    const second = await api.request("POST", "/v1/edge/fleet/invoke", { body, headers });
    await settle();
    api.dispatcher.open[0]?.answer();
    expect(await messages(second)).toEqual(await messages(first));
    expect(api.dispatcher.calls.length).toBe(1);
    const changed = await api.request("POST", "/v1/edge/fleet/invoke", { body: { ...body, tool: "x" }, headers });
    expect((await errorOf(changed)).slice(0, 2)).toEqual([409, "conflict"]);
    const bad = await api.request("POST", "/v1/edge/fleet/invoke", { body, headers: { "idempotency-key": "a b" } });
    expect(bad.status).toBe(400);
  });

  test("the exact text of the arguments reaches the host", async () => {
    await api.nodes.add(api.store, "a");
    const text = '{"command":"true", "n": 1e2}';
    await api.request("POST", "/v1/edge/fleet/invoke", { body: { target: "All", tool: "cmd.run", args_json: text } });
    await settle();
    expect(api.dispatcher.calls[0]?.request.argsJson).toBe(text);
    api.dispatcher.open[0]?.answer();
  });
});

describe("health", () => {
  test("is told without a token", async () => {
    expect(await json<unknown>(await api.request("GET", "/healthz", { token: null }))).toEqual({ status: "ok" });
    expect(await json<unknown>(await api.request("GET", "/readyz", { token: null }))).toEqual({ status: "ready" });
    const closing = await testApi({ ready: async () => false });
    expect((await closing.request("GET", "/readyz", { token: null })).status).toBe(503);
    await closing.close();
  });
});
