/** host.info, service.status, service.restart. */
import { afterEach, describe, expect, test } from "bun:test";
import os from "node:os";
import { answerOf, callTool, refusalOf } from "../../test/support/call-tool.ts";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { fakeProcesses } from "../../test/support/fake-process.ts";
import { needs } from "../../test/support/needs.ts";
import { systemClock } from "../platform/clock.ts";
import type { ProcessSpec } from "../platform/process.ts";
import { commandHost, systemPath } from "./cmd-run.ts";
import { hostInfo } from "./host-info.ts";
import { createRegistry } from "./registry.ts";
import { serviceTools } from "./service-control.ts";

test("host.info tells what the host is and how it is doing", async () => {
  const info = await answerOf(hostInfo({ clock: systemClock }), {});
  expect(info).toMatchObject({
    hostname: os.hostname(),
    os: { type: process.platform, kernel: os.release() },
    cpu: { count: os.cpus().length },
    memory: { total_bytes: os.totalmem() },
  });
  expect(Math.abs(Date.parse(String(info.time)) - Date.now())).toBeLessThan(5_000);
  expect(Math.abs(Number(info.uptime_secs) - os.uptime())).toBeLessThan(5);
  const [disk] = info.disks as Array<{ path: string; total_bytes: number; available_bytes: number }>;
  expect(disk?.path).toBe("/");
  expect(disk?.total_bytes).toBeGreaterThanOrEqual(disk?.available_bytes ?? 0);
  expect(await refusalOf(hostInfo({ clock: systemClock }), { all: true })).toBe('unknown field "all"');
});

const clocks: Array<{ sleeping: number }> = [];
afterEach(() => {
  for (const clock of clocks.splice(0)) expect(clock.sleeping).toBe(0);
});

/** A service manager that answers with what it is told. */
function setup({ stdout = "", stderr = "", code = 0, path = systemPath }) {
  const clock = fakeClock();
  clocks.push(clock);
  const asked: ProcessSpec[] = [];
  const runner = fakeProcesses(async ({ spec, print, exit }) => {
    asked.push(spec);
    await print(stdout);
    await print(stderr, "stderr");
    exit(code);
  });
  const tools = createRegistry(serviceTools(commandHost({ runner, clock, path, home: "/" })));
  const tool = (name: string) => {
    const found = tools.get(name);
    if (!found) throw new Error(`no ${name}`);
    return found;
  };
  return { asked, status: tool("service.status"), restart: tool("service.restart") };
}

// What systemd 252 prints.
const shown = `MainPID=731
StatusText=Ready to serve
Result=success
NRestarts=2
MemoryCurrent=4194304
Id=nginx.service
Description=A web server = fast
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
ActiveEnterTimestamp=Tue 2026-11-24 16:32:01 UTC
`;
const absent = `MainPID=0
MemoryCurrent=[not set]
Id=nope.service
LoadState=not-found
ActiveState=inactive
ActiveEnterTimestamp=
`;
const listed = `dbus.service              loaded inactive dead D-Bus User Message Bus
gpg-agent.service         loaded inactive dead GnuPG cryptographic agent and passphrase cache
`;
const withSystemctl = needs("command:systemctl");

describe("service.status", () => {
  withSystemctl("tells the state of one service", async () => {
    const { status, asked } = setup({ stdout: shown });
    expect(await answerOf(status, { name: "nginx" })).toEqual({
      ...{ status: "success", unit: "nginx.service", description: "A web server = fast", load_state: "loaded" },
      ...{ active_state: "active", sub_state: "running", starts_at_boot: "enabled", main_pid: 731 },
      ...{ active_since: "2026-11-24T16:32:01.000Z", restarts: 2, memory_bytes: 4_194_304 },
      ...{ result: "success", status_text: "Ready to serve" },
    });
    expect(asked[0]?.args.slice(0, 3)).toEqual(["--no-pager", "show", "nginx.service"]);
    expect(asked[0]?.env).toMatchObject({ TZ: "UTC", LC_ALL: "C" });
    const none = setup({ stdout: absent });
    expect(await answerOf(none.status, { name: "nope" })).toMatchObject({
      load_state: "not-found",
      main_pid: null,
      active_since: null,
      memory_bytes: null,
    });
  });

  withSystemctl("lists services, of the system or of the user", async () => {
    const { status, asked } = setup({ stdout: listed });
    expect(await answerOf(status, { state: "dead", user: true })).toMatchObject({
      services: [
        {
          unit: "dbus.service",
          load_state: "loaded",
          active_state: "inactive",
          sub_state: "dead",
          description: "D-Bus User Message Bus",
        },
        { unit: "gpg-agent.service" },
      ],
      ...{ total: 2, truncated: false },
    });
    expect(asked[0]?.args).toContain("--user");
    expect(asked[0]?.args).toContain("--state=dead");
    expect(asked[0]?.env.XDG_RUNTIME_DIR).toBeDefined();
  });

  withSystemctl("states nothing that a policy for looking would have to grant", async () => {
    expect(await callTool(setup({ stdout: shown }).status, { name: "x" })).toMatchObject({ accesses: [] });
  });

  withSystemctl("says why nothing could be asked, and what to do", async () => {
    const bus = "Failed to connect to bus: No medium found";
    const newer = "Failed to connect to user scope bus via local transport: No such file or directory";
    for (const said of [bus, newer])
      expect(await refusalOf(setup({ stderr: said, code: 1 }).status, { user: true })).toBe(
        `${said}; the daemon's sandbox hides the user's own services: aegis edge service reinstall --allow-user-bus`,
      );
    expect(await refusalOf(setup({ stderr: bus, code: 1 }).status, {})).toBe(
      `${bus}; this host is not run by systemd, or hides it`,
    );
  });

  test("on a host without systemctl that is told", async () => {
    const called = await callTool(setup({ path: "/no/such" }).status, {});
    expect(called).toMatchObject({ result: { ok: false, errorKind: "tool_not_locally_supported" } });
  });

  test("what is no name of a service is refused", async () => {
    const { status, asked } = setup({});
    for (const name of ["--help", "-H x", "a b", "a;b", "../x", ""])
      expect(await refusalOf(status, { name })).toStartWith("name: expected the name of a service");
    expect(await refusalOf(status, { name: "x", state: "dead" })).toBe("state is for a list: leave out name");
    expect(asked).toEqual([]);
  });
});

describe("service.restart", () => {
  withSystemctl("restarts, and is judged as that very command", async () => {
    const { restart, asked } = setup({});
    const called = await callTool(restart, { name: "nginx" });
    expect(called).toMatchObject({
      accesses: [{ kind: "command", name: "systemctl", args: ["restart", "nginx.service"] }],
      result: { ok: true, structured: { unit: "nginx.service", restarted: true } },
    });
    expect(asked[0]?.args).toEqual(["restart", "nginx.service"]);
    const mine = await callTool(setup({}).restart, { name: "x.timer", user: true });
    expect(mine).toMatchObject({ accesses: [{ args: ["--user", "restart", "x.timer"] }] });
  });

  withSystemctl("a refusal of the system is told in its words", async () => {
    const stderr = "Failed to restart dbus.service: Interactive authentication required.";
    const called = await callTool(setup({ stderr, code: 1 }).restart, { name: "dbus" });
    expect(called).toMatchObject({
      result: {
        ok: false,
        exitCode: 1,
        errorKind: "nonzero_exit",
        errorMessage: `${stderr}; the daemon's user may not do that on this host`,
      },
    });
  });
});
