/** Reaching a controller: directly, through real proxies, and with the reason in words when a proxy or TLS is in the way. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { Server, ServerCredentials, type ServiceDefinition } from "@grpc/grpc-js";
import { createTls, loadTls, type TlsIdentity } from "../src/controller/tls.ts";
import { grpcLink } from "../src/daemon/grpc-link.ts";
import { startTls, type TunnelOptions } from "../src/daemon/tunnel.ts";
import { freePort } from "../src/platform/free-port.ts";
import { type ProxyRoute, readProxy } from "../src/platform/proxy-env.ts";
import { clusterService } from "../src/wire/service.ts";
import { needs } from "./support/needs.ts";
import { fixedProxy, squid, tinyproxy } from "./support/proxies.ts";

const folder = mkdtempSync(join(tmpdir(), "aegis-proxy-"));
let tls: TlsIdentity;
let server: Server;
let port = 0;
/** Connections that reached the controller. */
let calls = 0;

beforeAll(async () => {
  mkdirSync(join(folder, "keys"));
  await createTls(folder, "controller.test", Date.now());
  tls = await loadTls(folder);
  server = new Server();
  server.addService({ attestNode: clusterService.attestNode } as unknown as ServiceDefinition, {
    attestNode: (_call: unknown, done: (error: null, answer: object) => void) => {
      calls++;
      done(null, { challengeId: "reached", challengeNonce: new Uint8Array(32) });
    },
  });
  const pair = { private_key: Buffer.from(tls.keyPem), cert_chain: Buffer.from(tls.certPem) };
  port = await new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createSsl(null, [pair]), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
});
afterAll(() => {
  server.forceShutdown();
  rmSync(folder, { recursive: true, force: true });
});

const trust = (changes: Partial<TunnelOptions> = {}): TunnelOptions => ({
  pins: [],
  caPem: tls.caPem,
  serverName: "localhost",
  clientCertificate: null,
  ...changes,
});

/** What one call answers: the challenge id, or the error's message. */
async function reach(changes: Partial<TunnelOptions> = {}, host = "localhost", to = port): Promise<string> {
  const link = grpcLink({ host, port: to, tls: trust(changes) });
  try {
    return (await link.attest({})).challengeId;
  } catch (error) {
    return (error as Error).message;
  } finally {
    link.close();
  }
}

const through = (to: number, user = ""): ProxyRoute => readProxy(`http://${user}127.0.0.1:${to}`, "HTTPS_PROXY");

describe("directly", () => {
  test("a name and an address both work, by authority or by pin", async () => {
    expect(await reach()).toBe("reached");
    expect(await reach({ serverName: "127.0.0.1" }, "127.0.0.1")).toBe("reached");
    expect(await reach({ pins: tls.pins.slice(1) })).toBe("reached");
    expect(await reach({ pins: tls.pins.slice(0, 1) })).toBe("reached");
  });

  test("a pinned leaf needs no name, and a pin alone makes nobody an authority", async () => {
    expect(await reach({ pins: tls.pins.slice(0, 1), serverName: "other.test" })).toBe("reached");
    expect(await reach({ pins: tls.pins.slice(1), serverName: "other.test" })).toContain("other.test");
    expect(await reach({ caPem: null, pins: tls.pins })).toContain("is not trusted: SELF_SIGNED_CERT_IN_CHAIN");
  });

  test("a wrong name, another authority and another pin are refused in words", async () => {
    expect(await reach({ serverName: "other.test" })).toMatch(/TLS to other\.test: .*other\.test/);
    expect(await reach({ caPem: null })).toContain("the server's certificate is not trusted: ");
    const pin = `spki-sha256:${"A".repeat(43)}`;
    expect(await reach({ pins: [pin] })).toContain(
      `no certificate of the server matches the pinned key: got ${tls.pins[0]}`,
    );
  });

  test("a server without HTTP/2 and a port nobody listens on are named", async () => {
    const plain = createTlsServer({ cert: tls.certPem, key: tls.keyPem, ALPNProtocols: ["http/1.1"] }, (socket) =>
      socket.on("error", () => {}),
    );
    await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
    expect(await reach({}, "localhost", (plain.address() as AddressInfo).port)).toContain(
      "TLS to localhost: the server does not speak HTTP/2 (ALPN refused)",
    );
    plain.close();
    expect(await reach({}, "127.0.0.1", await freePort())).toContain("ECONNREFUSED");
  });

  for (const [way, secure] of [
    ["TLS", true],
    ["plaintext", false],
  ] as const)
    test(`a dial that failed over ${way} is not made once more behind the back of whoever hung up`, async () => {
      const later = await freePort();
      const link = grpcLink({ host: "127.0.0.1", port: later, tls: secure ? trust() : null });
      await expect(link.attest({})).rejects.toThrow("ECONNREFUSED");
      let dials = 0;
      const listener = createServer((socket) => {
        dials++;
        socket.destroy();
      });
      await new Promise<void>((resolve) => listener.listen(later, "127.0.0.1", resolve));
      await Bun.sleep(1_500); // grpc-js tries again after a second, give or take a fifth
      expect(dials).toBe(0);
      listener.close();
    });
});

