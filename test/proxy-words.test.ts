/** README's table of what can stand between a host and its controller: each line is provoked, and said word for word. */
import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { createTls, loadTls, type TlsIdentity } from "../src/controller/tls.ts";
import { grpcLink } from "../src/daemon/grpc-link.ts";
import type { StreamEnd } from "../src/daemon/link.ts";
import type { TunnelOptions } from "../src/daemon/tunnel.ts";
import { freePort } from "../src/platform/free-port.ts";
import { readProxy } from "../src/platform/proxy-env.ts";
import { needs } from "./support/needs.ts";
import { fixedProxy } from "./support/proxies.ts";

setDefaultTimeout(60_000); // what says nothing is waited for

const folder = mkdtempSync(join(tmpdir(), "aegis-words-"));
const closing: (() => unknown)[] = [];
let tls: TlsIdentity;

beforeAll(async () => {
  mkdirSync(join(folder, "keys"));
  await createTls(folder, "controller.test", Date.now());
  tls = await loadTls(folder);
});
afterAll(async () => {
  for (const close of closing) await close();
  rmSync(folder, { recursive: true, force: true });
});

/** The first column of the table, as what a whole message must look like. */
function rows(): { said: string; pattern: RegExp }[] {
  const readme = readFileSync(join(import.meta.dir, "../README.md"), "utf8");
  const [, table = ""] = /^\| said, after .*\n\| --- .*\n((?:\|.*\n)+)/m.exec(readme) ?? [];
  return [...table.matchAll(/^\| `([^`]+)` \|/gm)].map(([, said = ""]) => {
    const escaped = said.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const address = "(?:localhost|127\\.0\\.0\\.1):\\d+";
    const pattern = escaped
      .replace(/\bHOST\b/g, "(?:localhost|127\\.0\\.0\\.1)")
      .replace(/\bPIN\b/g, "spki-sha256:\\S{43}")
      .replace(/\b[PC]\b/g, address);
    return { said, pattern: new RegExp(`^cannot reach the controller at https://${address}: ${pattern}$`) };
  });
}

async function reach(port: number, changes: Partial<TunnelOptions> = {}): Promise<string> {
  const trust = { pins: [], caPem: tls.caPem, serverName: "localhost", clientCertificate: null };
  const link = grpcLink({ host: "localhost", port, tls: { ...trust, ...changes } });
  try {
    await link.attest({});
    return "nothing is wrong";
  } catch (error) {
    return (error as Error).message;
  } finally {
    link.close();
  }
}

async function listen(server: Server): Promise<number> {
  closing.push(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

const through = async (port: number, scheme = "http"): Promise<string> =>
  await reach(await freePort(), { proxy: readProxy(`${scheme}://localhost:${port}`, "HTTPS_PROXY") });

const answering = async (answer: string | null, secure = false): Promise<number> => {
  const proxy = await fixedProxy(answer, secure ? { cert: tls.certPem, key: tls.keyPem } : undefined);
  closing.push(() => proxy.stop());
  return proxy.port;
};

const speaksTls = (): Promise<number> =>
  listen(createTlsServer({ cert: tls.certPem, key: tls.keyPem }, (socket) => socket.on("error", () => {})));

/** How a daemon's stream ends before there is one, on a port that takes connections and says nothing. */
async function openOn(port: number): Promise<string> {
  const link = grpcLink({ host: "localhost", port, tls: null });
  const over = new AbortController();
  try {
    return await new Promise((resolve, reject) => {
      const handlers = { onCommand() {}, onEnd: (end: StreamEnd) => resolve(`it ended: ${end.message}`) };
      link.open(handlers, over.signal).then(() => resolve("it opened"), reject);
    });
  } catch (error) {
    return (error as Error).message;
  } finally {
    link.close();
  }
}

/** A port whose kernel takes no more connections, and drops what asks for one. */
async function deaf(): Promise<number> {
  const full = `use Socket; my $to = sub { sockaddr_in(@_) };
    socket(my $listener, PF_INET, SOCK_STREAM, 0); bind($listener, $to->(0, INADDR_LOOPBACK)); listen($listener, 0);
    my ($port) = sockaddr_in(getsockname($listener)); my @kept;
    for (1..8) { socket(my $one, PF_INET, SOCK_STREAM | 2048, 0); connect($one, $to->($port, INADDR_LOOPBACK)); push @kept, $one }
    $| = 1; print "$port\\n"; sleep`;
  const child = Bun.spawn(["perl", "-e", full], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  closing.push(() => child.kill("SIGKILL"));
  const { value } = await child.stdout.getReader().read();
  return Number(Buffer.from(value ?? []).toString());
}

needs("linux", "command:perl")(
  "each line of README's table is what is said, and nothing else is; a stream waits no longer either",
  async () => {
    const opened = answering(null).then(openOn);
    const said = await Promise.all([
      freePort().then((port) => through(port)),
      deaf().then((port) => through(port)),
      answering(null).then((port) => through(port)),
      answering("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").then((port) => through(port)),
      answering("HTTP/1.1 403 Forbidden\r\n\r\n").then((port) => through(port)),
      answering("HTTP/1.1 502 Bad Gateway\r\n\r\n").then((port) => through(port)),
      answering("HTTP/1.1 400 Bad Request\r\n\r\n").then((port) => through(port, "https")),
      answering("", true).then((port) => through(port, "https")),
      speaksTls().then((port) => reach(port, { caPem: null })),
      speaksTls().then((port) => reach(port, { pins: [`spki-sha256:${"A".repeat(43)}`] })),
      answering("HTTP/1.1 400 Bad Request\r\n\r\n").then((port) => reach(port)),
      speaksTls().then((port) => reach(port)),
      answering(null).then((port) => reach(port)),
    ]);
    expect(await opened).toMatch(/^cannot reach the controller at http:\/\/localhost:\d+: no answer within 12 s$/);
    const table = rows();
    expect(table).toHaveLength(said.length);
    for (const [at, { said: row, pattern }] of table.entries())
      expect({ row, said: said[at] ?? "" }).toEqual({ row, said: expect.stringMatching(pattern) });
  },
);
