/** The walk, through the executable: a controller, two hosts in homes of their own, and an operator. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type Claims, signJwt, tokenKinds } from "../src/envelope/jwt.ts";
import { importSigningKey, type SigningKey } from "../src/envelope/public-key.ts";
import { freePort } from "../src/platform/free-port.ts";
import {
  eventually,
  executable,
  type Machine,
  type Outcome,
  playground,
  processesWith,
  type Running,
  socketsOf,
} from "./support/aegis.ts";
import { needs } from "./support/needs.ts";
import { writeXorExecute } from "./support/write-xor-execute.ts";

// Every step is a process of its own, on a machine that may be busy.
setDefaultTimeout(60_000);

const place = playground();
const server = place.machine("server");
/** A host with the policy of a fresh enrollment. */
const plain = place.machine("plain");
/** A host whose owner allows everything to callers who may name the context `operator`. */
const open = place.machine("open");
let operator: Machine;
let controller: Running;
let plainDaemon: Running;
let openDaemon: Running;
let grpcPort = 0;
let initialised: Outcome;

const edgeDir = (machine: Machine) => join(machine.home, ".aegis/edge");
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);
const json = (outcome: Outcome) => JSON.parse(outcome.stdout);

async function enroll(machine: Machine, name: string, ...flags: string[]): Promise<Outcome> {
  const issued = await operator.run("edge", "token", "issue", "--name", name, "-o", "json");
  return await machine.feed(json(issued).token, "edge", "enroll", "-", "--no-service", ...flags);
}

async function startDaemon(machine: Machine): Promise<Running> {
  const daemon = machine.start("edge", "run");
  await daemon.until(/"event":"connected"/);
  return daemon;
}

beforeAll(async () => {
  grpcPort = await freePort();
  initialised = await server.run("controller", "init", "--public-endpoint", `localhost:${grpcPort}`);
  controller = server.start("controller", "start", "--port", "0");
  const [, url = ""] = await controller.until(/"http_url":"([^"]+)"/);
  const { profiles } = JSON.parse(readFileSync(join(server.home, ".aegis/credentials"), "utf8"));
  operator = place.machine("desk", { AEGIS_CONTROLLER: url, AEGIS_USER_TOKEN: profiles.default.token });
  await enroll(plain, "plain", "--label", "region=eu");
  await enroll(open, "open", "--full-access");
  [plainDaemon, openDaemon] = await Promise.all([startDaemon(plain), startDaemon(open)]);
});
afterAll(() => place.close());

describe("a controller", () => {
  test("is made once, with keys, database and the operator's profile closed to others", async () => {
    expect(initialised.exit).toBe(0);
    expect(initialised.stdout).toMatch(/root key +SHA256:/);
    const data = join(server.home, ".aegis/controller");
    expect(modeOf(data)).toBe("700");
    for (const file of [
      join(server.home, ".aegis/credentials"),
      join(data, "keys/command.key"),
      join(data, "keys/tls.key"),
    ])
      expect(`${file} ${modeOf(file)}`).toBe(`${file} 600`);
    const again = await server.run("controller", "init");
    expect(again.exit).toBe(1);
    expect(again.stderr).toContain(`${data} is not empty`);
    expect(again.stderr).toContain("hint: start the controller that is there");
  });

  test("says when its port is taken", async () => {
    const other = place.machine("other-server");
    await other.run("controller", "init", "--public-endpoint", `localhost:${grpcPort}`);
    const { exit, stderr } = await other.run("controller", "start", "--port", "0");
    expect(exit).not.toBe(0);
    expect(stderr).toContain(String(grpcPort));
    expect(stderr).toMatch(/error: .*in use/);
    const taken = new URL(operator.env.AEGIS_CONTROLLER ?? "").port;
    const rest = await other.run("controller", "start", "--grpc-port", "0", "--port", taken);
    expect(rest.exit).not.toBe(0);
    expect(rest.stderr).toMatch(new RegExp(`error: .*${taken}.*in use`));
  });

  test("gives tokens for a scope and a context, and what they may not do they are told", async () => {
    const made = await server.run(
      "controller",
      "token",
      "create",
      "--name",
      "reader",
      "--scope",
      "aegis.edge.hosts.read",
    );
    expect(made.exit).toBe(0);
    const reader = place.machine("reader", { ...operator.env, AEGIS_USER_TOKEN: made.stdout.trim() });
    expect((await reader.run("edge", "ls")).exit).toBe(0);
    expect(json(await reader.run("whoami", "-o", "json"))).toMatchObject({
      principal: "reader",
      contexts: ["default"],
    });
    const issued = await reader.run("edge", "token", "issue");
    expect(issued.exit).toBe(3);
    expect(issued.stderr).toContain("aegis.edge.enroll");
    const misspelt = await server.run(
      "controller",
      "token",
      "create",
      "--name",
      "x",
      "--scope",
      "aegis.edge.host.read",
    );
    expect(misspelt).toMatchObject({ exit: 2, stdout: "" });
    expect(misspelt.stderr).toContain("did you mean aegis.edge.hosts.read?");
  });
});

