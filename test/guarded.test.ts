/** What a call can reach of the host that runs it: through the executable, from the operator's desk to a hostile tool. */
import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { executable } from "./support/aegis.ts";
import { type Host, type Installation, installation, jsonOf } from "./support/installation.ts";
import { needs } from "./support/needs.ts";

setDefaultTimeout(60_000);

/** An ordinary user's rights, also where the tests run as root. */
const asUser = process.getuid?.() === 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];
const unit = ".config/systemd/user/aegis-edge.service";
const secret = "correct horse battery";

let site: Installation;
let host: Host;
let home = "";
/** Where the daemon's user can read it, which may not be so of the project. */
let attacker = "";

/** A capability of the host's owner, before those of the context `operator`. */
const ownersCapability = `capabilities:
        - tool_pattern: cmd.run
          command_allowlist: [sh]
          run_as_shell: true
          secret_env: {DB_PASSWORD: db}`;

/** A home as an installer leaves it, with the daemon's own program where its user could write it. */
beforeAll(async () => {
  if (process.platform !== "linux") return;
  site = await installation();
  home = join(site.place.folder, "guarded");
  const put = (path: string, text: string) => {
    mkdirSync(dirname(join(home, path)), { recursive: true });
    writeFileSync(join(home, path), text);
  };
  put(unit, "[Unit]\n");
  put("projects/a", "a");
  put("projects/attack.py", readFileSync(join(import.meta.dir, "support/attack.py"), "utf8"));
  attacker = join(home, "projects/attack.py");
  mkdirSync(join(home, `${unit}.d`));
  mkdirSync(join(home, ".aegis/edge/run/requests"), { recursive: true });
  mkdirSync(join(home, ".local/bin"), { recursive: true });
  symlinkSync(join(home, ".aegis"), join(home, "link"));
  const program = join(home, ".local/bin/aegis");
  copyFileSync(executable, program);
  chmodSync(site.place.folder, 0o711);
  if (asUser.length > 0) Bun.spawnSync(["chown", "-hR", "65534:65534", home]);
  const how = { before: asUser, executable: program, env: { TMPDIR: "/tmp", DAEMONS_OWN: "not for tools" } };
  host = await site.addHost("guarded", { ...how, enroll: ["--full-access"], start: false });
  host.edit(/(- name: operator[\s\S]*?)capabilities:/, `$1${ownersCapability}`);
  expect((await host.feed(secret, "edge", "secret", "set", "db")).exit).toBe(0);
  await host.connect();
});
afterAll(() => site?.close());

const exec = (...command: string[]) =>
  site.desk.run("edge", "exec", "guarded", "--context", "operator", "--", ...command);
const call = (tool: string, args: object) =>
  site.desk.run(
    ...["edge", "fleet", "run", "--yes", "--target", "@guarded", "--context", "operator"],
    ...["--tool", tool, "--args", JSON.stringify(args)],
  );

const attacked = needs("linux", "command:cc", "command:python3", "command:setpriv");

attacked("a tool reads neither key nor memory nor environment, changes no setting, and stops no daemon", async () => {
  const key = readFileSync(join(host.stateDir, "node.key"));
  const settings = host.settings();
  const { identity } = jsonOf(await host.run("edge", "status", "-o", "json"));
  expect(identity).toMatchObject({ protected: true });
  const left = identity.detail.join("; ");

  const attack = await exec("/usr/bin/python3", attacker, home, String(host.daemon?.pid));
  expect(attack.stderr).toBe("");
  const succeeded = jsonOf(attack) as Record<string, boolean>;
  expect(Object.keys(succeeded).length).toBeGreaterThan(20);
  // What this kernel leaves open is what the owner was told.
  const told = (name: string) =>
    (left.includes("signals to the daemon") && /end|kill/.test(name)) ||
    (left.includes("emptying its files") && /empty/.test(name));
  expect(Object.keys(succeeded).filter((name) => succeeded[name] && !told(name))).toEqual([]);

  const own = await exec("/usr/bin/env");
  expect(own.stdout).toContain(`HOME=${home}`);
  expect(own.stdout).not.toContain("DAEMONS_OWN");
  expect(readFileSync(join(host.stateDir, "node.key"))).toEqual(key);
  expect(host.settings()).toBe(settings);
  expect((await host.run("edge", "status")).exit).toBe(0);
});

