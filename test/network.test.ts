/**
 * A host and its controller in different namespaces of the kernel: the proxy that is the only way out is the only way taken,
 * a path that dies is noticed, and what the host's settings say wins over its environment.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually, type Machine } from "./support/aegis.ts";
import { makeCertificate } from "./support/certificates.ts";
import { type Host, type HostOptions, type Installation, installation } from "./support/installation.ts";
import { missing, needs, type Requirement } from "./support/needs.ts";
import { type NetworkLab, networkLab } from "./support/network-lab.ts";

setDefaultTimeout(60_000);

const requirements: Requirement[] = ["root", "linux", "command:ip", "command:nft", "command:ss", "command:tinyproxy"];
const inNetwork = needs(...requirements);
const isPossible = missing(...requirements).length === 0;

const proxyPort = 3128;
const folder = mkdtempSync(join(tmpdir(), "aegis-network-"));
let lab: NetworkLab;
/** Another host's network, in which the path dies while the other tests run. */
let farLab: NetworkLab;
let site: Installation;
let proxy: Bun.Subprocess;
let controllerAt = "";
let proxyAt = "";

function nft(rules: string): string {
  const child = Bun.spawnSync([...lab.in("middle"), "nft", "-f", "-"], { stdin: Buffer.from(rules), stderr: "pipe" });
  if (child.exitCode !== 0) throw new Error(`nft: ${child.stderr}`);
  return child.stdout.toString();
}

/** Packets that the host sent past the middle since the lab was made, whether or not they were let through. */
const packetsPast = (): number => Number(/packets (\d+)/.exec(nft("list chain ip watch past\n"))?.[1] ?? Number.NaN);

async function startProxy(): Promise<Bun.Subprocess> {
  const file = join(folder, "tinyproxy.conf");
  writeFileSync(file, `Port ${proxyPort}\nListen ${lab.middle}\nTimeout 600\nMaxClients 20\nLogLevel Error\n`);
  const quiet = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const;
  const child = Bun.spawn([...lab.in("middle"), "tinyproxy", "-d", "-c", file], quiet);
  await eventually("the proxy listens", () => canReach(lab, proxyAt));
  return child;
}

function canReach(from: NetworkLab, address: string): boolean {
  const open = `exec 3<>/dev/tcp/${address.replace(":", "/")}`;
  return Bun.spawnSync([...from.in("host"), "timeout", "1", "bash", "-c", open], { stderr: "ignore" }).exitCode === 0;
}

const throughProxy = (more: Record<string, string> = {}) => ({ HTTPS_PROXY: `http://${proxyAt}`, ...more });

const addHost = (name: string, options: HostOptions = {}): Promise<Host> =>
  site.addHost(name, { before: lab.in("host"), ...options });

const runs = async (name: string): Promise<void> => {
  const { exit, stdout, stderr } = await site.desk.run("edge", "exec", name, "--", "uname");
  expect({ exit, stdout, stderr }).toMatchObject({ exit: 0, stdout: "Linux\n" });
};

const count = (text: string, pattern: RegExp): number => text.match(pattern)?.length ?? 0;

/** What became of a host whose path dies without a word: how long both took, and what it said. */
interface DeadPath {
  noticedAfterMs: number;
  status: string;
  again: string;
}
let deadPath: Promise<DeadPath>;

async function pathDies(host: Host): Promise<DeadPath> {
  const { daemon } = host;
  if (!daemon) throw new Error("no daemon");
  farLab.lose(1);
  const since = performance.now();
  await daemon.until(/"event":"disconnected"/);
  const noticedAfterMs = performance.now() - since;
  const status = (await host.run("edge", "status")).stdout;
  farLab.lose(0);
  await daemon.until(/"event":"disconnected"[\s\S]*"event":"connected"/);
  const { stdout, stderr } = await site.desk.run("edge", "exec", host.name, "--", "uname");
  return { noticedAfterMs, status, again: stdout + stderr };
}

beforeAll(async () => {
  if (!isPossible) return;
  lab = networkLab();
  farLab = networkLab();
  proxyAt = `${lab.middle}:${proxyPort}`;
  nft(
    `add table ip watch\nadd chain ip watch past { type filter hook prerouting priority -10; }\n` +
      `add rule ip watch past iifname "to-host" ip daddr ${lab.world} counter\n`,
  );
  site = await installation({ host: lab.world, start: ["--insecure-http"] });
  controllerAt = `${lab.world}:${site.grpcPort}`;
  proxy = await startProxy();
  // The controller is the same machine, which its middle reaches at its own end.
  farLab.forward(true);
  Bun.spawnSync([...farLab.in("middle"), "ip", "route", "add", `${lab.world}/32`, "via", farLab.world]);
  const far = await site.addHost("far", { before: farLab.in("host") });
  deadPath = pathDies(far);
  deadPath.catch(() => {}); // the test that waits for it says so
});
afterAll(async () => {
  await site?.close();
  proxy?.kill("SIGKILL");
  lab?.destroy();
  farLab?.destroy();
  rmSync(folder, { recursive: true, force: true });
});