describe("a host", () => {
  test("shows its plan and touches nothing on --dry-run", async () => {
    const fresh = place.machine("dry");
    const outcome = await enroll(fresh, "dry", "--dry-run");
    expect(outcome.exit).toBe(0);
    expect(outcome.stdout).toContain(`https://localhost:${grpcPort}`);
    expect(outcome.stdout).toMatch(/root key +SHA256:/);
    expect(outcome.stdout).toContain("node.key");
    expect(readdirSync(fresh.home)).toEqual([]);
  });

  test("keeps its identity closed to others, and its token to itself", () => {
    const dir = edgeDir(plain);
    expect(modeOf(dir)).toBe("700");
    for (const name of ["node.key", "node.token", "controller.keys"])
      expect(`${name} ${modeOf(join(dir, name))}`).toBe(`${name} 600`);
    expect(statSync(join(dir, "node.key")).size).toBe(32);
    expect(existsSync(join(dir, "enrollment.jwt"))).toBe(false);
  });

  test("is listed with its status, system and labels", async () => {
    const hosts = json(await operator.run("edge", "ls", "-o", "json"));
    expect(hosts.map(({ name, status, seal }: Record<string, string>) => [name, status, seal])).toEqual(
      expect.arrayContaining([
        ["plain", "connected", "strict"],
        ["open", "connected", "strict"],
      ]),
    );
    const labelled = json(await operator.run("edge", "ls", "--label", "region=eu", "-o", "json"));
    expect(labelled.map(({ name }: { name: string }) => name)).toEqual(["plain"]);
    const table = await operator.run("edge", "ls", "--connected");
    expect(table.stdout).toMatch(/^NAME +NODE +STATUS/);
    expect(table.stderr).toBe("");
  });

  test("says of itself that it is connected, and ends with 0 for it", async () => {
    const status = await plain.run("edge", "status", "-o", "json");
    expect(status.exit).toBe(0);
    expect(json(status)).toMatchObject({
      state: "connected",
      controller: `https://localhost:${grpcPort}`,
      seal: "strict",
    });
    const elsewhere = await place.machine("nowhere").run("edge", "status");
    expect(elsewhere.exit).toBe(78);
    expect(elsewhere.stderr).toContain("hint: aegis edge run, or aegis edge enroll TOKEN");
  });

  test("opens no port and holds exactly one connection, before and after calls", async () => {
    const port = grpcPort.toString(16).toUpperCase().padStart(4, "0");
    for (let round = 0; round < 2; round++) {
      const { listening, connected, datagram } = socketsOf(plainDaemon.pid);
      expect({ listening, datagram }).toEqual({ listening: [], datagram: [] });
      expect(connected).toHaveLength(1);
      expect(connected[0]).toEndWith(`:${port}`);
      expect((await operator.run("edge", "exec", "plain", "--", "uname")).exit).toBe(0);
    }
  });
});

