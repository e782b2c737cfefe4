/** Signed calls through the executable: two hosts whose owners demand a signature, and an operator at a terminal. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { freePort } from "../src/platform/free-port.ts";
import { eventually, type Machine, type Outcome, playground, type Running } from "./support/aegis.ts";

setDefaultTimeout(60_000);

const place = playground();
const server = place.machine("server");
/** What tools may write: beside a host's home they make nothing. */
const shared = join(place.folder, "shared");
mkdirSync(shared);
const [alpha, beta] = [place.machine("alpha"), place.machine("beta")];
let desk: Machine;
let cable: Cable;
const daemons = new Map<Machine, Running>();

/** A way to the controller that can be cut. */
interface Cable {
  port: number;
  cut(): void;
  close(): void;
}

async function cableTo(port: number): Promise<Cable> {
  const open = new Set<Socket>();
  const listener = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(from);
      from.pipe(to);
      from.on("error", () => to.destroy()).on("close", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of open) socket.destroy();
    open.clear();
  };
  return {
    port: (listener.address() as AddressInfo).port,
    cut,
    close() {
      cut();
      listener.close();
    },
  };
}

const json = (outcome: Outcome) => JSON.parse(outcome.stdout);
const knownNodes = () => join(desk.home, ".aegis/known_nodes");
const statusOf = async (host: Machine) => json(await host.run("edge", "status", "-o", "json"));

function settings(host: Machine, spec: object): void {
  const document = { apiVersion: "100monkeys.ai/v1", kind: "NodeConfig", spec };
  writeFileSync(join(host.home, ".aegis/config.yaml"), JSON.stringify(document));
}

async function startDaemon(host: Machine): Promise<Running> {
  const running = host.start("edge", "run");
  daemons.set(host, running);
  await running.until(/"event":"connected"/);
  return running;
}
/** How often this daemon has connected, and what it says about each call. */
const connections = (host: Machine) =>
  daemons
    .get(host)
    ?.stderr()
    .match(/"event":"connected"/g)?.length ?? 0;
const outcomes = (host: Machine) =>
  [...(daemons.get(host)?.stderr() ?? "").matchAll(/"event":"call".*"outcome":"([^"]+)"/g)].map(
    ([, outcome]) => outcome,
  );

beforeAll(async () => {
  const grpcPort = await freePort();
  await server.run("controller", "init", "--public-endpoint", `localhost:${grpcPort}`);
  const controller = server.start("controller", "start", "--port", "0");
  const [, url = ""] = await controller.until(/"http_url":"([^"]+)"/);
  const token = await server.run(
    ...["controller", "token", "create", "--name", "ann", "--scope", "aegis.admin"],
    ...["--context", "default", "--context", "operator"],
  );
  desk = place.machine("desk", { AEGIS_CONTROLLER: url, AEGIS_USER_TOKEN: token.stdout.trim() });
  cable = await cableTo(grpcPort);
  const made = json(await desk.run("operator", "key", "create", "-o", "json"));
  for (const [host, name] of [
    [alpha, "alpha"],
    [beta, "beta"],
  ] as const) {
    const issued = json(await desk.run("edge", "token", "issue", "--name", name, "-o", "json"));
    await host.feed(issued.token, "edge", "enroll", "-", "--no-service", "--full-access");
  }
  const trusted_operators = [{ name: "ann", public_key: made.public_key }];
  settings(alpha, { trusted_operators, require_operator_signature: true });
  // The last link to beta can be cut.
  const file = join(beta.home, ".aegis/edge/aegis-config.yaml");
  writeFileSync(file, readFileSync(file, "utf8").replace(`localhost:${grpcPort}`, `localhost:${cable.port}`));
  settings(beta, {
    trusted_operators,
    require_operator_signature: true,
    cluster: { edge: { stream_reconnect_backoff_secs: [1] } },
  });
  await Promise.all([startDaemon(alpha), startDaemon(beta)]);
});
afterAll(async () => {
  cable.close();
  await place.close();
});

const run = (target: string, ...command: string[]) =>
  desk.run(
    ...["edge", "fleet", "run", "--target", target, "--tool", "cmd.run", "--context", "operator", "--yes"],
    ...["--args", JSON.stringify({ command: command[0], args: command.slice(1) })],
  );

