/** What `doctor` says of each thing that can stand between a host and its controller, and what it tells its owner to do. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { createServer as createWebServer } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { freePort } from "../src/platform/free-port.ts";
import { makeCertificate } from "./support/certificates.ts";
import { type Host, installation, jsonOf } from "./support/installation.ts";
import { fixedProxy } from "./support/proxies.ts";

setDefaultTimeout(60_000);

interface Finding {
  check: string;
  state: string;
  detail: string;
  remedy: string | null;
}

const site = await installation();
const servers: { close(): void }[] = [];
let host: Host;
let healthy = "";

beforeAll(async () => {
  host = await site.addHost("patient", { start: false });
  healthy = host.settings();
});
afterAll(async () => {
  await site.close();
  for (const server of servers) server.close();
});

async function listen(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** What doctor finds on the way when these settings or this environment stand instead. */
async function found(
  change: { from: RegExp; to: string } | null,
  env: Record<string, string> = {},
): Promise<Map<string, Finding>> {
  if (change) host.edit(change.from, change.to);
  try {
    const outcome = await site.place.machine("patient", env).run("doctor", "-o", "json");
    expect(outcome.exit).toBe(1); // no daemon runs, to say the least
    return new Map(jsonOf(outcome).map((one: Finding) => [one.check, one]));
  } finally {
    if (change) host.edit(/[\s\S]+/, healthy.replaceAll("$", "$$$$"));
  }
}

const endpoint = /https:\/\/localhost:\d+/g;
const to = (port: number, scheme = "https") => ({ from: endpoint, to: `${scheme}://localhost:${port}` });

/** The last step that was looked at failed, and no later one was tried. */
function stopsAt(findings: Map<string, Finding>, check: string, detail: RegExp, remedy: RegExp): void {
  const way = ["proxy", "dns", "tcp", "tls", "grpc", "health"].flatMap((step) => findings.get(step) ?? []);
  expect(way.at(-1)).toMatchObject({
    check,
    state: "failed",
    detail: expect.stringMatching(detail),
    remedy: expect.stringMatching(remedy),
  });
  expect(way.slice(0, -1).filter(({ state }) => state === "failed")).toEqual([]);
}

