/** The controller's CA is replaced under its hosts' feet: they hear of the next one first, and follow whatever was interrupted. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { copyFileSync, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import { initController } from "../src/controller/init.ts";
import { startController } from "../src/controller/run.ts";
import { renewBeforeMs } from "../src/controller/tls-source.ts";
import { type Clock, systemClock } from "../src/platform/clock.ts";
import { freePort } from "../src/platform/free-port.ts";
import { spkiPin } from "../src/platform/spki-pin.ts";
import { eventually, type Machine, type Playground, playground } from "./support/aegis.ts";
import { hastyClock } from "./support/hasty-clock.ts";
import { type Installation, installation, jsonOf } from "./support/installation.ts";
import { recordedLog } from "./support/recorded-log.ts";
import { newKey, signedKeyset } from "./support/strict-keys.ts";

setDefaultTimeout(60_000);

const cleanUp: Array<() => Promise<unknown> | unknown> = [];
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
});

async function site(): Promise<Installation> {
  const made = await installation();
  cleanUp.push(() => made.close());
  return made;
}

const keysOf = (server: Machine) => join(server.home, ".aegis/controller/keys");
const caOn = (server: Machine) => spkiPin(new X509Certificate(readFileSync(join(keysOf(server), "tls-ca.pem"))));

/** The pin of the CA that a port presents. */
const servedCa = (port: number) =>
  new Promise<string>((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2"] }, () => {
      const issuer = socket.getPeerX509Certificate()?.issuerCertificate;
      resolve(issuer ? spkiPin(issuer) : "");
      socket.destroy();
    });
    socket.on("error", reject);
  });

const works = async (desk: Machine, name: string) =>
  expect(await desk.run("edge", "exec", name, "--", "uname")).toMatchObject({ exit: 0, stdout: "Linux\n" });

describe("aegis controller keys rotate tls", () => {
  test("waits for the host that is away, then changes under a call that goes on; every host comes back to the new CA", async () => {
    const { server, desk, grpcPort, controller, addHost } = await site();
    const busy = await addHost("busy", { enroll: ["--full-access"] });
    const away = await addHost("away");
    await away.daemon?.stop();
    const former = await servedCa(grpcPort);

    const published = jsonOf(await server.run("controller", "keys", "rotate", "tls", "-o", "json"));
    expect(published).toMatchObject({ changed: true });
    const again = jsonOf(await server.run("controller", "keys", "rotate", "tls", "-o", "json"));
    expect(again).toMatchObject({ changed: false, next_ca_fingerprint: published.next_ca_fingerprint });
    await eventually("only the one that is away has not heard", async () => {
      const { hosts_behind } = jsonOf(await server.run("controller", "keys", "ls", "-o", "json"));
      return hosts_behind.length === 1 && hosts_behind[0].name === "away";
    });
    expect(await servedCa(grpcPort)).toBe(former);

    const call = desk.start(
      ...["edge", "exec", "busy", "--context", "operator", "--deadline", "50s", "--", "sh", "-c"],
      `echo begun; while [ ! -e ${busy.home}/go ]; do sleep 0.1; done; echo ended`,
    );
    await call.until(/begun/);
    await away.connect();
    await controller.until(/"event":"certificate_renewed"/, 20_000);
    expect(caOn(server)).not.toBe(former);
    expect(await servedCa(grpcPort)).toBe(caOn(server));
    expect(existsSync(join(keysOf(server), "tls-next.pem"))).toBe(false);
    writeFileSync(join(busy.home, "go"), "");
    expect(await call.ended).toMatchObject({ exit: 0, stdout: "begun\nended\n" });
    expect(busy.daemon?.stderr()).not.toContain('"event":"disconnected"');

    for (const host of [busy, away]) {
      await host.daemon?.stop();
      await host.connect();
      await works(desk, host.name);
      expect((await host.run("doctor")).stdout).toContain("by a pinned key");
    }
    await addHost("new");
    // The former key is nobody's any more.
    const { keys } = jsonOf(await server.run("controller", "keys", "ls", "-o", "json"));
    const tls = keys.filter(({ use }: { use: string }) => use === "tls");
    expect(tls.map(({ state }: { state: string }) => state)).toEqual(["active", "active"]);
  });

  test("killed between publishing and changing, restored from a backup of that moment: it goes on", async () => {
    const { server, desk, grpcPort, controller, addHost, restartController } = await site();
    const host = await addHost("web-1");
    await host.daemon?.stop();
    const former = await servedCa(grpcPort);
    expect((await server.run("controller", "keys", "rotate", "tls")).exit).toBe(0);
    await controller.stop("SIGKILL");
    const file = join(server.home, "backup");
    expect((await server.run("controller", "backup", file)).exit).toBe(0);
    const dataDir = join(server.home, ".aegis/controller");
    renameSync(dataDir, `${dataDir}.lost`);
    expect((await server.run("controller", "restore", file)).exit).toBe(0);

    await restartController();
    expect(await servedCa(grpcPort)).toBe(former);
    await host.connect();
    await eventually("it changes", async () => (await servedCa(grpcPort)) !== former, 20_000);
    await host.daemon?.stop();
    await host.connect();
    await works(desk, "web-1");
  });

  for (const [at, moved] of [
    ["after the key's file", ["key"]],
    ["before the certificate's file", ["key", "-ca.pem"]],
  ] as const)
    test(`killed ${at} was put in place: the next start ends the change`, async () => {
      const { server, desk, controller, grpcPort, addHost, restartController } = await site();
      await controller.stop("SIGKILL");
      const dir = keysOf(server);
      expect((await server.run("controller", "keys", "rotate", "tls")).exit).toBe(0);
      for (const what of moved)
        renameSync(
          join(dir, what === "key" ? "tls-next.key" : "tls-next-ca.pem"),
          join(dir, what === "key" ? "tls.key" : "tls-ca.pem"),
        );
      const next = spkiPin(new X509Certificate(readFileSync(join(dir, "tls-next.pem"))));
      await restartController();
      expect(spkiPin(new X509Certificate(readFileSync(join(dir, "tls.pem"))))).toBe(next);
      expect(await servedCa(grpcPort)).toBe(caOn(server));
      expect(existsSync(join(dir, "tls-next.pem"))).toBe(false);
      await addHost("new");
      await works(desk, "new");
    });
});

