/** What the owner of a host and an operator do at their own terminals, through the executable. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../src/platform/free-port.ts";
import { eventually, type Machine, type Outcome } from "./support/aegis.ts";
import { type Host, installation, jsonOf as json } from "./support/installation.ts";
import { screenOf } from "./support/screen.ts";

setDefaultTimeout(60_000);

const site = await installation();
const { place, server, desk: operator, httpUrl: url, token } = site;
let host: Host;

const edgeDir = (machine: Machine) => join(machine.home, ".aegis/edge");
const settings = (machine: Machine) => readFileSync(join(edgeDir(machine), "aegis-config.yaml"), "utf8");

beforeAll(async () => {
  host = await site.addHost("host");
});
afterAll(() => site.close());

describe("at a terminal, enroll", () => {
  const enroll = ["edge", "enroll", "--token-file", "token", "--no-service"];

  async function prepared(name: string): Promise<Machine> {
    const machine = place.machine(name);
    writeFileSync(join(machine.home, "token"), await token(name));
    return machine;
  }

  test("asks which folders tools may read, shows the plan, and waits for a yes", async () => {
    const machine = await prepared("asked");
    mkdirSync(join(machine.home, "projects"));
    const running = machine.onTerminal(...enroll);
    await running.until(/Which folders may tools read\?/);
    running.type("~/projects\n");
    await running.until(/run and change everything\? \[y\/N\]/);
    running.type("\n");
    await running.until(/enroll this host\? \[y\/N\]/);
    expect(readdirSync(machine.home).sort()).toEqual(["projects", "token"]);
    running.type("y\n");
    expect((await running.ended).exit).toBe(0);
    expect(running.stdout()).toMatch(/root key +SHA256:/);
    expect(settings(machine)).toContain(join(machine.home, "projects"));
    expect(settings(machine)).not.toContain("operator");
  });

  test("allows everything to nobody, unless the owner says yes to that too", async () => {
    const machine = await prepared("widely");
    const running = machine.onTerminal(...enroll, "--allow", machine.home.replace(/[^/]+$/, "shared"));
    await running.ended;
    expect(running.stdout()).toContain("does not exist");
    const open = machine.onTerminal(...enroll);
    await open.until(/Which folders/);
    open.type("\n");
    await open.until(/run and change everything\?/);
    open.type("y\n");
    await open.until(/enroll this host\?/);
    open.type("y\n");
    expect((await open.ended).exit).toBe(0);
    expect(settings(machine)).toContain("name: operator");
  });

  test("does nothing without a yes, nor after Ctrl-C", async () => {
    for (const [answer, exit] of [
      ["n\n", 7],
      ["\n", 7],
      ["\u0003", 7],
    ] as const) {
      const machine = await prepared(`no-${answer.charCodeAt(0)}`);
      const running = machine.onTerminal(...enroll);
      await running.until(/Which folders/);
      running.type("\n");
      await running.until(/run and change everything\?/);
      running.type("\n");
      await running.until(/enroll this host\?/);
      running.type(answer);
      expect((await running.ended).exit).toBe(exit);
      expect(readdirSync(machine.home)).toEqual(["token"]);
    }
  });

  test("asks about each conflict: keep, overwrite or stop", async () => {
    const machine = await prepared("again");
    await machine.feed(await token("again"), "edge", "enroll", "-", "--no-service");
    const key = readFileSync(join(edgeDir(machine), "node.key"));
    const stopped = machine.onTerminal(...enroll);
    await stopped.until(/node\.key: this host has a key\. Keep it, overwrite it, or stop\? \[k\/o\/S\]/);
    stopped.type("\n");
    expect((await stopped.ended).exit).toBe(7);
    expect(readFileSync(join(edgeDir(machine), "node.key"))).toEqual(key);

    const kept = machine.onTerminal(...enroll);
    await kept.until(/\[k\/o\/S\]/);
    kept.type("k\n");
    expect((await kept.ended).exit).toBe(0);
    expect(kept.stdout()).toContain("nothing: this host was enrolled already");
    expect(readFileSync(join(edgeDir(machine), "node.key"))).toEqual(key);

    const replaced = machine.onTerminal(...enroll);
    await replaced.until(/\[k\/o\/S\]/);
    replaced.type("o\n");
    await replaced.until(/enroll this host\?/);
    replaced.type("y\n");
    expect((await replaced.ended).exit).toBe(0);
    expect(replaced.stdout()).toContain("this becomes a new host with a node id of its own");
    expect(readFileSync(join(edgeDir(machine), "node.key"))).not.toEqual(key);
    const [archived = ""] = readdirSync(join(edgeDir(machine), "archive"));
    expect(readFileSync(join(edgeDir(machine), "archive", archived))).toEqual(key);
  });
});

describe("without a terminal, enroll", () => {
  test("does as its flags say, and refuses to decide what they leave open", async () => {
    const machine = place.machine("flags");
    const [state, config] = [join(machine.home, "state"), join(machine.home, "settings.yaml")];
    mkdirSync(join(machine.home, "projects"));
    const where = ["--state-dir", state, "--config", config];
    const enroll = async (...flags: string[]) => {
      writeFileSync(join(machine.home, "token"), await token("by-token"));
      return await machine.run("edge", "enroll", "--token-file", "token", "--no-service", ...where, ...flags);
    };
    const wanted = ["--name", "by-flag", "--label", "region=eu", "--allow", "projects", "--minimal"];
    expect(await enroll(...wanted, "--non-interactive")).toMatchObject({ exit: 0 });
    const written = readFileSync(config, "utf8");
    expect(written).toContain(join(machine.home, "projects"));
    expect(written).not.toContain("#");
    expect(existsSync(join(machine.home, ".aegis"))).toBe(false);
    const key = readFileSync(join(state, "node.key"));

    const daemon = machine.start("edge", "run", ...where);
    await daemon.until(/"event":"connected"/);
    const listed = json(await operator.run("edge", "ls", "--label", "region=eu", "-o", "json"));
    expect(listed).toMatchObject([{ name: "by-flag", status: "connected" }]);
    await daemon.stop();

    const open = await enroll("--non-interactive");
    expect(open.exit).toBe(4);
    expect(open.stderr).toMatch(/node\.key: this host has a key\nhint: --keep-existing keeps .*--force replaces/);
    expect((await enroll("--non-interactive", "--keep-existing")).exit).toBe(0);
    expect(readFileSync(join(state, "node.key"))).toEqual(key);
    expect((await enroll("--non-interactive", "--force")).exit).toBe(0);
    expect(readFileSync(join(state, "node.key"))).not.toEqual(key);
  });
});

describe("at a terminal, fleet run", () => {
  const run = ["edge", "fleet", "run", "--target", "all", "--tool", "cmd.run", "--arg", "command=uname"];

  test("says what it is about to do, and shows every host in its place", async () => {
    const running = operator.onTerminal(...run);
    await running.until(/run it\? \[y\/N\]/);
    expect(running.stdout()).toContain("cmd.run on all: 1 host (host)");
    running.type("y\n");
    expect((await running.ended).exit).toBe(0);
    const screen = screenOf(running.stdout());
    expect(screen).toContain("host | Linux");
    expect(screen.slice(-2)).toEqual([expect.stringMatching(/^complete: 1 ok/), ""]);
    expect(running.stdout()).toContain("\u001b[");
  });

  test("runs nothing without a yes", async () => {
    const running = operator.onTerminal(...run);
    await running.until(/run it\?/);
    running.type("\n");
    expect((await running.ended).exit).toBe(7);
    expect(running.stdout()).not.toContain("host | Linux");
  });

  test("neither asks nor draws with NO_COLOR", async () => {
    const machine = place.machine("plain-desk", { ...operator.env, NO_COLOR: "1" });
    const asked = machine.onTerminal(...run);
    expect(await asked.ended).toMatchObject({ exit: 2, stdout: expect.stringContaining("add --yes") });
    const running = machine.onTerminal(...run, "--yes");
    expect((await running.ended).exit).toBe(0);
    expect(running.stdout()).not.toContain("\u001b");
  });
});

describe("an operator", () => {
  test("signs in with a token that is neither shown nor kept open to others, and out again", async () => {
    const made = await server.run(
      "controller",
      "token",
      "create",
      "--name",
      "bob",
      "--scope",
      "aegis.edge.hosts.read",
      "-o",
      "json",
    );
    const { token: secret, id } = json(made);
    const desk = place.machine("bob");
    const login = desk.onTerminal("login", url);
    await login.until(/the token: /);
    login.type(`${secret}\n`);
    expect((await login.ended).exit).toBe(0);
    expect(login.stdout()).not.toContain(secret);
    const credentials = join(desk.home, ".aegis/credentials");
    expect(statSync(credentials).mode & 0o777).toBe(0o600);
    expect(json(await desk.run("whoami", "-o", "json"))).toMatchObject({ principal: "bob", url });

    expect((await server.run("controller", "token", "ls")).stdout).toMatch(new RegExp(`^bob +${id} +valid`, "m"));
    expect((await server.run("controller", "token", "revoke", id)).exit).toBe(0);
    expect((await server.run("controller", "token", "revoke", id)).stderr).toContain("was revoked already");
    const late = await desk.run("whoami");
    expect(late).toMatchObject({ exit: 3, stderr: expect.stringContaining("revoked") });
    expect((await desk.run("logout")).exit).toBe(0);
    expect(readFileSync(credentials, "utf8")).not.toContain(secret);
    expect((await desk.run("whoami")).stderr).toContain("no controller is known here");
  });

  test("over TLS compares the authority's fingerprint once, before the token is sent", async () => {
    const remote = place.machine("remote-server");
    const name = Bun.spawnSync(["uname", "-n"]).stdout.toString().trim();
    await remote.run("controller", "init", "--public-endpoint", `${name}:${await freePort()}`);
    const controller = remote.start("controller", "start", "--port", "0");
    const [, address = ""] = await controller.until(/"http_url":"(https:[^"]+)"/);
    const secure = `https://localhost:${new URL(address).port}`;
    const { stdout: secret } = await remote.run(
      "controller",
      "token",
      "create",
      "--name",
      "eve",
      "--scope",
      "aegis.admin",
    );
    const { fingerprint, ca_pem } = json(await remote.run("controller", "ca", "-o", "json"));
    expect((await remote.run("controller", "ca")).stdout).toBe(ca_pem);

    const desk = place.machine("eve");
    const login = (...flags: string[]) => desk.feed(secret, "login", secure, ...flags);
    const unknown = await login();
    expect(unknown).toMatchObject({ exit: 3, stderr: expect.stringContaining(`its fingerprint is ${fingerprint}`) });
    const other = fingerprint.replace(/:.{4}/, ":AAAA");
    expect(await login("--fingerprint", other)).toMatchObject({
      exit: 3,
      stderr: expect.stringContaining("is not the controller you mean"),
    });
    expect(existsSync(join(desk.home, ".aegis"))).toBe(false);
    expect((await login("--fingerprint", fingerprint)).exit).toBe(0);
    expect(json(await desk.run("whoami", "-o", "json"))).toMatchObject({ principal: "eve", url: secure });

    const person = place.machine("eve-asked");
    writeFileSync(join(person.home, "secret"), secret);
    const asked = person.onTerminal("login", secure, "--token-file", "secret");
    await asked.until(/Is that what aegis controller ca shows there\? \[y\/N\]/);
    asked.type("y\n");
    expect((await asked.ended).exit).toBe(0);
    controller.signal("SIGTERM");
    await controller.ended;
  });
});

describe("an operator's hosts", () => {
  const names = (outcome: Outcome) => json(outcome).map(({ name }: { name: string }) => name);
  const ls = (...flags: string[]) => operator.run("edge", "ls", ...flags, "-o", "json");

  test("are found by tags and groups, in lists and as targets", async () => {
    expect((await operator.run("edge", "tag", "add", "host", "prod", "db")).stdout).toBe("host: prod db\n");
    expect(names(await ls("--tag", "prod"))).toEqual(["host"]);
    const made = await operator.run("edge", "group", "create", "web", "--selector", "tags=prod", "-o", "json");
    expect(json(made)).toMatchObject({ name: "web", resolved_members: [{ name: "host" }] });
    const run = (target: string) =>
      operator.run("edge", "fleet", "run", "--yes", "--target", target, "--tool", "cmd.run", "--arg", "command=uname");
    expect(await run("group:web")).toMatchObject({ exit: 0, stdout: "host | Linux\n" });
    expect((await operator.run("edge", "tag", "rm", "host", "prod")).stdout).toBe("host: db\n");
    expect((await run("group:web")).exit).toBe(5);
    const pinned = await operator.run("edge", "group", "set-pinned", "web", "--add", "host");
    expect(pinned.stdout).toMatch(/^web +tags=prod +1 +host /m);
    expect((await run("group:web")).exit).toBe(0);
    expect((await operator.run("edge", "group", "set-pinned", "web", "--rm", "host")).stdout).toMatch(
      /^web +tags=prod +0 +- /m,
    );
    expect((await operator.run("edge", "group", "ls")).stdout).toMatch(/^web /m);
    expect((await operator.run("edge", "group", "rm", "web")).exit).toBe(0);
    expect(await run("group:web")).toMatchObject({ exit: 1, stderr: expect.stringContaining('no group "web"') });
  });

  test("keep a history of what ran on them", async () => {
    const { stderr } = await operator.run(
      "edge",
      "fleet",
      "run",
      "--yes",
      "--target",
      "@host",
      "--tool",
      "cmd.run",
      "--arg",
      "command=cat",
    );
    const [, runId = ""] = /run ([0-9a-f-]{36})/.exec(stderr) ?? [];
    const [newest] = json(await operator.run("edge", "fleet", "runs", "-o", "json"));
    expect(newest).toMatchObject({ run_id: runId, tool: "cmd.run", principal: "tester", summary: { err: 1 } });
    const shown = await operator.run("edge", "fleet", "show", runId);
    expect(shown.stdout).toMatch(/target +@host/);
    expect(shown.stdout).toMatch(/err +\d+ ms +verified +policy_violation/);
  });

  test("are denied for good by one command, and told so at once", async () => {
    const machine = await site.addHost("banned");
    expect((await operator.run("edge", "keys", "revoke-remote", "banned")).stderr).toContain("is revoked");
    await machine.daemon?.until(/"event":"disconnected"[^\n]*revoked/);
    expect(names(await ls())).not.toContain("banned");
    expect(json(await ls("--all")).find(({ name }: { name: string }) => name === "banned").status).toBe("revoked");
    const status = await machine.run("edge", "status");
    expect(status).toMatchObject({ exit: 5, stdout: expect.stringMatching(/last error +revoked/) });
    await machine.daemon?.stop();
  });

  test("and their owner can have that done while leaving", async () => {
    const machine = place.machine("leaver", operator.env);
    const own = place.machine("leaver");
    await own.feed(await token("leaver"), "edge", "enroll", "-", "--no-service");
    const leaver = place.machine("leaver", {
      AEGIS_CONTROLLER: url,
      AEGIS_USER_TOKEN: operator.env.AEGIS_USER_TOKEN ?? "",
    });
    expect(machine.home).toBe(leaver.home);
    const { exit, stderr } = await leaver.run("edge", "logout", "--revoke", "--purge");
    expect({ exit, stderr }).toEqual({ exit: 0, stderr: expect.stringContaining("denies it for good") });
    expect(json(await ls("--all")).find(({ name }: { name: string }) => name === "leaver").status).toBe("revoked");
  });
});

describe("doctor", () => {
  const findings = (outcome: Outcome) =>
    Object.fromEntries(json(outcome).map((one: { check: string; state: string }) => [one.check, one.state]));

  test("looks at everything of a host that is well", async () => {
    const outcome = await host.run("doctor", "-o", "json");
    expect(findings(outcome)).toEqual({
      ...{ state: "ok", settings: "ok", identity: "ok", proxy: "ok", dns: "ok", tcp: "ok", tls: "ok", grpc: "ok" },
      ...{
        clock: "ok",
        health: "ok",
        daemon: "ok",
        service: expect.stringMatching(/skipped|warning/),
        tools: expect.stringMatching(/ok|warning/),
        operator: "skipped",
      },
    });
    expect(outcome.exit).toBe(0);
    expect((await operator.run("edge", "exec", "host", "--", "uname")).exit).toBe(0);
  });

  test("names the step that fails on the way to the controller, and what to do", async () => {
    const machine = place.machine("ill");
    await machine.feed(await token("ill"), "edge", "enroll", "-", "--no-service");
    const path = join(edgeDir(machine), "aegis-config.yaml");
    const healthy = settings(machine);
    const port = await freePort();
    const ways: [string, string, string, RegExp][] = [
      [
        "tcp",
        "https://localhost:\\d+",
        `https://localhost:${port}`,
        new RegExp(`tcp: check that the controller runs.*${port}`),
      ],
      ["dns", "https://localhost:\\d+", "https://nobody.invalid:443", /dns: check the name/],
      ["tls", "- spki-sha256:\\S+", `- spki-sha256:${"A".repeat(43)}`, /tls: /],
    ];
    for (const [check, written, instead, remedy] of ways) {
      writeFileSync(path, healthy.replace(new RegExp(written, "g"), instead));
      const outcome = await machine.run("doctor", "-o", "json");
      expect({ check, ...findings(outcome) }).toMatchObject({ check, [check]: "failed", daemon: "failed" });
      expect(outcome.exit).toBe(1);
      expect(outcome.stderr).toMatch(remedy);
    }
    writeFileSync(path, "spec: [");
    expect(findings(await machine.run("doctor", "-o", "json"))).toMatchObject({ state: "ok", settings: "failed" });
  });

  test("says who is signed in, and that a machine is no host", async () => {
    const outcome = await operator.run("doctor");
    expect(outcome.exit).toBe(0);
    expect(outcome.stdout).toMatch(/host +skipped +this machine is none/);
    expect(outcome.stdout).toMatch(/operator +ok +signed in as tester of tenant default/);
  });
});

describe("the owner of a host", () => {
  test("sees whether it is connected, since when, what runs and waits there, and what is open to tools", async () => {
    const before = new Date().toISOString();
    const status = await host.run("edge", "status", "-o", "json");
    expect(status.exit).toBe(0);
    expect(json(status).at > before).toBe(true);
    expect(json(status)).toMatchObject({
      ...{ state: "connected", seal: "strict", paused: false, draining: false, retry_at: null, last_error: null },
      ...{ active_calls: 0, queued_calls: 0, undelivered_results: 0, pid: host.daemon?.pid },
      ...{ identity: { detail: expect.any(Array) }, operator_only: { holds: true } },
      connected_since: expect.stringMatching(/^\d{4}-/),
    });
    const { stdout } = await host.run("edge", "status");
    expect(stdout).toMatch(/^state +connected$/m);
    expect(stdout).toMatch(/^identity +(?:protected|readable by tools)/m);
  });

  test("sees a result that waits for its controller, and that it was delivered after all", async () => {
    const late = await site.addHost("late", { enroll: ["--full-access"] });
    const marker = join(late.home, "projects/begun");
    mkdirSync(join(late.home, "projects"));
    const call = operator.start(
      ...["edge", "exec", "late", "--context", "operator", "--", "sh", "-c", `touch ${marker}; sleep 0.5`],
    );
    const waiting = async () => json(await late.run("edge", "status", "-o", "json"));
    await eventually("the call runs", () => existsSync(marker));
    expect((await waiting()).active_calls).toBe(1);
    await site.controller.stop("SIGKILL");
    await call.ended;
    await eventually("the result waits", async () => (await waiting()).undelivered_results === 1);
    expect(await waiting()).toMatchObject({ retry_at: expect.any(String), last_error: expect.any(String) });
    const shown = await late.run("edge", "status");
    expect(shown).toMatchObject({ exit: 5, stdout: expect.stringContaining("1 result to deliver") });
    expect(json(await late.run("edge", "log", "-o", "json")).at(-1)).toMatchObject({ outcome: "ok", exit_code: 0 });
    await site.restartController();
    const delivered = async () => {
      const { state, undelivered_results } = await waiting();
      return state === "connected" && undelivered_results === 0;
    };
    await eventually("it is delivered", delivered, 40_000);
    await late.daemon?.stop();
    await host.daemon?.until(/"event":"disconnected"[\s\S]*"event":"connected"/);
  });

  test("pauses it: every call is refused until resume", async () => {
    expect((await host.run("edge", "pause")).stderr).toContain("paused");
    expect((await host.run("edge", "pause")).stderr).toContain("already");
    const refused = await operator.run("edge", "exec", "host", "--", "uname");
    expect(refused.exit).toBe(255);
    expect(refused.stderr).toContain("paused");
    expect((await host.run("edge", "resume")).exit).toBe(0);
    expect((await operator.run("edge", "exec", "host", "--", "uname")).exit).toBe(0);
    expect((await host.run("edge", "resume")).stderr).toContain("it was not paused");
  });

  test("asks what a call would meet, and gets what the daemon would say", async () => {
    const test = (...words: string[]) => host.run("edge", "policy", "test", ...words);
    const allowed = await test("-o", "json", "--", "uname", "-a");
    expect(allowed.exit).toBe(0);
    expect(json(allowed)).toMatchObject({
      allowed: true,
      rule: expect.stringMatching(/^default\.capabilities\[\d+\]$/),
    });
    const denied = await test("--", "cat", "/etc/passwd");
    expect(denied.exit).toBe(3);
    expect(denied.stdout).toMatch(/verdict +denied/);
    expect(denied.stdout).toContain("cat");
    const { stderr } = await operator.run("edge", "exec", "host", "--", "cat", "/etc/passwd");
    const { reason } = json(await test("-o", "json", "--", "cat", "/etc/passwd"));
    expect(stderr).toContain(reason);
    expect(await test("--context", "nope", "--", "uname")).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining("it has: default"),
    });
    expect((await test("--tool", "fs.nope", "--arg", "path=/")).stderr).toContain("no such tool");
  });

  test("keeps secrets that are never printed", async () => {
    const secrets = join(edgeDir(host), "secrets");
    expect((await host.feed("hunter2\n", "edge", "secret", "set", "db")).exit).toBe(0);
    expect(readFileSync(join(secrets, "db"), "utf8")).toBe("hunter2");
    expect(statSync(join(secrets, "db")).mode & 0o777).toBe(0o600);
    writeFileSync(join(host.home, "value"), "from a file");
    expect((await host.run("edge", "secret", "set", "api", "value")).stderr).toBe("api is set\n");
    const typed = host.onTerminal("edge", "secret", "set", "db");
    await typed.until(/db: /);
    typed.type("wrong\u007f\u007f\u007f\u007f\u007fright\n");
    expect((await typed.ended).exit).toBe(0);
    expect(typed.stdout()).not.toContain("right");
    expect(readFileSync(join(secrets, "db"), "utf8")).toBe("right");
    expect(json(await host.run("edge", "secret", "ls", "-o", "json"))).toEqual(["api", "db"]);
    expect((await host.run("edge", "secret", "rm", "db")).stderr).toBe("db is gone\n");
    expect((await host.run("edge", "secret", "rm", "db")).stderr).toBe("there was no db\n");
    expect((await host.feed("x", "edge", "secret", "set", "../key")).exit).toBe(2);
  });

  test("leaves: the daemon stops, key and token are gone, and the rest waits for another enrollment", async () => {
    const { node_id } = json(await host.run("edge", "status", "-o", "json"));
    const left = await host.run("edge", "logout");
    expect(left.exit).toBe(0);
    expect(left.stderr).toContain(`aegis edge keys revoke-remote ${node_id}`);
    expect((await host.daemon?.ended)?.exit).toBe(0);
    const dir = edgeDir(host);
    expect(["node.key", "node.key.pub", "node.token"].filter((name) => existsSync(join(dir, name)))).toEqual([]);
    expect(settings(host)).toContain(node_id);
    expect(await host.run("edge", "run")).toMatchObject({
      exit: 78,
      stderr: expect.stringContaining("is not enrolled"),
    });
    await eventually("the controller knows", async () =>
      json(await operator.run("edge", "ls", "-o", "json")).every(
        (one: { name: string; status: string }) => one.name !== "host" || one.status === "disconnected",
      ),
    );
    expect((await host.run("edge", "logout", "--purge")).exit).toBe(0);
    expect(existsSync(dir)).toBe(false);
    expect((await host.run("edge", "logout")).exit).toBe(78);
  });
});
