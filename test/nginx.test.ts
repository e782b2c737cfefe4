/** A controller behind nginx, with the settings that README shows: hosts and operators through one name and one port. */
import { afterAll, expect, setDefaultTimeout } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../src/platform/free-port.ts";
import { eventually, type Machine, type Playground, playground, type Running } from "./support/aegis.ts";
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
  startNginx(): Promise<Running>;
}

async function behindNginx(place: Playground): Promise<Behind> {
  const [port, grpc, rest] = [await freePort(), await freePort(), await freePort()];
  const server = place.machine("server");
  await server.run("controller", "init", "--public-endpoint", `localhost:${port}`);
  const controller = server.start("controller", "start", "--grpc-port", `${grpc}`, "--port", `${rest}`);
  await controller.until(/"event":"controller_started"/);
  const keys = join(server.home, ".aegis/controller/keys");
  const folder = join(place.folder, "nginx");
  mkdirSync(folder);
  const readme = readFileSync(join(import.meta.dir, "../README.md"), "utf8");
  const [, shown = ""] = /^```nginx\n([\s\S]*?)^```/m.exec(readme) ?? [];
  const replaced = [
    ["443", `127.0.0.1:${port}`],
    ["controller.example", "localhost"],
    ["/etc/aegis/tls.pem", join(keys, "tls.pem")],
    ["/etc/aegis/tls.key", join(keys, "tls.key")],
    ["127.0.0.1:50056", `127.0.0.1:${grpc}`],
    // On this machine's own name REST needs no TLS.
    ["https://127.0.0.1:8088", `http://127.0.0.1:${rest}`],
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
  return { server, desk: place.machine("desk"), url: `https://localhost:${port}`, startNginx };
}

withNginx(
  "enrolling, calls, live output, files and events go through nginx, and hosts come back when it was restarted",
  async () => {
    place = playground();
    const { server, desk, url, startNginx } = await behindNginx(place);
    const nginx = await startNginx();
    const { fingerprint } = json(await server.run("controller", "ca", "-o", "json"));
    const token = ["controller", "token", "create", "--name", "ann", "--scope", "aegis.admin"];
    const secret = await server.run(...token, "--context", "default", "--context", "operator");
    expect((await desk.feed(secret.stdout, "login", url, "--fingerprint", fingerprint)).exit).toBe(0);
    const issued = json(await desk.run("edge", "token", "issue", "--name", "web-1", "-o", "json"));
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
    const ca = readFileSync(join(server.home, ".aegis/controller/keys/tls-ca.pem"), "utf8");
    expect((await fetch(`${url}/metrics`, { tls: { ca } })).status).toBe(401);

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