describe("aegis controller keys revoke tls", () => {
  test("changes at once; connected hosts follow and refuse the former key; one that was away is told what to do", async () => {
    const { server, desk, grpcPort, controller, addHost } = await site();
    const here = await addHost("here");
    const away = await addHost("away");
    await away.daemon?.stop();
    const dir = keysOf(server);
    for (const name of ["tls.pem", "tls.key"]) copyFileSync(join(dir, name), join(server.home, name));
    const former = await servedCa(grpcPort);
    expect((await server.run("controller", "keys", "revoke", "tls")).exit).toBe(0);
    await controller.until(/"event":"certificate_renewed"/, 20_000);
    expect(await servedCa(grpcPort)).not.toBe(former);
    await here.daemon?.stop();
    await here.connect();
    await works(desk, "here");

    const late = away.start("edge", "run", "--once");
    expect((await late.ended).exit).not.toBe(0);
    expect(late.stderr()).toContain("no certificate of the server matches the pinned key");
    expect(late.stderr()).toContain("aegis edge token issue --for NODE");
    const { node_id: nodeId } = jsonOf(await desk.run("edge", "ls", "-o", "json")).find(
      ({ name }: { name: string }) => name === "away",
    );
    const token = jsonOf(await desk.run("edge", "token", "issue", "--for", nodeId, "-o", "json")).token;
    const enrolled = await away.feed(token, "edge", "enroll", "-", "--force", "--no-service", "--non-interactive");
    expect(enrolled).toMatchObject({ exit: 0 });
    await away.connect();
    await works(desk, "away");

    // Whoever has the former key: the host's own settings still name it, its root does not.
    expect(here.settings()).toContain(former);
    await here.daemon?.stop();
    await controller.stop();
    const thief = server.start(
      ...["controller", "start", "--grpc-port", `${grpcPort}`, "--port", "0"],
      ...["--tls-cert", join(server.home, "tls.pem"), "--tls-key", join(server.home, "tls.key")],
    );
    await thief.until(/"event":"controller_started"/);
    const fooled = here.start("edge", "run", "--once");
    expect((await fooled.ended).exit).not.toBe(0);
    expect(fooled.stderr()).toContain("no certificate of the server matches the pinned key");
    await thief.stop();
  });
});

describe("what a host believes", () => {
  test("is no keyset of another root, whatever pins it lists", async () => {
    const { addHost } = await site();
    const host = await addHost("web-1");
    await host.daemon?.stop();
    const file = join(host.stateDir, "controller.keys");
    const stored = JSON.parse(readFileSync(file, "utf8"));
    const [root, command, token] = [newKey(), newKey(), newKey()];
    const signed = signedKeyset({
      ...{ controllerId: stored.controller_id, version: 2, root, command, token },
      change: (keyset) => (keyset.tlsPins = [`spki-sha256:${"A".repeat(43)}`]),
    });
    writeFileSync(file, JSON.stringify({ ...stored, keyset: Buffer.from(signed).toString("base64url") }));
    const run = host.start("edge", "run", "--once");
    expect((await run.ended).exit).toBe(78);
    expect(run.stderr()).toContain("does not verify: keyset_root");
  });
});