describe("through a proxy", () => {
  needs("command:tinyproxy")("tinyproxy carries it, with and without a password", async () => {
    const open = await tinyproxy();
    expect(await reach({ proxy: through(open.port) })).toBe("reached");
    expect(await reach({ proxy: through(open.port), serverName: "127.0.0.1" }, "127.0.0.1")).toBe("reached");
    await open.stop();
    const closed = await tinyproxy({ user: "ann:secret" });
    expect(await reach({ proxy: through(closed.port, "ann:secret@") })).toBe("reached");
    expect(await reach({ proxy: through(closed.port) })).toMatch(/asks for a user and password|401|407/);
    await closed.stop();
  });

  needs("command:squid", "root")("squid carries it, also when the way to squid is TLS", async () => {
    const plain = await squid();
    expect(await reach({ proxy: through(plain.port) })).toBe("reached");
    await plain.stop();
    const secure = await squid({ certPem: tls.certPem, keyPem: tls.keyPem });
    const route = readProxy(`https://localhost:${secure.port}`, "HTTPS_PROXY");
    expect(await reach({ proxy: route })).toContain(
      "TLS to the proxy localhost (HTTPS_PROXY): the server's certificate is not trusted",
    );
    const before = process.env.SSL_CERT_FILE;
    process.env.SSL_CERT_FILE = join(folder, "keys/tls-ca.pem");
    expect(await reach({ proxy: route })).toBe("reached");
    if (before === undefined) delete process.env.SSL_CERT_FILE;
    else process.env.SSL_CERT_FILE = before;
    await secure.stop();
  });

  const refusals: [answer: string | null, message: string][] = [
    [
      "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
      "asks for a user and password, or refused the ones it got (407)",
    ],
    ["HTTP/1.1 403 Forbidden\r\n\r\n", "forbids a tunnel to localhost:PORT (403)"],
    ["HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach localhost:PORT (502)"],
    ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "cannot reach localhost:PORT (503)"],
    ["HTTP/1.1 504 Gateway Timeout\r\n\r\n", "got no answer from localhost:PORT (504)"],
    ["HTTP/1.1 418 Teapot\r\n\r\n", 'answered CONNECT with "HTTP/1.1 418 Teapot"'],
    ["SSH-2.0-OpenSSH_9\r\n\r\n", 'answered CONNECT with "SSH-2.0-OpenSSH_9"'],
    ["x".repeat(20_000), "answered more than 16384 bytes before any tunnel"],
    ["", "closed the connection instead of answering CONNECT"],
    ["HTTP/1.1 200 OK\r\n\r\nnot TLS at all", "TLS to localhost: "],
  ];
  for (const [answer, message] of refusals)
    test(`that answers ${JSON.stringify(answer?.slice(0, 30))} is told so, and nothing goes around it`, async () => {
      const proxy = await fixedProxy(answer);
      const before = calls;
      const said = await reach({ proxy: through(proxy.port, "ann:secret@") });
      expect(said).toContain(message.replace("PORT", String(port)));
      if (answer !== null && !answer.startsWith("HTTP/1.1 200"))
        expect(said).toContain(`proxy 127.0.0.1:${proxy.port} (HTTPS_PROXY)`);
      expect(said).not.toContain("secret");
      expect(proxy.seen[0]).toStartWith(
        `CONNECT localhost:${port} HTTP/1.1\r\nHost: localhost:${port}\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n`,
      );
      expect(calls).toBe(before);
      await proxy.stop();
    });

  test("that is dead is named, and the controller is not dialled directly", async () => {
    const before = calls;
    const dead = await freePort();
    expect(await reach({ proxy: through(dead) })).toContain(
      `the proxy 127.0.0.1:${dead} (HTTPS_PROXY) cannot be reached: `,
    );
    await expect(startTls({ host: "localhost", port }, trust({ proxy: through(dead) }))).rejects.toThrow(
      `cannot connect to 127.0.0.1:${dead}`,
    );
    expect(calls).toBe(before);
  });

  needs("command:tinyproxy")("keeps the stream on that one connection", async () => {
    const proxy = await tinyproxy();
    const socket = await startTls({ host: "localhost", port }, trust({ proxy: through(proxy.port) }));
    expect(socket.alpnProtocol).toBe("h2");
    socket.destroy();
    await proxy.stop();
  });
});
