import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { installedSandbox, judgePath, readSandbox } from "./sandbox.ts";
import type { ServiceSpec } from "./spec.ts";
import { unitFiles } from "./systemd-unit.ts";

const home = "/home/ann";
const place = { home, runtimeDir: "/run/user/1000" };
const spec: ServiceSpec = {
  ...{ executable: "/usr/local/bin/aegis", configPath: `${home}/.aegis/edge/aegis-config.yaml` },
  ...{ stateDir: `${home}/.aegis/edge`, home, runAs: null, env: {}, allow: [] },
  ...{ allowUserBus: false, allowJit: false, allowUnsandboxed: false, notify: "main" },
};
/** As the service would be installed, then what its owner wrote beside. */
const sandbox = (more: Partial<ServiceSpec> = {}, ...own: string[]) =>
  readSandbox(
    "/u",
    [...unitFiles({ ...spec, ...more }).flatMap(({ path, text }) => (/update/.test(path) ? [] : [text])), ...own],
    place,
  );
const by = (path: string, mode: "read" | "write", which = sandbox()) => judgePath(which, path, mode)?.by ?? null;

test("the unit denies what its lines say, by the line that says it", () => {
  expect(by("/usr/bin/ls", "read")).toBeNull();
  expect(by("/usr/local/x", "write")).toBe("ProtectSystem=strict");
  expect(by("/etc/hosts", "write")).toBe("ProtectSystem=strict");
  expect(by("/home/bob/notes", "read")).toBe("ProtectHome=tmpfs");
  expect(by("/run/user/1000/bus", "read")).toBe("ProtectHome=tmpfs");
  expect(by(`${home}/notes`, "read")).toBe(`TemporaryFileSystem=${home}`);
  expect(by(`${home}/notes`, "write")).toBe(`TemporaryFileSystem=${home}`);
  expect(by(home, "read")).toBeNull();
  expect(by(`${home}/.aegis`, "read")).toBeNull();
  expect(by(`${home}/.aegis/edge/run/x`, "write")).toBeNull();
  expect(by("/tmp/x", "write")).toBeNull();
  expect(by("/dev/sda", "read")).toBe("PrivateDevices=true");
  expect(by("/dev/null", "write")).toBeNull();
  expect(by("/proc/sys/kernel/x", "write")).toBe("ProtectKernelTunables=true");
  expect(by("/proc/sys/kernel/x", "read")).toBeNull();
  expect(by("/usr/lib/modules/6", "read")).toBe("ProtectKernelModules=true");
  expect(by("/sys/fs/cgroup/x", "write")).toBe("ProtectControlGroups=true");
  expect(by("/usrlocal", "write")).toBe("ProtectSystem=strict"); // by /, not by the name that begins alike
});

test("a folder that was allowed is there, to read or to write, whatever letters it has", () => {
  for (const path of [`${home}/projects`, `${home}/a b, 50% é:x\\y`, "/srv/%h"]) {
    const read = sandbox({ allow: [{ path, mode: "ro" }] });
    expect(by(`${path}/file`, "read", read)).toBeNull();
    expect(by(`${path}/file`, "write", read)).toBe(`BindReadOnlyPaths=${path}`);
    expect(by(dirname(path), "read", read)).toBeNull();
    expect(by(`${path}/file`, "write", sandbox({ allow: [{ path, mode: "rw" }] }))).toBeNull();
  }
  expect(by(`${home}/projects2/x`, "read", sandbox({ allow: [{ path: `${home}/projects`, mode: "ro" }] }))).toBe(
    `TemporaryFileSystem=${home}`,
  );
});

test("drop-ins count after the unit: they add, replace and take back", () => {
  expect(by(`${home}/x/y`, "write", sandbox({}, '[Service]\nBindPaths=-%h/x "%h/z z"\n'))).toBeNull();
  expect(by(`${home}/z z/y`, "write", sandbox({}, '[Service]\nBindPaths=-%h/x "%h/z z"\n'))).toBeNull();
  expect(by("/srv/x", "write", sandbox({}, "[Service]\nReadWritePaths=/srv\n"))).toBeNull();
  expect(by("/usr/x", "write", sandbox({}, "[Service]\nProtectSystem=\n"))).toBeNull();
  expect(by("/usr/x", "write", sandbox({}, "[Unit]\nProtectSystem=\n# [Service]\n"))).toBe("ProtectSystem=strict");
  expect(by("/srv/x", "write", sandbox({}, "[Service]\nProtectSystem=full\n"))).toBeNull();
  const shown = "[Service]\nTemporaryFileSystem=\nProtectHome=read-only\nInaccessiblePaths=/srv/secret\n";
  expect(by(`${home}/x`, "read", sandbox({}, shown))).toBeNull();
  expect(by(`${home}/x`, "write", sandbox({}, shown))).toBe("ProtectHome=read-only");
  expect(by("/srv/secret", "read", sandbox({}, shown))).toBe("InaccessiblePaths=/srv/secret");
  expect(by("/opt/out/f", "read", sandbox({}, "[Service]\nBindReadOnlyPaths=/opt/in:/opt/out:rbind\n"))).toBeNull();
});

test("JIT and the user's bus are open where their flags were given", () => {
  expect(sandbox()).toMatchObject({ deniesJit: "MemoryDenyWriteExecute=true", hasUserBus: false });
  expect(sandbox({ allowJit: true, allowUserBus: true })).toMatchObject({ deniesJit: null, hasUserBus: true });
});

test("a service without a sandbox hides nothing, and one of the system only other homes", () => {
  const open = sandbox({ allowUnsandboxed: true });
  expect([by("/usr/x", "write", open), by("/home/bob/x", "read", open)]).toEqual([null, null]);
  expect(open.hasUserBus).toBe(true);
  const system = sandbox({ runAs: "aegis", home: "/var/lib/aegis", stateDir: "/var/lib/aegis/.aegis/edge" });
  expect(by("/home/bob/x", "read", system)).toBe("ProtectHome=true");
  expect(by("/var/lib/aegis/.aegis/edge/x", "write", system)).toBeNull();
  expect(by("/var/lib/other", "write", system)).toBe("ProtectSystem=strict");
});

const scratch = mkdtempSync(join(tmpdir(), "aegis-sandbox-"));
afterAll(() => rmSync(scratch, { recursive: true }));

test("it is that of the installed unit with every drop-in beside it, and nobody's where none is installed", async () => {
  const owner = { runAs: null, home: scratch, stateDir: join(scratch, ".aegis/edge") };
  expect(await installedSandbox(owner, "/run/user/1")).toBeNull();
  const files = unitFiles({ ...spec, ...owner, allow: [{ path: "/srv/a", mode: "rw" }] });
  const [unit] = files;
  files.push({ path: `${unit?.path}.d/90-mine.conf`, text: "[Service]\nBindPaths=/srv/b\n" });
  files.push({ path: `${unit?.path}.d/90-mine.conf~`, text: "[Service]\nBindPaths=/srv/c\n" });
  for (const { path, text } of files) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  const found = await installedSandbox(owner, "/run/user/1");
  if (!found) throw new Error("none was found");
  expect(found.unit).toBe(unit?.path ?? "");
  expect(["a", "b", "c"].map((name) => by(`/srv/${name}/x`, "write", found))).toEqual([
    null,
    null,
    "ProtectSystem=strict",
  ]);
});