describe("exec", () => {
  const onOpen = (...words: string[]) => ["edge", "exec", "open", "--context", "operator", ...words];
  const shell = (script: string, ...flags: string[]) => operator.run(...onOpen(...flags, "--", "sh", "-c", script));

  test("prints what a harmless command prints, and its status is the command's", async () => {
    expect(await operator.run("edge", "exec", "plain", "--", "uname", "-s")).toEqual({
      exit: 0,
      stdout: "Linux\n",
      stderr: "",
    });
    expect(await shell("echo out; echo err >&2; exit 7")).toEqual({ exit: 7, stdout: "out\n", stderr: "err\n" });
  });

  test("passes bytes, not text", async () => {
    const child = Bun.spawn([executable, ...onOpen("--", "printf", "\\377\\000\\303\\n")], {
      env: operator.env,
      stderr: "pipe",
    });
    expect([...new Uint8Array(await new Response(child.stdout).arrayBuffer())]).toEqual([255, 0, 195, 10]);
    expect(await child.exited).toBe(0);
  });

  test("ends with 128 + n for a signal and with 255 for what is ours", async () => {
    expect((await shell("kill -KILL $$")).exit).toBe(137);
    for (const [args, message] of [
      [["edge", "exec", "nobody", "--", "uname"], 'no host "nobody"'],
      [["edge", "exec", "plain", "--", "cat", "/etc/passwd"], "policy_violation"],
      [["edge", "exec", "plain", "--context", "nope", "--", "uname"], "security context"],
      [["edge", "exec", "open", "--context", "operator", "--deadline", "200ms", "--", "sleep", "60"], "timeout"],
      [["edge", "exec", "plain"], "there is no command"],
    ] as const) {
      const { exit, stdout, stderr } = await operator.run(...args);
      expect({ args, exit, stdout }).toEqual({ args, exit: 255, stdout: "" });
      expect(stderr).toContain(message);
    }
  });

  test("hands over directory, variables and input", async () => {
    expect((await shell("pwd; echo $WORD", "--cwd", "/usr", "--env", "WORD=a=b")).stdout).toBe("/usr\na=b\n");
    expect((await operator.feed("one\ntwo\n", ...onOpen("--stdin", "--", "wc", "-l"))).stdout.trim()).toBe("2");
  });

  test("shows output while the command still runs, and Ctrl-C ends it there", async () => {
    const mark = `86400.${process.pid}`;
    const running = operator.start(...onOpen("--", "sh", "-c", `echo begun; sleep ${mark}`));
    await running.until(/begun/);
    await eventually("the command runs", () => processesWith(mark).length > 0);
    running.signal("SIGINT");
    expect((await running.ended).exit).toBe(130);
    await eventually("nothing of it is left", () => processesWith(mark).length === 0);
  });

  test("stops quietly when nobody reads its output any more", async () => {
    const mark = `86401.${process.pid}`;
    const script = `'${executable}' edge exec open --context operator -- sh -c 'yes; : ${mark}' | head -n 1`;
    const piped = operator.startProgram(["sh", "-c", script]);
    expect(await piped.ended).toEqual({ exit: 0, stdout: "y\n", stderr: "" });
    await eventually("nothing of it is left", () => processesWith(mark).length === 0);
  });
});

