/**
 * A controller behind nginx, with the settings that README shows: nginx ends TLS with a certificate that the controller has
 * no key of, and hosts and operators come through one name and one port.
 */
import { afterAll, expect, setDefaultTimeout } from "bun:test";
import { X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fingerprintOf } from "../src/cli/server-identity.ts";
import { freePort } from "../src/platform/free-port.ts";
import { spkiPin } from "../src/platform/spki-pin.ts";
import { eventually, type Machine, type Playground, playground, type Running } from "./support/aegis.ts";
import { makeCertificate } from "./support/certificates.ts";
import { jsonOf as json } from "./support/installation.ts";
import { needs } from "./support/needs.ts";

setDefaultTimeout(60_000);

const withNginx = needs("linux", "command:nginx");
let place: Playground | undefined;
afterAll(() => place?.close());

interface Behind {
  server: Machine;
  desk: Machine;
  url: string;
  /** PEM of the authority of nginx's certificate. */
  ca: string;
  startNginx(): Promise<Running>;
}

async function behindNginx(place: Playground): Promise<Behind> {
  const [port, grpc, rest] = [await freePort(), await freePort(), await freePort()];
  const server = place.machine("server");
  await server.run("controller", "init", "--public-endpoint", `localhost:${port}`);
  const folder = join(place.folder, "nginx");
  mkdirSync(folder);
  const ca = await makeCertificate({ name: "the company", ca: true });
  const leaf = await makeCertificate({ name: "front", issuer: ca, hosts: ["localhost"] });
  const [certPath, keyPath] = [join(folder, "tls.pem"), join(folder, "tls.key")];
  writeFileSync(certPath, `${leaf.pem}\n${ca.pem}\n`);
  writeFileSync(keyPath, leaf.keyPem);
  const readme = readFileSync(join(import.meta.dir, "../README.md"), "utf8");
  const [, command = ""] = /`aegis (controller start [^`]*--tls-cert[^`]*)`/.exec(readme) ?? [];
  const words = command.replace("/etc/aegis/tls.pem", certPath).split(" ");
  const controller = server.start(...words, "--grpc-port", `${grpc}`, "--port", `${rest}`);
  await controller.until(/"event":"controller_started"/);
  const [, shown = ""] = /^```nginx\n([\s\S]*?)^```/m.exec(readme) ?? [];
  const replaced = [
    ["443", `127.0.0.1:${port}`],
    ["controller.example", "localhost"],
    ["/etc/aegis/tls.pem", certPath],
    ["/etc/aegis/tls.key", keyPath],
    ["127.0.0.1:50056", `127.0.0.1:${grpc}`],
    ["127.0.0.1:8088", `127.0.0.1:${rest}`],
  ].reduce((text, [from = "", to = ""]) => {
    if (!text.includes(from)) throw new Error(`README's settings for nginx lack ${from}`);
    return text.replace(from, to);
  }, shown);
  const file = join(folder, "nginx.conf");
  writeFileSync(
    file,
    `user root; daemon off; pid ${folder}/pid; error_log stderr notice; events {}\nhttp { access_log off; ${replaced} }\n`,
  );
  const startNginx = async () => {
    const nginx = server.startProgram(["nginx", "-p", folder, "-c", file, "-e", "stderr"]);
    await nginx.until(/start worker process/);
    return nginx;
  };
  return { server, desk: place.machine("desk"), url: `https://localhost:${port}`, ca: ca.pem, startNginx };
}

withNginx(
  "enrolling, calls, live output, files and events go through nginx, and hosts come back when it was restarted",
  async () => {
    place = playground();
    const { server, desk, url, ca, startNginx } = await behindNginx(place);
    const nginx = await startNginx();
    const authority = new X509Certificate(ca);
    const fingerprint = fingerprintOf(authority);
    const token = ["controller", "token", "create", "--name", "ann", "--scope", "aegis.admin"];
    const secret = await server.run(...token, "--context", "default", "--context", "operator");
    expect((await desk.feed(secret.stdout, "login", url, "--fingerprint", fingerprint)).exit).toBe(0);
    const issued = json(await desk.run("edge", "token", "issue", "--name", "web-1", "-o", "json"));
    const claims = JSON.parse(Buffer.from(issued.token.split(".")[1], "base64url").toString());
    expect(claims).toMatchObject({ cep: url, pin: [expect.any(String), spkiPin(authority)] });
    const host = place.machine("web-1");
    const enrolled = await host.feed(issued.token, "edge", "enroll", "-", "--no-service", "--full-access");
    expect(enrolled).toMatchObject({ exit: 0 });
    const daemon = host.start("edge", "run");
    await daemon.until(/"event":"connected"/);

    expect(await desk.run("edge", "exec", "web-1", "--", "uname")).toMatchObject({ exit: 0, stdout: "Linux\n" });
    const live = desk.start(
      ...["edge", "exec", "web-1", "--context", "operator", "--", "sh", "-c"],
      "echo begun; sleep 60",
    );
    await live.until(/begun/, 10_000);
    live.signal("SIGINT");
    expect((await live.ended).exit).toBe(130);
    writeFileSync(join(desk.home, "file"), new Uint8Array(1_500_000).fill(7));
    expect((await desk.run("edge", "cp", "file", `operator@web-1:${host.home}/file`)).exit).toBe(0);
    expect(readFileSync(join(host.home, "file")).length).toBe(1_500_000);
    expect((await host.run("edge", "keys", "rotate")).exit).toBe(0);
    // From behind a proxy nobody is local.
    const ask = async (path: string, headers = {}) => (await fetch(`${url}${path}`, { headers, tls: { ca } })).status;
    expect(await ask("/metrics")).toBe(401);
    // Pages of the controller's own address may ask, those of another may not.
    const authorization = `Bearer ${secret.stdout.trim()}`;
    expect(await ask("/v1/whoami", { authorization, origin: url })).toBe(200);
    expect(await ask("/v1/whoami", { authorization, origin: "https://elsewhere.example" })).toBe(403);
    const found = json(await host.run("doctor", "-o", "json"));
    for (const check of ["tls", "grpc", "health"])
      expect(found).toContainEqual(expect.objectContaining({ check, state: "ok" }));

    await nginx.stop();
    await daemon.until(/"event":"disconnected"/);
    await startNginx();
    await eventually(
      "the host is back",
      async () => (await desk.run("edge", "exec", "web-1", "--", "uname")).exit === 0,
      30_000,
    );
  },
);