needs("linux")("a file tool is refused there whatever the policy allows, also through a link", async () => {
  for (const [tool, args] of [
    ["fs.read", { path: `${home}/.aegis/edge/node.key` }],
    ["fs.read", { path: `${home}/link/edge/node.key` }],
    ["fs.write", { path: `${home}/.aegis/edge/aegis-config.yaml`, content: "x" }],
    ["fs.write", { path: `${home}/${unit}`, content: "x" }],
    ["fs.delete", { path: `${home}/.local/bin/aegis` }],
    ["fs.move", { path: `${home}/.aegis`, destination: `${home}/elsewhere` }],
    ["cmd.run", { command: "/bin/ls", cwd: `${home}/.aegis` }],
  ] as const) {
    const refused = await call(tool, args);
    expect({ tool, args, exit: refused.exit }).toEqual({ tool, args, exit: 6 });
    expect(refused.stderr).toContain("policy_violation");
    expect(refused.stderr).toMatch(/protected|never/);
  }
  expect((await call("fs.read", { path: `${home}/projects/a` })).exit).toBe(0);
});

needs("linux")("a secret reaches the command that the owner gave it to, and nothing else", async () => {
  const digest = new Bun.CryptoHasher("sha256").update(secret).digest("hex");
  const sh = (line: string) => exec("sh", "-c", line);
  expect((await sh('printf %s "$DB_PASSWORD" | sha256sum')).stdout).toContain(digest);
  const shown = await sh('echo "it is $DB_PASSWORD"; echo "$DB_PASSWORD" >&2');
  expect(shown.stdout).toContain("it is [secret]");

  const said = [shown, await host.run("edge", "log", "-o", "json"), await host.run("edge", "secret", "ls")];
  const logs = [host.daemon?.stdout(), host.daemon?.stderr(), site.controller.stdout(), site.controller.stderr()];
  expect(JSON.stringify([said, logs])).not.toContain(secret);
  const holding = Bun.spawnSync(["grep", "-rlF", secret, home, site.server.home]).stdout.toString();
  expect(holding).toBe(`${join(host.stateDir, "secrets/db")}\n`);

  expect((await host.run("edge", "secret", "rm", "db")).exit).toBe(0);
  expect((await sh("true")).stderr).toContain("this host keeps no secret named db");
});

attacked("the owner reads all of it afterwards, and nobody else does", async () => {
  const calls = jsonOf(await host.run("edge", "log", "-o", "json"));
  const attack = calls.find(({ args }: { args: string }) => args?.includes("attack.py"));
  expect(attack).toMatchObject({
    ...{ caller: "tester", context: "operator", tool: "cmd.run", verdict: "allowed", outcome: "ok", exit_code: 0 },
    rule: expect.stringMatching(/^operator\.capabilities\[\d\]$/),
  });
  expect(calls.filter(({ verdict }: { verdict: string }) => verdict === "refused").length).toBeGreaterThanOrEqual(8);
  const { stdout } = await host.run("edge", "log");
  expect(stdout).toMatch(/^AT +WHO +CONTEXT +WHAT +VERDICT +BY +OUTCOME +MS$/m);
  expect(stdout).toMatch(/ tester +operator +fs\.read .*node\.key.* refused +\S+ +policy_violation /);
  const stolen = await call("fs.read", { path: join(host.stateDir, "run/log/calls.jsonl") });
  expect(stolen.stderr).toContain("policy_violation");
});
