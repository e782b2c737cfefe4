/** A front end before the controller that lets nobody in without a certificate, and authorities that only this machine knows. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { startTls } from "../src/daemon/tunnel.ts";
import { type Installation, installation } from "./support/installation.ts";
import { missing, needs } from "./support/needs.ts";

setDefaultTimeout(60_000);

const withOpenssl = needs("command:openssl");
const folder = mkdtempSync(join(tmpdir(), "aegis-front-"));
const at = (name: string): string => join(folder, name);
const pem = (name: string): string => readFileSync(at(name), "utf8");
const servers: Server[] = [];
let site: Installation;
let frontPort = 0;

function openssl(...args: string[]): void {
  const run = Bun.spawnSync(["openssl", ...args], { cwd: folder, stdout: "ignore", stderr: "pipe" });
  if (run.exitCode !== 0) throw new Error(`openssl ${args.join(" ")}: ${run.stderr}`);
}

const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** NAME.pem and NAME.key of an authority that signs itself. */
const authority = (name: string) =>
  openssl(
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.pem`,
    "-subj",
    `/CN=${name}`,
    "-days",
    "2",
  );

/** NAME.pem and NAME.key, signed by the authority. */
function leaf(name: string, by: string, san: string): void {
  openssl("req", ...newKey, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
  writeFileSync(at(`${name}.ext`), `subjectAltName=${san}\n`);
  openssl(
    ...["x509", "-req", "-in", `${name}.csr`, "-CA", `${by}.pem`, "-CAkey", `${by}.key`, "-CAcreateserial"],
    ...["-days", "2", "-extfile", `${name}.ext`, "-out", `${name}.pem`],
  );
}

function piped(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on("error", () => to.destroy());
    from.on("close", () => to.destroy());
    from.pipe(to);
  }
}

async function listen(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

beforeAll(async () => {
  if (missing("command:openssl").length > 0) return;
  authority("clients");
  authority("strangers");
  authority("servers");
  leaf("host", "clients", "DNS:host.test");
  leaf("stranger", "strangers", "DNS:host.test");
  leaf("server", "servers", "DNS:controller.test");
  site = await installation();
  const keys = join(site.server.home, ".aegis/controller/keys");
  const tls = (name: string) => readFileSync(join(keys, name), "utf8");
  frontPort = await listen(
    createTlsServer(
      {
        ...{ cert: tls("tls.pem") + tls("tls-ca.pem"), key: tls("tls.key"), ALPNProtocols: ["h2"] },
        ...{ ca: pem("clients.pem"), requestCert: true, rejectUnauthorized: true },
      },
      (outer) => {
        const inner = connectTls({ port: site.grpcPort, ALPNProtocols: ["h2"], rejectUnauthorized: false });
        piped(outer, inner);
      },
    ),
  );
});
afterAll(async () => {
  await site?.close();
  for (const server of servers) server.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("a front end that asks for a certificate", () => {
  /** The way to the controller's address leads to the front end. */
  async function wayIn(): Promise<{ env: Record<string, string> }> {
    const port = await listen(
      createServer((socket) => {
        socket.on("error", () => {});
        socket.once("data", () => {
          const front = connect(frontPort, "127.0.0.1");
          front.once("connect", () => {
            socket.write("HTTP/1.1 200 Connected\r\n\r\n");
            piped(socket, front);
          });
        });
      }),
    );
    return { env: { HTTPS_PROXY: `http://127.0.0.1:${port}`, NO_PROXY: "" } };
  }

  const shows = (name: string) => (home: string) => {
    mkdirSync(join(home, ".aegis"), { mode: 0o700 });
    const tls = { cert_path: at(`${name}.pem`), key_path: at(`${name}.key`) };
    const head = { apiVersion: "100monkeys.ai/v1", kind: "NodeConfig" };
    writeFileSync(
      join(home, ".aegis/config.yaml"),
      JSON.stringify({ ...head, spec: { cluster: { controller: { tls } } } }),
    );
  };

  withOpenssl("lets in a host whose settings name one, from enrollment on", async () => {
    await site.addHost("shown", { ...(await wayIn()), prepare: shows("host") });
    const { exit, stdout } = await site.desk.run("edge", "exec", "shown", "--", "uname");
    expect({ exit, stdout }).toEqual({ exit: 0, stdout: "Linux\n" });
  });

  withOpenssl("keeps out who shows none, or one of another authority, and that is said in words", async () => {
    const refused = async (name: string, prepare?: (home: string) => void) =>
      await site.addHost(name, { ...(await wayIn()), ...(prepare ? { prepare } : {}) }).then(
        () => "let in",
        (error: Error) => error.message,
      );
    const hint = /cluster\.controller\.tls\.cert_path/;
    const bare = await refused("bare");
    expect(bare).toContain(": the server asks for a client certificate, and got none");
    expect(bare).toMatch(hint);
    const stranger = await refused("stranger", shows("stranger"));
    expect(stranger).toMatch(/: after TLS: |: the server refused our client certificate \(/);
    expect(stranger).toMatch(hint);
  });
});

describe("an authority that only this machine knows", () => {
  let port = 0;
  const knock = (serverName: string) =>
    startTls({ host: "127.0.0.1", port }, { pins: [], caPem: null, serverName, clientCertificate: null }).then(
      (socket) => {
        socket.destroy();
        return "believed";
      },
      (error: Error) => error.message,
    );

  withOpenssl("is believed when SSL_CERT_FILE names it, for the name that its certificate is for", async () => {
    port = await listen(
      createTlsServer({ cert: pem("server.pem"), key: pem("server.key"), ALPNProtocols: ["h2"] }, (socket) =>
        socket.on("error", () => {}),
      ),
    );
    expect(await knock("controller.test")).toContain("is not trusted");
    const before = process.env.SSL_CERT_FILE;
    try {
      process.env.SSL_CERT_FILE = at("servers.pem");
      expect(await knock("controller.test")).toBe("believed");
      expect(await knock("127.0.0.1")).toContain("127.0.0.1");
      process.env.SSL_CERT_FILE = at("strangers.pem");
      expect(await knock("controller.test")).toContain("is not trusted");
      process.env.SSL_CERT_FILE = at("nothing.pem");
      expect(await knock("controller.test")).toContain(`cannot read ${at("nothing.pem")}`);
    } finally {
      if (before === undefined) delete process.env.SSL_CERT_FILE;
      else process.env.SSL_CERT_FILE = before;
    }
  });
});