describe("fleet", () => {
  const run = (...flags: string[]) => ["edge", "fleet", "run", "--yes", ...flags];
  const everywhere = ["--target", "all", "--tool", "cmd.run", "--arg", "command=uname"];
  const slow = (mark: string) => [
    "--context",
    "operator",
    "--tool",
    "cmd.run",
    "--args",
    JSON.stringify({ command: "sleep", args: [mark] }),
  ];

  test("preview names the hosts of a target, and changes nothing", async () => {
    const { resolved, skipped } = json(await operator.run("edge", "fleet", "preview", "--target", "all", "-o", "json"));
    expect(resolved.map(({ name }: { name: string }) => name)).toEqual(["open", "plain"]);
    expect(skipped).toEqual([]);
    const wrong = await operator.run("edge", "fleet", "preview", "--target", "oss=linux");
    expect(wrong.exit).toBe(2);
    expect(wrong.stderr).toContain("did you mean os=");
  });

  test("run shows each host's lines with its name, and the sum apart from them", async () => {
    const { exit, stdout, stderr } = await operator.run(...run(...everywhere));
    expect(exit).toBe(0);
    expect(stdout.trimEnd().split("\n").sort()).toEqual(["open | Linux", "plain | Linux"]);
    expect(stderr).toMatch(/^run [0-9a-f-]{36} on 2 hosts\ncomplete: 2 ok\n$/);
  });

  test("run tells a program every event, with a receipt that verifies", async () => {
    const { exit, stdout } = await operator.run(...run(...everywhere, "-o", "json", "--mode", "sequential"));
    expect(exit).toBe(0);
    const events = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ event }) => event)).toEqual([
      ...["started", "node_started", "command_progress", "command_result"],
      ...["node_started", "command_progress", "command_result", "fleet_result"],
    ]);
    for (const event of events)
      if (event.event === "command_result") expect(event).toMatchObject({ ok: true, receipt: "verified" });
  });

  test("run asks first, and where nobody can answer it needs --yes", async () => {
    const { exit, stdout, stderr } = await operator.run("edge", "fleet", "run", ...everywhere);
    expect({ exit, stdout }).toEqual({ exit: 2, stdout: "" });
    expect(stderr).toContain("add --yes");
  });

  test("a failed host, a missed minimum and a missed deadline are never 0", async () => {
    const failing = await operator.run(
      ...run("--target", "all", "--on-error", "continue", "--tool", "cmd.run", "--arg", "command=false"),
    );
    expect(failing.exit).toBe(6);
    expect(failing.stderr).toContain("open: policy_violation");
    const few = await operator.run(...run(...everywhere, "--require-min", "3"));
    expect(few.exit).toBe(9);
    expect(few.stderr).toContain("require_min_not_met");
    const late = await operator.run(...run("--target", "@open", ...slow("60"), "--deadline", "300ms"));
    expect(late.exit).toBe(8);
    const nobody = await operator.run(...run("--target", "tags=none", "--tool", "cmd.run", "--arg", "command=uname"));
    expect(nobody.exit).toBe(5);
  });

  test("a list given by --arg is told what takes one, and history calls hosts by their names", async () => {
    const misread = await operator.run(
      ...run(...everywhere, "--arg", 'args=["-a"]', "-o", "json", "--mode", "sequential"),
    );
    expect(misread.exit).toBe(6);
    expect(misread.stderr).toContain("hint: --arg gives text; lists");
    const runId = JSON.parse(misread.stdout.split("\n")[0] ?? "").run_id;
    const shown = await operator.run("edge", "fleet", "show", runId);
    expect(shown.stdout).toMatch(/^open +err .*invalid_args/m);
    expect(shown.stdout).toMatch(/^plain +(err|not_started)/m);
  });

  test("what the host does not have or understand comes back in words", async () => {
    const context = await operator.run(
      ...run("--target", "@plain", "--context", "operator", "--tool", "cmd.run", "--arg", "command=uname"),
    );
    expect(context.exit).toBe(6);
    expect(context.stderr).toContain('security_context_not_found: this host has no security context named "operator"');
    const foreign = await operator.run(
      ...run("--target", "@plain", "--context", "secret", "--tool", "cmd.run", "--arg", "command=uname"),
    );
    expect(foreign.exit).toBe(3);
    expect(foreign.stderr).toContain('this token may not use the security context "secret"');
    const tool = await operator.run(...run("--target", "@plain", "--tool", "cmd.rum", "--arg", "command=uname"));
    expect(tool.exit).toBe(6);
    expect(tool.stderr).toMatch(/tool_(not_found|missing)/);
    const args = await operator.run(...run("--target", "@plain", "--tool", "cmd.run", "--args", '{"command":5}'));
    expect(args.exit).toBe(6);
    expect(args.stderr).toMatch(/invalid_args: .*command/);
  });

  test("Ctrl-C cancels everywhere: exit 7, and no process is left on any host", async () => {
    const mark = `86402.${process.pid}`;
    const running = operator.start(...run("--target", "@open", ...slow(mark)));
    await eventually("the command runs", () => processesWith(mark).length > 1);
    running.signal("SIGINT");
    const { exit, stderr } = await running.ended;
    expect(exit).toBe(7);
    expect(stderr).toContain("cancelled: 0 ok, 1 cancelled");
    await eventually("nothing of it is left", () => processesWith(mark).length === 0);
  });

  test("cancel ends a run that somebody else started", async () => {
    const mark = `86403.${process.pid}`;
    const running = operator.start(...run("--target", "@open", ...slow(mark)));
    const [, runId = ""] = await running.until(/run ([0-9a-f-]{36})/);
    await eventually("the command runs", () => processesWith(mark).length > 1);
    const cancelled = json(await operator.run("edge", "fleet", "cancel", runId, "-o", "json"));
    expect(cancelled).toEqual({ run_id: runId, cancelled: 1, already_terminal: 0 });
    expect((await running.ended).exit).toBe(7);
    const unknown = await operator.run("edge", "fleet", "cancel", crypto.randomUUID());
    expect(unknown.exit).toBe(1);
    expect(unknown.stderr).toContain("no run");
  });
});

