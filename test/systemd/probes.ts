/**
 * `npm run test:systemd`: what each line of the unit does, seen from inside. A probe runs as a tool through the daemon: it is
 * denied with the unit as it is, and allowed with that one line taken away. What nobody could do anyway is listed as that.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type SystemdBench, systemdBench } from "../support/systemd-bench.ts";

let bench: SystemdBench;

beforeAll(async () => {
  bench = await systemdBench(process.env.AEGIS_SYSTEMD_ROOT ? { rootFolder: process.env.AEGIS_SYSTEMD_ROOT } : {});
  await bench.root(
    "mkdir -m 0777 /usr/local/open /etc/open; mkdir -m 0755 /home/other; echo theirs > /home/other/file; chmod 644 /home/other/file; echo theirs > /tmp/theirs; chmod 644 /tmp/theirs",
  );
  await bench.user("mkdir -m 0700 ~/.ssh; echo key > ~/.ssh/id");
  const enrolled = await bench.user(`aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access`);
  if (enrolled.exit !== 0) throw new Error(enrolled.said);
}, 120_000);
afterAll(() => bench?.down());

const dropIn = "/home/edge/.config/systemd/user/aegis-edge.service.d/99-probe.conf";

/** Restarts with these lines laid over the unit; none = as it is. */
async function withLines(lines: readonly string[]): Promise<void> {
  const write =
    lines.length > 0
      ? `mkdir -p $(dirname ${dropIn}); printf '%s\\n' '[Service]' ${lines.map((line) => `'${line}'`).join(" ")} > ${dropIn}`
      : `rm -f ${dropIn}`;
  const done = await bench.user(`${write}; systemctl --user daemon-reload; aegis edge service restart`);
  if (done.exit !== 0)
    throw new Error(
      `${lines.join(" ")}: ${done.said}${(await bench.user("journalctl --user -u aegis-edge -n 20 --no-pager")).said}`,
    );
}

/** Encoded, so that no shell on the way reads it. */
const tool = async (command: string) => {
  const text = Buffer.from(`{ ${command}\n} 2>&1 && echo ALLOWED`).toString("base64");
  return (
    await bench.operator(`aegis edge exec bench --context operator -- /bin/sh -c 'echo ${text} | base64 -d | sh'`)
  ).said;
};

interface Probe {
  what: string;
  command: string;
  without: string[];
  denial: RegExp;
}

const python = (code: string) => `/usr/bin/python3 -c "${code}"`;

const probes: Probe[] = [
  {
    what: "writes into /usr",
    command: "touch /usr/local/open/x",
    without: ["ProtectSystem=false"],
    denial: /Read-only file system/,
  },
  {
    what: "writes into /etc",
    command: "touch /etc/open/x",
    without: ["ProtectSystem=false"],
    denial: /Read-only file system/,
  },
  {
    what: "reads another home",
    command: "cat /home/other/file",
    without: ["ProtectHome=false"],
    denial: /No such file/,
  },
  {
    what: "reads ~/.ssh",
    command: "cat /home/edge/.ssh/id",
    without: ["ProtectHome=false", "TemporaryFileSystem="],
    denial: /No such file/,
  },
  {
    what: "reads what others left in /tmp",
    command: "cat /tmp/theirs",
    without: ["PrivateTmp=false"],
    denial: /No such file/,
  },
  {
    what: "makes memory writable and executable",
    command: python("import mmap; mmap.mmap(-1, 4096, prot=7)"),
    without: ["MemoryDenyWriteExecute=false"],
    denial: /Permission|not permitted/,
  },
  {
    what: "makes a user namespace",
    command: "unshare -U true",
    without: ["RestrictNamespaces=false"],
    denial: /not permitted/,
  },
  {
    what: "changes its personality",
    command: python("import ctypes, os; os._exit(ctypes.CDLL(None).personality(0x0040000) < 0)"),
    without: ["LockPersonality=false", "SystemCallFilter="],
    denial: /^$/,
  },
  {
    what: "makes a file setuid",
    command: "cp /bin/true /tmp/t; chmod u+s /tmp/t",
    without: ["RestrictSUIDSGID=false"],
    denial: /not permitted/,
  },
  {
    what: "opens a socket of an unusual kind",
    command: python("import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"),
    without: ["RestrictAddressFamilies="],
    denial: /not supported/,
  },
  {
    what: "traces a process",
    command: python("import ctypes, os; os._exit(ctypes.CDLL(None).ptrace(0, 0, 0, 0) < 0)"),
    without: ["SystemCallFilter="],
    denial: /^$/,
  },
  {
    what: "moves itself to another control group",
    command:
      "f=/sys/fs/cgroup$(sed -n s,^0::,,p /proc/self/cgroup | sed s,app.slice.*,,)app.slice; mkdir $f/probe && rmdir $f/probe",
    without: ["ProtectControlGroups=false"],
    denial: /Read-only file system/,
  },
  {
    what: "sees the devices of the machine",
    command: "test -e /dev/console",
    without: ["PrivateDevices=false"],
    denial: /^$/,
  },
];

describe("each line of the unit", () => {
  for (const { what, command, without, denial } of probes)
    test(`${without[0]?.split("=")[0]}: a tool that ${what} is stopped by it, and by nothing else`, async () => {
      await withLines([]);
      const denied = await tool(command);
      expect(denied).not.toContain("ALLOWED");
      expect(denied.replace(/^error: .*$/m, "").trim()).toMatch(denial);
      await withLines(without);
      expect(await tool(command)).toContain("ALLOWED");
    }, 60_000);

  test("limits and masks are what they say", async () => {
    await withLines([]);
    expect((await bench.user("systemctl --user show aegis-edge -P LimitNOFILE")).said).toBe("65535\n");
    expect(await tool("umask")).toContain("0077");
    expect(await tool("grep NoNewPrivs /proc/self/status")).toContain("NoNewPrivs:\t1");
  }, 60_000);

  test("the rest no ordinary user could do anyway: kernel tunables, modules, logs, clock, host name, packet sockets, real time", async () => {
    const outside = "sysctl -w kernel.hostname=x; dmesg; date -s 2020-01-01; hostname x; chrt -f 1 true";
    for (const one of outside.split("; ")) expect((await bench.user(`${one} >/dev/null 2>&1`)).exit).not.toBe(0);
  }, 60_000);
});

describe("an MCP server's runtime", () => {
  test("node loses its JIT to W^X, and --allow-jit gives it back", async () => {
    const node = await bench.user("command -v node");
    if (node.exit !== 0) return expect(node.said).toBe("");
    await withLines([]);
    expect(await tool(`${node.said.trim()} -e 0`)).not.toContain("ALLOWED");
    await bench.user("aegis edge service install --allow-jit");
    expect(await tool(`${node.said.trim()} -e 0`)).toContain("ALLOWED");
    await bench.user("aegis edge service install");
  }, 60_000);
});