describe("near the end of its life", () => {
  /** A controller in this process, whose calendar can be turned. */
  async function aging() {
    const place: Playground = playground();
    cleanUp.push(() => place.close());
    const [dataDir, port] = [join(place.folder, "data"), await freePort()];
    let aheadMs = 0;
    const clock: Clock = {
      ...hastyClock,
      now: () => systemClock.now() + aheadMs,
    };
    const log = recordedLog();
    const { operatorToken } = await initController({
      ...{ dataDir, publicEndpoint: `localhost:${port}`, tenantId: "acme", clock },
    });
    const controller = await startController({ dataDir, httpPort: 0, clock, log });
    cleanUp.push(() => controller.close());
    const desk = place.machine("desk", {
      ...{ AEGIS_CONTROLLER: controller.httpUrl, AEGIS_USER_TOKEN: operatorToken.reveal() },
    });
    const host = place.machine("web-1");
    const token = jsonOf(await desk.run("edge", "token", "issue", "--name", "web-1", "-o", "json")).token;
    await host.feed(token, "edge", "enroll", "-", "--no-service", "--non-interactive");
    const turn = (ms: number) => (aheadMs += ms);
    return { place, dataDir, port, controller, log, desk, host, turn };
  }

  test("90 days before, the next CA is published, and used once the host has heard; nobody does anything", async () => {
    const { port, log, desk, host, turn } = await aging();
    const former = await servedCa(port);
    const tenYears = 10 * 365 * 86_400_000;
    turn(tenYears - renewBeforeMs - 60_000);
    const daemon = host.start("edge", "run");
    await daemon.until(/"event":"connected"/);
    expect(log.find("keyset_in_use")).toBeUndefined();
    turn(120_000);
    await eventually("it changes", () => log.find("certificate_renewed") !== undefined, 10_000);
    expect(await servedCa(port)).not.toBe(former);
    await works(desk, "web-1");
    await daemon.stop();
    const next = host.start("edge", "run");
    await next.until(/"event":"connected"/);
    await next.stop();
  });

  test("a host that stays away is waited for 60 days, and no longer", async () => {
    const { port, log, turn } = await aging();
    const former = await servedCa(port);
    turn(10 * 365 * 86_400_000 - renewBeforeMs + 60_000);
    await eventually("it is published", () => log.find("keyset_in_use") !== undefined, 10_000);
    expect(await servedCa(port)).toBe(former);
    expect(log.find("certificate_renewed")).toBeUndefined();
    turn(61 * 86_400_000);
    await eventually("it changes", () => log.find("certificate_renewed") !== undefined, 10_000);
    expect(await servedCa(port)).not.toBe(former);
  });
});

test("an operator who signed in by fingerprint is told the command, and keeps the token", async () => {
  const place = playground();
  cleanUp.push(() => place.close());
  const server = place.machine("server");
  const [grpc, rest] = [await freePort(), await freePort()];
  await server.run("controller", "init", "--public-endpoint", `controller.example:${grpc}`);
  const running = server.start("controller", "start", "--grpc-port", `${grpc}`, "--port", `${rest}`);
  await running.until(/"event":"controller_started"/);
  const desk = place.machine("desk");
  const { fingerprint } = jsonOf(await server.run("controller", "ca", "-o", "json"));
  const made = await server.run("controller", "token", "create", "--name", "ann", "--scope", "aegis.admin");
  const url = `https://localhost:${rest}`;
  expect((await desk.feed(made.stdout, "login", url, "--fingerprint", fingerprint)).exit).toBe(0);
  const rotated = await server.run("controller", "keys", "rotate", "tls");
  expect(rotated.stderr).toContain("aegis login URL --fingerprint SHA256:");
  await running.until(/"event":"certificate_renewed"/, 20_000);
  const refused = await desk.run("whoami");
  expect(refused.exit).not.toBe(0);
  expect(refused.stderr).toContain(`aegis login ${url} --fingerprint SHA256:`);
  const { fingerprint: next } = jsonOf(await server.run("controller", "ca", "-o", "json"));
  expect(rotated.stderr).toContain(next);
  expect(await desk.run("login", url, "--fingerprint", next)).toMatchObject({ exit: 0 });
  expect((await desk.run("whoami")).exit).toBe(0);
});

test("an enrollment token from before a change of root is void, and that is said; a new one lets the host in", async () => {
  const { server, addHost, place, token } = await site();
  const issued = await token("late");
  expect((await server.run("controller", "keys", "rotate", "root")).exit).toBe(0);
  await eventually("the controller goes on with the new root", async () => {
    const now = await token("other");
    const rootIn = (text: string) => JSON.parse(Buffer.from(text.split(".")[1] ?? "", "base64url").toString()).crk;
    return rootIn(now) !== rootIn(issued);
  });
  const late = place.machine("late");
  const refused = await late.feed(issued, "edge", "enroll", "-", "--no-service", "--non-interactive");
  expect(refused.exit).not.toBe(0);
  expect(refused.stderr).toContain("the enrollment token is from before this controller's root key was changed");
  expect(refused.stderr).toContain("aegis edge token issue");
  expect(existsSync(join(late.home, ".aegis/edge/node.token"))).toBe(false);
  await addHost("new");
});