test("status says whether everything here needs a signature, and by which key the host is known", async () => {
  const status = await statusOf(alpha);
  expect(status.operator_only).toEqual({ holds: true });
  expect(status.known_node).toBe(`${status.node_id} ${status.known_node.split(" ")[1]} default alpha`);
  const shown = await alpha.run("edge", "status");
  expect(shown.stdout).toMatch(/^operator-only +yes$/m);
  expect(shown.stdout).toContain(status.key_fingerprint);
});

test("without a key a call is refused by the host, which says what is missing", async () => {
  const stranger = place.machine("stranger", desk.env);
  stranger.env.HOME = stranger.home;
  const refused = await stranger.run("edge", "exec", "alpha", "--context", "operator", "--", "id");
  expect(refused.exit).toBe(255);
  expect(refused.stderr).toContain("operator_signature_required");
  expect(refused.stderr).toContain("aegis operator key create");
});

test("at a terminal exec shows key, call and host, and runs after a yes; the second time only the call is asked about", async () => {
  const { key_fingerprint } = await statusOf(alpha);
  const first = desk.onTerminal("edge", "exec", "alpha", "--context", "operator", "--", "echo", "a\u001b[31m\u202eb");
  await first.until(/are these their keys\? \[y\/N\]/);
  expect(first.stdout()).toContain(key_fingerprint);
  first.type("y\n");
  await first.until(/sign and run it on 1 host\? \[y\/N\]/);
  expect(first.stdout()).toContain('{"command":"echo","args":["a\\u001b[31m\\u202eb"]}');
  expect(first.stdout()).toMatch(/for 1 host, by their own names:\r?\n +alpha {2}/);
  first.type("y\n");
  expect((await first.ended).exit).toBe(0);
  expect(first.stdout()).toContain("a\u001b[31m\u202eb");
  expect(readFileSync(knownNodes(), "utf8")).toBe(`${(await statusOf(alpha)).known_node}\n`);

  const second = desk.onTerminal("edge", "exec", "alpha", "--context", "operator", "--", "sh", "-c", "exit 3");
  await second.until(/sign and run it on 1 host\?/);
  expect(second.stdout()).not.toContain("their keys");
  second.type("y\n");
  expect((await second.ended).exit).toBe(3);

  const third = desk.onTerminal("edge", "exec", "alpha", "--context", "operator", "--", "touch", join(shared, "no"));
  await third.until(/sign and run it/);
  third.type("n\n");
  expect((await third.ended).exit).toBe(255);
  expect(existsSync(join(shared, "no"))).toBe(false);
});

test("where nobody can be asked exec says what signs instead, and fleet run --yes wants to know the hosts", async () => {
  const refused = await desk.run("edge", "exec", "alpha", "--context", "operator", "--", "id");
  expect([refused.exit, refused.stdout]).toEqual([255, ""]);
  expect(refused.stderr).toContain("aegis edge fleet run --yes");
  const { node_id, known_node, key_fingerprint } = await statusOf(beta);
  const unknown = await run("@beta", "id");
  expect(unknown.exit).toBe(2);
  expect(unknown.stderr).toContain(`${node_id}  ${key_fingerprint}`);
  writeFileSync(knownNodes(), `${readFileSync(knownNodes(), "utf8")}${known_node}\n`);
  const both = await run("all", "echo", "hi");
  expect([both.exit, both.stdout.split("\n").sort()]).toEqual([0, ["", "alpha | hi", "beta | hi"]]);
});

/** Long enough on the first host for the second one to be away and back. */
const slowOnAlpha = (trace: string) => `case "$PWD" in */alpha) sleep 3;; esac; echo x >> ${trace}`;

