/** Proxies to go through: real ones from Debian, and ones that answer CONNECT with a fixed line. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { freePort } from "../../src/platform/free-port.ts";

export interface TestProxy {
  port: number;
  stop(): Promise<void>;
}

const listening = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
  });

/** Until something accepts on the port; a proxy that ended instead is an error with what it said. */
async function accepting(port: number, child: Bun.Subprocess<"ignore", "pipe", "pipe">): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("close", () => socket.destroy());
    });
    if (open) return;
    if (child.exitCode !== null) break;
    await Bun.sleep(25);
  }
  throw new Error(
    `the proxy did not start: ${await new Response(child.stderr).text()}${await new Response(child.stdout).text()}`,
  );
}

async function started(command: string[], port: number, folder: string): Promise<TestProxy> {
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  await accepting(port, child);
  return {
    port,
    async stop() {
      child.kill("SIGTERM"); // squid then takes its shared memory away
      await child.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function tinyproxy({ user }: { user?: string } = {}): Promise<TestProxy> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "aegis-tinyproxy-"));
  const file = join(folder, "tinyproxy.conf");
  const auth = user ? `BasicAuth ${user.replace(":", " ")}\n` : "";
  writeFileSync(file, `Port ${port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogLevel Error\n${auth}`);
  return await started(["tinyproxy", "-d", "-c", file], port, folder);
}

/** Squid, spoken to over TLS when a certificate is given. Started as root it goes on as Debian's user proxy. */
export async function squid({ certPem, keyPem }: { certPem?: string; keyPem?: string } = {}): Promise<TestProxy> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "aegis-squid-"));
  chmodSync(folder, 0o755);
  const certificate = join(folder, "both.pem");
  if (certPem && keyPem) writeFileSync(certificate, `${certPem}\n${keyPem}`);
  const listen = certPem ? `https_port 127.0.0.1:${port} tls-cert=${certificate}` : `http_port 127.0.0.1:${port}`;
  const config = [
    listen,
    "http_access allow all",
    "cache deny all",
    "access_log none",
    "cache_log /dev/null",
    "pid_filename none",
    "cache_effective_user proxy",
    "shutdown_lifetime 0 seconds",
    `coredump_dir ${folder}`,
  ];
  writeFileSync(join(folder, "squid.conf"), `${config.join("\n")}\n`);
  return await started(["squid", "-N", "-n", `aegis${port}`, "-f", join(folder, "squid.conf")], port, folder);
}

/** Reads one request and answers with `answer`, or with nothing at all when it is null. */
export async function fixedProxy(
  answer: string | null,
  tls?: { cert: string; key: string },
): Promise<TestProxy & { seen: string[] }> {
  const seen: string[] = [];
  const serve = (socket: Socket) => {
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      seen.push(chunk.toString("latin1"));
      if (answer !== null) socket.end(answer);
    });
  };
  const server: Server = tls ? createTlsServer(tls, serve) : createServer(serve);
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => sockets.add(socket));
  const port = await listening(server);
  return {
    port,
    seen,
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