describe("without a proxy", () => {
  test("all is well up to the controller's health", async () => {
    const findings = await found(null);
    const way = ["proxy", "dns", "tcp", "tls", "grpc", "clock", "health"];
    expect(way.map((step) => findings.get(step)?.state)).toEqual(way.map(() => "ok"));
  });

  test("a port that nobody listens on", async () => {
    const port = await freePort();
    stopsAt(await found(to(port)), "tcp", new RegExp(`cannot connect to localhost:${port}`), /controller runs/);
  });

  test("a web server where the controller should be", async () => {
    const port = await listen(createWebServer((_, answer) => answer.end("hello")));
    stopsAt(await found(to(port)), "tls", /^TLS to localhost: /, /port of the controller's gRPC/);
  });

  test("the controller's certificate on a port that does not speak HTTP/2", async () => {
    const key = (name: string) => readFileSync(join(site.server.home, ".aegis/controller/keys", name), "utf8");
    const identity = { cert: key("tls.pem") + key("tls-ca.pem"), key: key("tls.key") };
    const port = await listen(
      createTlsServer({ ...identity, ALPNProtocols: ["http/1.1"] }, (socket) => socket.on("error", () => {})),
    );
    stopsAt(await found(to(port)), "tls", /^TLS to localhost: /, /gRPC|opens TLS/);
  });

  test("another key than the pinned one", async () => {
    const { pem, keyPem } = await makeCertificate({ name: "stranger", hosts: ["localhost"] });
    const port = await listen(
      createTlsServer({ cert: pem, key: keyPem, ALPNProtocols: ["h2"] }, (socket) => socket.on("error", () => {})),
    );
    const remedy = /aegis edge token issue --for NODE, then here aegis edge enroll --force/;
    stopsAt(await found(to(port)), "tls", /matches the pinned key: got spki-/, remedy);
  });
});

describe("with a proxy", () => {
  const through = (port: number, user = "") => ({ HTTPS_PROXY: `http://${user}127.0.0.1:${port}` });
  const refusals: [answer: string, detail: RegExp, remedy: RegExp][] = [
    ["HTTP/1.1 407 Who are you", /asks for a user and password.* \(407\)/, /http:\/\/USER:PASSWORD@HOST:PORT/],
    ["HTTP/1.1 403 Forbidden", /forbids a tunnel to localhost:\d+ \(403\)/, /allow CONNECT/],
    ["HTTP/1.1 502 Bad Gateway", /cannot reach localhost:\d+ \(502\)/, /that the proxy can resolve it/],
  ];
  for (const [answer, detail, remedy] of refusals)
    test(`that answers ${answer}`, async () => {
      const proxy = await fixedProxy(`${answer}\r\n\r\n`);
      const findings = await found(null, through(proxy.port, "ann:secret@"));
      stopsAt(findings, "tcp", detail, remedy);
      expect(findings.get("proxy")?.detail).toBe(`127.0.0.1 port ${proxy.port}, from HTTPS_PROXY`);
      expect(JSON.stringify([...findings])).not.toContain("secret");
      await proxy.stop();
    });

  test("that is dead", async () => {
    const port = await freePort();
    const said = new RegExp(`check that the proxy 127\\.0\\.0\\.1 port ${port} runs.*HTTPS_PROXY`);
    stopsAt(await found(null, through(port)), "tcp", new RegExp(`cannot connect to 127\\.0\\.0\\.1:${port}`), said);
  });

  test("whose address is none", async () => {
    stopsAt(
      await found(null, { HTTPS_PROXY: "socks5://127.0.0.1:1" }),
      "proxy",
      /asks for socks5/,
      /http:\/\/HOST:PORT/,
    );
  });
});

describe("at the far end", () => {
  /** Speaks HTTP/2 on this machine in plaintext, and answers each path as told. */
  async function farEnd(answer: (path: string, stream: ServerHttp2Stream) => void): Promise<number> {
    const server = createHttp2Server();
    server.on("stream", (stream: ServerHttp2Stream, headers) => answer(String(headers[":path"]), stream));
    return await listen(server);
  }

  const grpcStatus = (status: number, more: Record<string, string> = {}) => ({
    ...{ ":status": 200, "content-type": "application/grpc", "grpc-status": String(status), "grpc-message": "no" },
    ...more,
  });

  test("somebody who speaks HTTP/2, and is no controller", async () => {
    const port = await farEnd((_, stream) => {
      stream.respond({ ":status": 404, "content-type": "text/html", date: new Date().toUTCString() });
      stream.end("nothing here");
    });
    stopsAt(await found(to(port, "http")), "grpc", /cannot reach the controller/, /controller's gRPC/);
  });

  test("another service that speaks gRPC", async () => {
    const date = new Date().toUTCString();
    const port = await farEnd((_, stream) => stream.respond(grpcStatus(12, { date }), { endStream: true }));
    stopsAt(await found(to(port, "http")), "grpc", /cannot reach the controller/, /controller's gRPC/);
  });

  test("a clock that is two hours away, and no health service", async () => {
    const date = new Date(Date.now() + 2 * 3_600_000).toUTCString();
    const port = await farEnd((path, stream) =>
      stream.respond(grpcStatus(path.includes("Health") ? 12 : 3, { date }), { endStream: true }),
    );
    const findings = await found(to(port, "http"));
    expect(findings.get("grpc")?.state).toBe("ok");
    expect(findings.get("clock")).toMatchObject({
      state: "warning",
      detail: "this machine's clock is 2h behind the controller's",
      remedy: expect.stringContaining("timedatectl"),
    });
    expect(findings.get("health")?.state).toBe("skipped");
  });

  test("a controller that says it does not serve", async () => {
    const port = await farEnd((path, stream) => {
      if (!path.includes("Health")) return stream.respond(grpcStatus(3), { endStream: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.end(Buffer.from([0, 0, 0, 0, 2, 8, 2]));
    });
    stopsAt(await found(to(port, "http")), "health", /does not serve/, /aegis controller start/);
  });
});