describe("an enrollment token is refused, by name of what is wrong,", () => {
  interface Signed {
    claims: Claims<"enrollment">;
    key: SigningKey;
  }

  /** The claims of a real token, and the key to sign others with. */
  async function real(): Promise<Signed> {
    const { token } = json(await operator.run("edge", "token", "issue", "-o", "json"));
    const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString("utf8"));
    return { claims, key: importSigningKey(readFileSync(join(server.home, ".aegis/controller/keys/token.key"))) };
  }
  const sign = ({ claims, key }: Signed, change: Record<string, unknown>) =>
    signJwt("enrollment", { ...claims, ...change } as Claims<"enrollment">, key);

  let count = 0;
  async function refused(token: string): Promise<Outcome> {
    const machine = place.machine(`refused-${count++}`);
    const outcome = await machine.feed(token, "edge", "enroll", "-", "--no-service");
    expect(outcome.exit).not.toBe(0);
    expect(readdirSync(machine.home)).toEqual([]);
    return outcome;
  }

  test("when it is garbled", async () => {
    expect((await refused("eyJhbGciOiJFZERTQSJ9.nonsense")).stderr).toContain("it is no token");
    const { claims, key } = await real();
    const [head, body, signature] = sign({ claims, key }, {}).split(".");
    expect((await refused(`${head}.${body?.slice(4)}.${signature}`)).stderr).toContain("it is garbled");
    expect((await refused(" \n")).stderr).toContain("is empty");
  });

  test("when it has expired", async () => {
    const before = Math.floor(Date.now() / 1000) - 3600;
    const { exit, stderr } = await refused(sign(await real(), { exp: before, nbf: before - 900 }));
    expect(exit).toBe(3);
    expect(stderr).toContain("the enrollment token expired at");
    expect(stderr).toContain("Ask for a new token: aegis edge token issue");
  });

  test("when it was used before", async () => {
    const token = sign(await real(), {});
    expect((await place.machine("first-user").feed(token, "edge", "enroll", "-", "--no-service")).exit).toBe(0);
    const { exit, stderr } = await refused(token);
    expect(exit).toBe(3);
    expect(stderr).toContain("was already redeemed");
  });

  test("when it is for something else", async () => {
    const { exit, stderr } = await refused(sign(await real(), { aud: tokenKinds.node.aud }));
    expect(exit).toBe(2);
    expect(stderr).toContain("not an enrollment token");
  });

  test("when nobody of this controller signed it", async () => {
    const { claims } = await real();
    const foreign = importSigningKey(crypto.getRandomValues(new Uint8Array(32)));
    expect((await refused(sign({ claims, key: foreign }, {}))).stderr).toContain("is not one of this controller's");
  });

  test("when its tenant is none of the controller's, or not the host's", async () => {
    expect((await refused(sign(await real(), { tid: "ghost" }))).stderr).toContain("tenant ghost does not exist here");
    await server.run("controller", "token", "create", "--name", "x", "--scope", "aegis.admin", "--tenant", "others");
    const moved = place.machine("moved");
    cpSync(edgeDir(plain), edgeDir(moved), { recursive: true });
    const token = sign(await real(), { tid: "others" });
    const { exit, stderr } = await moved.feed(token, "edge", "enroll", "-", "--no-service", "--keep-existing");
    expect(exit).toBe(4);
    expect(stderr).toContain("it belongs to tenant default, the token to others");
  });

  test("when the controller cannot be reached", async () => {
    const port = await freePort();
    const { exit, stderr } = await refused(sign(await real(), { cep: `https://localhost:${port}` }));
    expect(exit).toBe(5);
    expect(stderr).toContain(`localhost port ${port}`);
    expect(stderr).toContain("hint: check that the controller runs");
  });
});

describe("a damaged host says which file, and what mends it:", () => {
  let count = 0;
  async function started(damage: (dir: string) => void): Promise<Outcome> {
    const machine = place.machine(`damaged-${count++}`);
    cpSync(edgeDir(plain), edgeDir(machine), { recursive: true, filter: (path) => !path.includes("/run/") });
    damage(edgeDir(machine));
    return await machine.run("edge", "run", "--once");
  }

  test("a truncated key", async () => {
    const { exit, stderr } = await started((dir) => truncateSync(join(dir, "node.key"), 7));
    expect(exit).toBe(78);
    expect(stderr).toContain("node.key is damaged: it has 7 bytes, a node key has 32");
    expect(stderr).toContain("hint: enroll this host again");
  });

  test("settings with three errors, all of them at once", async () => {
    const { exit, stderr } = await started((dir) => {
      const path = join(dir, "aegis-config.yaml");
      const text = readFileSync(path, "utf8")
        .replace(/heartbeat_interval_secs: 30/, "heartbeat_interval_secs: soon")
        .replace(/tenant_id: default/, "tenant_id: No Such Slug")
        .replace(/max_concurrent_invocations: 16/, "max_concurrent_invocations: -1");
      writeFileSync(path, text);
    });
    expect(exit).toBe(78);
    for (const key of ["heartbeat_interval_secs", "tenant_id", "max_concurrent_invocations"])
      expect(stderr).toContain(key);
  });

  test("modes that are too open are closed, and said", async () => {
    const machine = place.machine("too-open");
    await enroll(machine, "too-open");
    chmodSync(join(edgeDir(machine), "node.key"), 0o644);
    const daemon = await startDaemon(machine);
    expect(daemon.stderr()).toContain("node.key had mode 0644, which is too open; it is 0600 now");
    expect(modeOf(join(edgeDir(machine), "node.key"))).toBe("600");
    daemon.signal("SIGTERM");
    expect((await daemon.ended).exit).toBe(0);
  });
});

