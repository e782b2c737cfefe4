import { expect, test } from "bun:test";
import type { ProgramEnd, RunProgram } from "../platform/run-program.ts";
import type { ServiceSpec } from "./spec.ts";
import { readStatus, systemd } from "./systemd.ts";
import { argument, pathWord, word } from "./systemd-unit.ts";

const spec: ServiceSpec = {
  ...{ executable: "/usr/local/bin/aegis", home: "/home/ann", stateDir: "/home/ann/.aegis/edge" },
  ...{ configPath: "/home/ann/.aegis/edge/aegis-config.yaml", runAs: null, env: {}, allow: [], notify: "main" },
  ...{ allowUserBus: false, allowJit: false, allowUnsandboxed: false },
};
const textOf = (changes: Partial<ServiceSpec> = {}) => systemd.files({ ...spec, ...changes })[0]?.text ?? "";

/** systemctl and its like, by their first words; what nobody expects fails. */
function scripted(answers: Record<string, Partial<ProgramEnd>>) {
  const asked: string[] = [];
  const run: RunProgram = async (command, args) => {
    const line = [command, ...args].join(" ");
    asked.push(line);
    const key = Object.keys(answers).find((start) => line.startsWith(start));
    return { status: key === undefined ? 1 : 0, stdout: "", stderr: "", ...(key === undefined ? {} : answers[key]) };
  };
  return { asked, env: { XDG_RUNTIME_DIR: "/run/user/1000" }, run };
}

test("words are what they are, whatever systemd makes of their letters", () => {
  expect(argument("/usr/bin/aegis")).toBe("/usr/bin/aegis");
  expect(argument("/a b/50% $x")).toBe('"/a b/50%% $$x"');
  expect(argument('say "x" \\')).toBe('"say \\"x\\" \\\\"');
  expect(word("PRICE=5$ or 50%")).toBe('"PRICE=5$ or 50%%"');
  expect(pathWord("/a:b/c d%/é")).toBe('"/a\\:b/c d%%/é"');
});

test("an executable in a home is shown to the service as one file, one outside needs no line", () => {
  expect(textOf({ executable: "/home/ann/.local/bin/aegis" })).toContain(
    "\nBindReadOnlyPaths=/home/ann/.local/bin/aegis\n",
  );
  expect(textOf()).not.toContain("BindReadOnlyPaths=/usr");
});

test("without user namespaces no line is written that would need them", () => {
  const text = textOf({ allowUnsandboxed: true });
  for (const line of ["PrivateUsers", "ProtectSystem", "ProtectHome", "PrivateTmp", "CapabilityBoundingSet"])
    expect(text).not.toMatch(new RegExp(`^${line}=`, "m"));
  for (const line of ["NoNewPrivileges", "MemoryDenyWriteExecute", "SystemCallFilter"])
    expect(text).toMatch(new RegExp(`^${line}=`, "m"));
});

test("a service of the system belongs to a user of its own and is wanted at boot", () => {
  const [unit] = systemd.files({
    ...spec,
    runAs: "aegis",
    home: "/var/lib/aegis",
    stateDir: "/var/lib/aegis/.aegis/edge",
  });
  expect(unit?.path).toBe("/etc/systemd/system/aegis-edge.service");
  expect(unit?.text).toContain("\nUser=aegis\n");
  expect(unit?.text).toContain("\nWantedBy=multi-user.target\n");
});

test("what the daemon says of itself is the detail, else why it ended", () => {
  const shown = (lines: Record<string, string>) =>
    Object.entries(lines)
      .map(([key, value]) => `${key}=${value}`)
      .join("\n");
  const loaded = { LoadState: "loaded", MainPID: "7", NRestarts: "2", UnitFileState: "enabled" };
  expect(readStatus(shown({ ...loaded, ActiveState: "active", StatusText: "connected" }))).toEqual({
    ...{ state: "running", pid: 7, detail: "connected", restarts: 2, enabled: true },
  });
  const failed = { ...loaded, MainPID: "0", ActiveState: "failed", Result: "exit-code", ExecMainStatus: "226" };
  expect(readStatus(shown(failed))).toMatchObject({ state: "failed", pid: null, detail: "exit-code, status 226" });
  expect(readStatus(shown({ LoadState: "masked", ActiveState: "inactive" })).state).toBe("masked");
  expect(readStatus(shown({ LoadState: "not-found", ActiveState: "inactive" })).state).toBe("missing");
  expect(readStatus("").state).toBe("missing");
});

test("a system without user namespaces, and a login without a manager, are said with the way out", async () => {
  const running = { "systemctl --user is-system-running": { stdout: "degraded\n" } };
  const none = await systemd.obstacle(spec, scripted(running));
  expect(none?.message).toContain("no user namespaces");
  expect(none?.hint).toContain("--allow-unsandboxed");
  expect(await systemd.obstacle({ ...spec, allowUnsandboxed: true }, scripted(running))).toBeNull();
  expect(await systemd.obstacle(spec, scripted({ ...running, "systemd-run": {} }))).toBeNull();
  const noBus = scripted({ "systemctl --user is-system-running": { status: 1, stderr: "Failed to connect to bus\n" } });
  const lost = await systemd.obstacle(spec, { ...noBus, env: {} });
  expect(lost?.message).toContain("Failed to connect to bus");
  expect(lost?.hint).toContain("XDG_RUNTIME_DIR");
});

test("a folder that systemd would lose on the way is refused before anything is written", async () => {
  const manager = scripted({ systemctl: { stdout: "running\n" }, "systemd-run": {} });
  const allowing = (path: string) => ({ ...spec, allow: [{ path, mode: "ro" as const }] });
  for (const path of ["/home/ann/it's", '/home/ann/"x"', "/home/ann/a\tb"])
    expect((await systemd.obstacle(allowing(path), manager))?.message).toContain(JSON.stringify(path));
  expect(await systemd.obstacle(allowing("/home/ann/a b:c%$é"), manager)).toBeNull();
});

test("who may not linger is told what an administrator has to type", async () => {
  const refused = scripted({ "loginctl show-user": { stdout: "no\n" } });
  expect(await systemd.linger(spec, "ann", refused)).toContain("sudo loginctl enable-linger ann");
  const allowed = scripted({ "loginctl show-user": { stdout: "no\n" }, "loginctl enable-linger ann": {} });
  expect(await systemd.linger(spec, "ann", allowed)).toBeNull();
  const already = scripted({ "loginctl show-user": { stdout: "yes\n" } });
  expect(await systemd.linger(spec, "ann", already)).toBeNull();
  expect(already.asked).toHaveLength(1);
});