test("a host that comes back while others are at work gets a new signature without a question, and runs once", async () => {
  const before = connections(beta);
  const trace = join(shared, "trace");
  const going = desk.start(
    ...["edge", "fleet", "run", "--target", "all", "--mode", "sequential", "--context", "operator", "--yes"],
    ...["--tool", "cmd.run", "--args", JSON.stringify({ command: "sh", args: ["-c", slowOnAlpha(trace)] })],
  );
  await going.until(/run [0-9a-f-]{36} on 2 hosts/);
  cable.cut();
  await eventually("beta comes back", () => connections(beta) > before);
  const { exit, stderr } = await going.ended;
  expect([exit, readFileSync(trace, "utf8")]).toEqual([0, "x\nx\n"]);
  expect(stderr).toContain("needs an operator's signature (operator_signature_stale)");
  expect(outcomes(beta).slice(-2)).toEqual(["operator_signature_stale", "ok"]);
});

test("a host that was restarted meanwhile is not signed for again unasked, and the run fails", async () => {
  const trace = join(shared, "restarted");
  const going = desk.start(
    ...["edge", "fleet", "run", "--target", "all", "--mode", "sequential", "--context", "operator", "--yes"],
    ...["--tool", "cmd.run", "--args", JSON.stringify({ command: "sh", args: ["-c", slowOnAlpha(trace)] })],
  );
  await going.until(/run [0-9a-f-]{36} on 2 hosts/);
  daemons.get(beta)?.signal("SIGKILL");
  await daemons.get(beta)?.ended;
  await startDaemon(beta);
  const { exit, stderr } = await going.ended;
  expect([exit, readFileSync(trace, "utf8")]).toEqual([6, "x\n"]);
  expect(stderr).toMatch(/warning: beta: not signed again: the host has restarted/);
});

test("a host whose key is not the one that is known gets no signature", async () => {
  const kept = readFileSync(knownNodes(), "utf8");
  const [first = "", second = ""] = kept.split("\n");
  const swapped = first.replace(/ed25519:\S+/, /ed25519:\S+/.exec(second)?.[0] ?? "");
  writeFileSync(knownNodes(), `${swapped}\n${second}\n`);
  const refused = await run("all", "id");
  expect([refused.exit, refused.stdout]).toEqual([1, ""]);
  expect(refused.stderr).toMatch(/host alpha \([0-9a-f-]+\) has another key than before/);
  writeFileSync(knownNodes(), kept);
  expect((await run("all", "id")).exit).toBe(0);
});

test("an operator whom the owner removes runs nothing more", async () => {
  settings(alpha, { trusted_operators: [], require_operator_signature: true });
  daemons.get(alpha)?.signal("SIGTERM");
  await daemons.get(alpha)?.ended;
  await startDaemon(alpha);
  const refused = await run("@alpha", "id");
  expect([refused.exit, refused.stdout]).toEqual([6, ""]);
  expect(refused.stderr).toContain("this host trusts no operator with the key SHA256:");
});

test("at a terminal operator key create asks for a passphrase, shows nothing of it, and makes no key of two that differ", async () => {
  const other = place.machine("locked");
  const path = join(other.home, ".aegis/operator.key");
  for (const [again, exit] of [
    ["horse", 2],
    ["corre\u0301ct", 0],
  ] as const) {
    const running = other.onTerminal("operator", "key", "create");
    await running.until(/passphrase for the key \(empty for none\): /);
    running.type("corre\u0301ct\n");
    await running.until(/the same again: /);
    running.type(`${again}\n`);
    expect((await running.ended).exit).toBe(exit);
    expect(running.stdout()).not.toMatch(/corre|horse/);
    expect(existsSync(path)).toBe(exit === 0);
  }
  expect(readFileSync(path, "latin1")).toStartWith("AEGIS-OPERATOR-KEY/1\n");
  const shown = await other.run("operator", "key", "show");
  expect([shown.exit, shown.stdout]).toEqual([0, expect.stringMatching(/public_key: ed25519:[\w-]{43}/)]);
});

test("operator key show prints what a host's owner adds; create replaces nothing", async () => {
  const again = await desk.run("operator", "key", "create");
  expect([again.exit, again.stdout]).toEqual([1, ""]);
  const shown = await desk.run("operator", "key", "show");
  expect(shown.stdout).toMatch(/trusted_operators:\n +- name: ".+"\n +public_key: ed25519:[\w-]{43}\n/);
  rmSync(join(desk.home, ".aegis/operator.key"));
  const none = await desk.run("operator", "key", "show");
  expect([none.exit, none.stderr]).toEqual([1, expect.stringContaining("aegis operator key create")]);
});