describe("dev", () => {
  test("makes the whole walk on one machine, prints its output, and leaves nothing behind", async () => {
    const folder = join(place.folder, "dev-tmp");
    const machine = place.machine("dev", { TMPDIR: folder, DEV_MARK: folder });
    await Bun.write(join(folder, ".keep"), "");
    const { exit, stdout, stderr } = await machine.run("dev", "--once");
    expect({ exit, stdout }).toEqual({ exit: 0, stdout: expect.stringMatching(/^Linux \S+\n$/) });
    expect(stderr).toContain("receipt verified");
    expect(readdirSync(folder)).toEqual([".keep"]);
    expect(readdirSync(machine.home)).toEqual([]);
    expect(processesWith(folder)).toEqual([]);
  });

  test("tells how to reach it, serves until Ctrl-C, and goes on where it was with --data-dir", async () => {
    const data = join(place.folder, "dev-data");
    const machine = place.machine("dev-kept");
    let nodeId = "";
    for (let round = 0; round < 2; round++) {
      const dev = machine.start("dev", "--data-dir", data);
      await dev.until(/Ctrl-C ends it/);
      expect(dev.stderr()).toContain(`export AEGIS_HOME=${data}`);
      const visitor = place.machine("dev-visitor", { AEGIS_HOME: data });
      expect((await visitor.run("edge", "exec", "dev", "--", "uname")).stdout).toBe("Linux\n");
      const [host] = json(await visitor.run("edge", "ls", "-o", "json"));
      if (round === 1) expect(host.node_id).toBe(nodeId);
      nodeId = host.node_id;
      dev.signal("SIGINT");
      expect((await dev.ended).exit).toBe(0);
    }
  });
});

needs("linux", "command:python3")("a daemon that may not make memory executable takes calls all the same", async () => {
  const machine = place.machine("wx");
  await enroll(machine, "wx");
  const daemon = machine.startProgram([...writeXorExecute, executable, "edge", "run"]);
  await daemon.until(/"event":"connected"/);
  expect(await operator.run("edge", "exec", "wx", "--", "uname")).toEqual({ exit: 0, stdout: "Linux\n", stderr: "" });
  daemon.signal("SIGTERM");
  expect((await daemon.ended).exit).toBe(0);
});

describe("told to stop, a daemon", () => {
  test("lets a call finish, ends with 0, and is no longer connected", async () => {
    const running = operator.start(
      "edge",
      "exec",
      "open",
      "--context",
      "operator",
      "--",
      "sh",
      "-c",
      "echo begun; sleep 1; echo done",
    );
    await running.until(/begun/);
    openDaemon.signal("SIGTERM");
    expect(await running.ended).toEqual({ exit: 0, stdout: "begun\ndone\n", stderr: "" });
    expect((await openDaemon.ended).exit).toBe(0);
    const status = await open.run("edge", "status", "-o", "json");
    expect(status.exit).toBe(5);
    expect(json(status)).toMatchObject({ state: "stopped", pid: null });
    await eventually("the controller knows", async () =>
      json(await operator.run("edge", "ls", "-o", "json")).some(
        (host: { name: string; status: string }) => host.name === "open" && host.status === "disconnected",
      ),
    );
    const gone = await operator.run("edge", "exec", "open", "--", "uname");
    expect(gone.exit).toBe(255);
    expect(gone.stderr).toContain("open is disconnected");
  });
});

test("told to stop, a controller ends with 0, and without it operators and hosts say so", async () => {
  controller.signal("SIGTERM");
  expect((await controller.ended).exit).toBe(0);
  const { exit, stderr } = await operator.run("edge", "ls");
  expect(exit).toBe(5);
  expect(stderr).toContain("cannot reach the controller");
  await plainDaemon.until(/"event":"disconnected"/);
  const status = await plain.run("edge", "status", "-o", "json");
  expect(status.exit).toBe(5);
});