describe("with a proxy as the only way out", () => {
  let host: Host;

  inNetwork("a host enrolls, connects and runs calls over one connection, which is to the proxy", async () => {
    expect(canReach(lab, controllerAt)).toBe(false);
    host = await addHost("behind", { env: throughProxy() });
    await runs("behind");
    expect(lab.connections()).toEqual([proxyAt]);
  });

  inNetwork(
    "a dead proxy is waited for, also when there is a direct way, and taken again when it is back",
    async () => {
      const { daemon } = host;
      if (!daemon) throw new Error("no daemon");
      proxy.kill("SIGKILL");
      await proxy.exited;
      lab.forward(true);
      expect(canReach(lab, controllerAt)).toBe(true);
      const before = packetsPast();
      expect(before).toBeGreaterThan(0);
      const refused = new RegExp(`the proxy ${proxyAt} \\(HTTPS_PROXY\\) cannot be reached`, "g");
      await eventually("two more dials", () => count(daemon.stderr(), refused) >= 2, 30_000);
      expect(lab.connections()).toEqual([]);
      expect((await host.run("edge", "status")).exit).toBe(5);
      proxy = await startProxy();
      await daemon.until(/cannot be reached[\s\S]*"event":"connected"/);
      await runs("behind");
      expect(lab.connections()).toEqual([proxyAt]);
      expect(packetsPast()).toBe(before);
      await daemon.stop();
    },
  );
});

describe("with a direct way", () => {
  const one = async (host: Host): Promise<string[]> => {
    await runs(host.name);
    const found = lab.connections();
    await host.daemon?.stop();
    return found;
  };

  inNetwork("NO_PROXY that holds the controller's network goes past the proxy", async () => {
    lab.forward(true);
    const block = lab.world.replace(/\.\d+$/, ".0/24");
    expect(await one(await addHost("past", { env: throughProxy({ NO_PROXY: block }) }))).toEqual([controllerAt]);
  });

  inNetwork("the proxy of the settings wins over the environment, and the pin over SSL_CERT_FILE", async () => {
    const stranger = await makeCertificate({ name: "a stranger", ca: true });
    const authority = join(folder, "stranger.pem");
    writeFileSync(authority, stranger.pem);
    const prepare = (home: string) => {
      mkdirSync(join(home, ".aegis"), { mode: 0o700 });
      const head = { apiVersion: "100monkeys.ai/v1", kind: "NodeConfig" };
      const settings = {
        ...head,
        spec: { cluster: { edge: { proxy: { https_proxy: `http://${proxyAt}`, no_proxy: "" } } } },
      };
      writeFileSync(join(home, ".aegis/config.yaml"), JSON.stringify(settings));
    };
    // A dead proxy and an exemption, both of the environment: neither counts.
    const env = { HTTPS_PROXY: `http://${lab.middle}:1`, NO_PROXY: "*", SSL_CERT_FILE: authority };
    expect(await one(await addHost("set", { env, prepare }))).toEqual([proxyAt]);
  });

  inNetwork("another pin lets nobody in, whatever authority the environment names", async () => {
    const ca = await site.server.run("controller", "ca");
    const authority = join(folder, "controller.pem");
    writeFileSync(authority, ca.stdout);
    const host = await addHost("pinned", { env: { SSL_CERT_FILE: authority }, start: false });
    host.edit(/spki-sha256:\S+/g, `spki-sha256:${"A".repeat(43)}`);
    const daemon = (host as Machine).start("edge", "run");
    await daemon.until(/no certificate of the server matches the pinned key/);
    await daemon.stop();
    expect(daemon.stderr()).not.toContain('"event":"connected"');
  });

  inNetwork("a path that dies without a word is noticed within 30 s, and taken again when it lives", async () => {
    const { noticedAfterMs, status, again } = await deadPath;
    expect(noticedAfterMs).toBeLessThan(30_000);
    expect(status).toMatch(/^state +(?:waiting|connecting|disconnected|reconnecting)/m);
    expect(again).toBe("Linux\n");
  });
});
