/**
 * The sandbox by its effects: what a tool is denied under the service's unit, and that it is this one line of the unit
 * which denies it. Tools are called as operators call them, through the controller and the daemon.
 */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { missing, needs } from "./support/needs.ts";
import { type Said, type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon", "command:cc"] as const;
const onSystemd = needs(...requirements);
const support = join(import.meta.dir, "support");
const unit = "~/.config/systemd/user/aegis-edge.service";
const home = "/home/edge";

let bench: SystemdBench;
let systemdVersion = 0;
/** What the probe needs to know of this machine. */
let machine: Record<string, string> = {};

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const must = async (said: Promise<Said>): Promise<string> => {
  const end = await said;
  if (end.exit !== 0) throw new Error(end.said);
  return end.said;
};

beforeAll(async () => {
  if (missing(...requirements).length > 0) return;
  const node = Bun.which("node");
  bench = await systemdBench({
    ...(process.env.AEGIS_SYSTEMD_ROOT ? { rootFolder: process.env.AEGIS_SYSTEMD_ROOT } : {}),
    // A published MCP server with all that it needs; this machine's node also where the other root has none.
    binds: {
      [join(import.meta.dir, "../node_modules")]: "/opt/mcp/node_modules",
      ...(node === null ? {} : { [realpathSync(node)]: "/usr/bin/node" }),
    },
  });
  const int80 = join(process.env.TMPDIR ?? "/tmp", `aegis-int80-${process.pid}`);
  const compiled = Bun.spawnSync(["cc", "-static", "-o", int80, join(support, "int80.c")]);
  const files = {
    "sandbox-probe.py": readFileSync(join(support, "sandbox-probe.py")),
    int80: compiled.exitCode === 0 ? readFileSync(int80) : new Uint8Array(),
  };
  Bun.spawnSync(["rm", "-f", int80]);
  for (const [name, bytes] of Object.entries(files)) await place(`/opt/probe/${name}`, bytes);
  await must(
    bench.root(
      `mkdir -p /usr/local/open /etc/open /home/other /usr/lib/modules ${home}/.ssh && chmod 777 /usr/local/open /etc/open && chmod 755 /home/other /usr/lib/modules && touch /home/other/notes /tmp/of-others /dev/of-others ${home}/.ssh/id_ed25519 && chown -R edge:edge ${home}/.ssh && chmod 755 /opt/probe /opt/probe/*`,
    ),
  );
  await must(
    bench.user(`aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access && cp ${unit} ~/unit`),
  );
  systemdVersion = Number(/\d+/.exec(await must(bench.root("systemctl --version")))?.[0]);
  machine = {
    FAMILY: (await must(bench.user(`python3 -c '${anySocket}'`))).trim(),
    KEYRING: (
      await must(bench.user(`systemd-run --user --quiet --wait --pipe -p KeyringMode=inherit python3 -c '${keyring}'`))
    ).trim(),
  };
}, 90_000);
afterAll(() => bench?.down());

/** A kind of socket besides the usual ones that an ordinary user may open here. */
const anySocket = `
import socket
for family in (40, 38, 44, 31, 43, 30):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM)
        print(family)
        break
    except OSError:
        pass`;
const keyring =
  'import ctypes, os; print(ctypes.CDLL(None).syscall({"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3, 0))';

/** Too long for one argument when it is a program. */
async function place(path: string, bytes: Uint8Array): Promise<void> {
  const text = base64(bytes);
  await must(bench.root(`mkdir -p ${path.slice(0, path.lastIndexOf("/"))}; : > ${path}.base64`));
  for (let at = 0; at < text.length; at += 100_000)
    await must(bench.root(`printf %s ${text.slice(at, at + 100_000)} >> ${path}.base64`));
  await must(bench.root(`base64 -d ${path}.base64 > ${path}; rm ${path}.base64`));
}

/** What a tool that is called on this host can do. */
async function probe(...names: string[]): Promise<Record<string, boolean>> {
  const words = names.map((name) => `"${name}"`).join(" ");
  const environment = Object.entries(machine).map(([name, value]) => `${name}=${value}`);
  const command = `/usr/bin/env ${environment.join(" ")} /usr/bin/python3 /opt/probe/sandbox-probe.py ${words}`;
  const { said } = await bench.operator(`aegis edge exec bench --context operator -- ${command}`);
  const line = said.split("\n").find((one) => one.startsWith("{"));
  if (line === undefined) throw new Error(said);
  return JSON.parse(line) as Record<string, boolean>;
}

/** Starts the daemon under a unit made from the installed one by `edit`, a sed script; answers whether it started. */
async function startWith(edit: string): Promise<boolean> {
  const steps = [
    `sed -E '${edit}' ~/unit > ${unit}`,
    "systemctl --user daemon-reload",
    "systemctl --user reset-failed aegis-edge 2>/dev/null",
    "systemctl --user restart aegis-edge || exit 9",
    "for i in $(seq 100); do aegis edge status >/dev/null 2>&1 && exit 0; sleep 0.05; done; exit 8",
  ];
  const { exit, said } = await bench.user(steps.join("; "));
  if (exit === 8) throw new Error(`not connected: ${said}`);
  return exit === 0;
}

/** A line of the unit (or the lines that hide one thing twice), and what only they deny. */
const effects: [lines: string[], denied: string[]][] = [
  [["ProtectSystem"], ["write below /usr", "write below /etc"]],
  [["ProtectHome"], ["read another home", "ask the user's service manager"]],
  [["TemporaryFileSystem"], ["change the home"]],
  [["ProtectHome", "TemporaryFileSystem"], ["read ~/.ssh"]],
  [["PrivateTmp"], ["see /tmp of others"]],
  [["PrivateDevices"], ["see devices of others"]],
  [["ProtectKernelTunables"], ["change tunables"]],
  [["ProtectKernelModules"], ["list kernel modules"]],
  [["ProtectKernelLogs"], ["find the kernel log"]],
  [["ProtectControlGroups"], ["make a cgroup"]],
  [["CapabilityBoundingSet"], ["keep capabilities within reach"]],
  [["RestrictSUIDSGID"], ["make a setuid program"]],
  [["RestrictNamespaces"], ["make a user namespace"]],
  [["LockPersonality"], ["change the personality"]],
  [["MemoryDenyWriteExecute"], ["map memory writable and executable"]],
  [["SystemCallArchitectures"], ["call the kernel as a 32-bit program"]],
  [["SystemCallFilter"], ["trace a process"]],
  [["SystemCallErrorNumber"], ["be killed by a forbidden call"]],
  [["RestrictAddressFamilies"], ["open an unusual socket"]],
  [["KeyringMode"], ["share the session's keyring"]],
  [["UMask"], ["write files for everybody"]],
];

/** What the rights of an ordinary user, or the launcher of tools, deny as well: its line is a second wall. */
const deniedAnyway: Readonly<Record<string, string>> = {
  "set the clock": "ProtectClock",
  "set the host's name": "ProtectHostname",
  "run in real time": "RestrictRealtime",
  "open a packet socket": "RestrictAddressFamilies",
  "gain rights from a setuid program": "NoNewPrivileges",
  "read the daemon's key": "Landlock, by the launcher",
  "change the daemon's settings": "Landlock, by the launcher",
};

describe("a tool in the service's sandbox", () => {
  onSystemd("is denied everything on the list", async () => {
    const can = await probe();
    const listed = [...effects.flatMap(([, denied]) => denied), ...Object.keys(deniedAnyway)];
    // It can send to the manager's socket; what comes of it is shown below.
    expect(Object.keys(can).sort()).toEqual([...listed, "speak for the daemon"].sort());
    expect(listed.filter((name) => can[name])).toEqual([]);
  });

  onSystemd("would be denied nothing of it by permissions, outside", async () => {
    const names = effects.flatMap(([, denied]) => denied).filter((name) => !/keyring|killed|make a cgroup/.test(name));
    const words = names.map((name) => `"${name}"`).join(" ");
    const { said } = await bench.user(
      `FAMILY=${machine.FAMILY} python3 /opt/probe/sandbox-probe.py ${words} 2>/dev/null`,
    );
    const can = JSON.parse(said) as Record<string, boolean>;
    expect(names.filter((name) => !can[name])).toEqual([]);
  });

  for (const [lines, denied] of effects)
    onSystemd(
      `can ${denied.join(", ")} without ${lines.join(" and ")}`,
      async () => {
        expect(await startWith(`/^(${lines.join("|")})=/d`)).toBe(true);
        // From 257 on the empty home of ProtectHome is read-only by itself.
        const allowed = !(lines.join() === "TemporaryFileSystem" && systemdVersion >= 257);
        expect(await probe(...denied)).toEqual(Object.fromEntries(denied.map((name) => [name, allowed])));
      },
      30_000,
    );

  onSystemd(
    "cannot speak for the daemon to its service manager, and could with NotifyAccess=all",
    async () => {
      const heard = async () => (await bench.user("systemctl --user show aegis-edge -P StatusText")).said.trim();
      expect(await startWith("")).toBe(true);
      expect(await probe("speak for the daemon")).toEqual({ "speak for the daemon": true });
      expect(await heard()).toBe("connected");
      expect(await startWith("s/^NotifyAccess=.*/NotifyAccess=all/")).toBe(true);
      await probe("speak for the daemon");
      expect(await heard()).toBe("forged");
    },
    30_000,
  );

  onSystemd(
    "can read the daemon's key and change its settings without the landlock calls, which systemd 254 and later take for ordinary",
    async () => {
      const identity = ["read the daemon's key", "change the daemon's settings"];
      expect(await startWith("s/ landlock_[a-z_]+//g")).toBe(true);
      const open = systemdVersion < 254;
      expect(await probe(...identity)).toEqual(Object.fromEntries(identity.map((name) => [name, open])));
      const status = (await bench.user("aegis edge status")).said;
      expect(/^identity +readable by tools/m.test(status)).toBe(open);
      expect(await startWith("")).toBe(true);
      expect(await probe(...identity)).toEqual(Object.fromEntries(identity.map((name) => [name, false])));
    },
    30_000,
  );

  onSystemd(
    "would have no sandbox without PrivateUsers, which systemd 254 and later take for granted",
    async () => {
      expect(await startWith("/^PrivateUsers=/d")).toBe(systemdVersion >= 254);
      expect(await startWith("")).toBe(true);
    },
    30_000,
  );
});

describe("a flag of edge service install opens what it names and nothing else", () => {
  const installed = async (flags: string) => {
    await must(bench.user(`cp ~/unit ${unit}; aegis edge service install ${flags}`));
    const can = await probe();
    return Object.keys(can).filter((name) => can[name] && name !== "speak for the daemon");
  };
  const tool = (command: string) => bench.operator(`aegis edge exec bench --context operator -- ${command}`);

  onSystemd("no flag, nothing", async () => expect(await installed("")).toEqual([]), 30_000);

  onSystemd(
    "--allow-jit: memory that is writable and executable, which node needs",
    async () => {
      const node = (await bench.user("command -v node")).said.trim();
      const runNode = async () => (node ? (await tool(`${node} -e "console.log(6*7)"`)).said : "42\n");
      if (node) expect(await runNode()).not.toBe("42\n"); // its JIT is refused memory
      expect(await installed("--allow-jit")).toEqual(["map memory writable and executable"]);
      expect(await runNode()).toBe("42\n");
    },
    30_000,
  );

  needs(...requirements, "command:node")(
    "--allow-jit: an MCP server on node, which without it ends, and its caller is told which flag it needs",
    async () => {
      const server =
        "[{name: memory, command: /usr/bin/node, args: [/opt/mcp/node_modules/@modelcontextprotocol/server-memory/dist/index.js], env: {MEMORY_FILE_PATH: /tmp/memory.jsonl}}]";
      await must(bench.user(`sed -i 's|^spec:|spec:\\n  mcp_servers: ${server}|' ~/.aegis/edge/aegis-config.yaml`));
      const call = "aegis edge fleet run --yes --target @bench --context operator --tool mcp.memory.read_graph -o json";
      await must(bench.user(`cp ~/unit ${unit}; aegis edge service reinstall`));
      const refused = await bench.operator(call);
      expect(refused.said).toContain("node needs executable memory");
      expect(refused.said).toContain("aegis edge service reinstall --allow-jit");
      const asked = () => bench.user("aegis edge policy test --context operator --tool mcp.memory.read_graph");
      const before = await asked();
      expect(before.said).toMatch(/^sandbox +denied by MemoryDenyWriteExecute=true in /m);
      expect(before.exit).toBe(3);
      await must(bench.user("aegis edge service reinstall --allow-jit"));
      expect((await asked()).exit).toBe(0);
      const answered = await bench.operator(call);
      expect(answered).toMatchObject({ exit: 0, said: expect.stringContaining("entities") });
      await must(bench.user("sed -i '/^  mcp_servers:/d' ~/.aegis/edge/aegis-config.yaml"));
    },
    60_000,
  );

  onSystemd(
    "--allow-user-bus: the user's service manager, and edge status says what follows from it",
    async () => {
      expect((await bench.user("aegis edge status")).said).not.toContain("service manager");
      expect(await installed("--allow-user-bus")).toEqual(["ask the user's service manager"]);
      const asked = "/usr/bin/env XDG_RUNTIME_DIR=/run/user/4242 /usr/bin/systemctl --user is-active aegis-edge";
      expect((await tool(asked)).said).toBe("active\n");
      expect((await bench.user("aegis edge status")).said).toContain("which can start programs for a tool");
    },
    30_000,
  );

  onSystemd(
    "--allow-user-bus: service.status and service.restart reach the user's services, and say what is missing without it",
    async () => {
      const service = async (tool: string) => {
        const call = `--target @bench --context operator --tool ${tool} --args '{"name":"sleeper","user":true}'`;
        const { said } = await bench.operator(`aegis edge fleet run --yes -o json ${call} 2>/dev/null`);
        const events = said
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line));
        return events.find(({ event }) => event === "command_result");
      };
      const unitFile = "~/.config/systemd/user/sleeper.service";
      const lines = "[Service]\\nExecStart=/bin/sleep 600\\n";
      await must(
        bench.user(`printf '${lines}' > ${unitFile}; systemctl --user daemon-reload; systemctl --user start sleeper`),
      );
      await installed("");
      expect(await service("service.status")).toMatchObject({
        ok: false,
        error_message: expect.stringContaining("aegis edge service reinstall --allow-user-bus"),
      });
      await installed("--allow-user-bus");
      const before = await service("service.status");
      const pid = before.structured?.main_pid;
      expect(pid).toBeGreaterThan(1);
      const running = { unit: "sleeper.service", active_state: "active" };
      expect(before).toMatchObject({ ok: true, structured: running });
      expect(await service("service.restart")).toMatchObject({ ok: true, structured: { restarted: true } });
      const after = await service("service.status");
      expect(after).toMatchObject({ ok: true, structured: running });
      expect(after.structured.main_pid).toBeGreaterThan(1);
      expect(after.structured.main_pid).not.toBe(pid);
    },
    30_000,
  );

  onSystemd(
    "--allow PATH: that folder, to read or to change",
    async () => {
      const folder = `${home}/a folder, 50% é`;
      await must(bench.user(`mkdir -p '${folder}/in'; echo text > '${folder}/file'`));
      expect(await installed(`--allow '${folder}'`)).toEqual([]);
      const listed = await tool(`/bin/sh -c 'cd "${folder}" && cat file && touch new'`);
      expect(listed.said).toContain("text\n");
      expect(listed.said).toContain("Read-only file system");
      expect(await installed(`--allow '${folder}:rw'`)).toEqual([]);
      expect((await tool(`/bin/sh -c 'cd "${folder}" && touch new in/new'`)).exit).toBe(0);
      expect((await tool(`/bin/ls -A ${home}`)).said).toBe(".aegis\na folder, 50% é\n");
    },
    30_000,
  );
});

describe("every hardening line of the unit", () => {
  onSystemd("is on the list, or makes the service possible, or says how much it may use", async () => {
    const text = await must(bench.user("cat ~/unit"));
    const hardening = text.slice(text.indexOf("# Hardening"), text.indexOf("# Resource"));
    const shown = [...hardening.matchAll(/^([A-Za-z]+)=/gm)].map(([, name = ""]) => name);
    const proved = new Set([...effects.flatMap(([lines]) => lines), ...Object.values(deniedAnyway), "PrivateUsers"]);
    // What the daemon needs to see, and the other half of CapabilityBoundingSet.
    for (const needed of ["BindPaths", "BindReadOnlyPaths", "AmbientCapabilities"]) proved.add(needed);
    expect(shown.length).toBeGreaterThan(25);
    expect(shown.filter((name) => !proved.has(name))).toEqual([]);
  });
});
