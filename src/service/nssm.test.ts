import { expect, test } from "bun:test";
import {
  descriptor,
  installCommands,
  isProtectedPlace,
  nssm,
  plainText,
  quoted,
  readStatus,
  writersOf,
} from "./nssm.ts";

const spec = {
  executable: "C:\\Program Files\\aegis\\aegis.exe",
  configPath: "C:\\Users\\Ann Lee\\.aegis\\edge\\aegis-config.yaml",
  stateDir: "C:\\Users\\Ann Lee\\.aegis\\edge",
  env: { HTTPS_PROXY: "http://proxy:3128" },
};

test("the descriptor is the page's, with absolute paths", () => {
  expect(descriptor(spec)).toEqual({
    name: "aegis-edge",
    displayName: "AEGIS Edge Daemon",
    description: "AEGIS edge daemon — receives MCP tool calls via SEAL.",
    executable: "C:\\Program Files\\aegis\\aegis.exe",
    arguments: 'edge run --config "C:\\Users\\Ann Lee\\.aegis\\edge\\aegis-config.yaml"',
    startup: "automatic",
    stdout: "C:\\Users\\Ann Lee\\.aegis\\edge\\logs\\aegis-edge.out.log",
    stderr: "C:\\Users\\Ann Lee\\.aegis\\edge\\logs\\aegis-edge.err.log",
    rotateLogs: true,
    rotateLogsBytes: 10_485_760,
  });
});

test("nssm is told all of it, that Ctrl-C gets its time, and that a host which is not enrolled is not started again", () => {
  const commands = installCommands(spec).map((words) => words.join(" "));
  expect(commands[0]).toBe("install aegis-edge C:\\Program Files\\aegis\\aegis.exe");
  for (const wanted of [
    "AppStopMethodConsole 28000",
    "AppExit Default Restart",
    "AppExit 78 Exit",
    "Start SERVICE_AUTO_START",
    "AppRotateBytes 10485760",
    "AppEnvironmentExtra HTTPS_PROXY=http://proxy:3128",
  ])
    expect(commands).toContain(`set aegis-edge ${wanted}`);
});

test("an argument is quoted as Windows programs take it apart", () => {
  expect(quoted("plain")).toBe("plain");
  expect(quoted("")).toBe('""');
  expect(quoted("a b")).toBe('"a b"');
  expect(quoted('say "x"')).toBe('"say \\"x\\""');
  expect(quoted("C:\\with space\\")).toBe('"C:\\with space\\\\"');
  expect(quoted('back\\"slash')).toBe('"back\\\\\\"slash"');
});

test("its answers are read through UTF-16, and a missing service is told from a stopped one", () => {
  const wide = [..."SERVICE_RUNNING\r\n"].join("\u0000");
  expect(plainText(wide)).toBe("SERVICE_RUNNING");
  expect(readStatus(0, wide)).toBe("running");
  expect(readStatus(0, "SERVICE_STOPPED")).toBe("stopped");
  expect(readStatus(0, "SERVICE_PAUSED")).toBe("paused");
  expect(readStatus(3, "Can't open service!")).toBe("missing");
  expect(readStatus(1, "something else")).toBe("unknown");
});

test("a user's own folder is no place for what runs as LocalSystem", () => {
  const env = { ProgramFiles: "C:\\Program Files", SystemRoot: "C:\\Windows" };
  expect(isProtectedPlace("C:\\Program Files\\aegis\\aegis.exe", env)).toBe(true);
  expect(isProtectedPlace("c:/program files/aegis/aegis.exe", env)).toBe(true);
  expect(isProtectedPlace("C:\\Program Files (mine)\\aegis.exe", env)).toBe(false);
  expect(isProtectedPlace("C:\\Program Files\\..\\Users\\ann\\aegis.exe", env)).toBe(false);
  expect(isProtectedPlace("C:\\Users\\ann\\AppData\\Local\\Programs\\aegis\\aegis.exe", env)).toBe(false);
  expect(isProtectedPlace("C:\\x\\aegis.exe", {})).toBe(false);
});

test("nssm that is missing, a service that is paused and a terminal without rights are said with what to do", async () => {
  const flags = { allow: [], allowUserBus: false, allowJit: false, allowUnsandboxed: false };
  const service = { ...spec, ...flags, home: "C:\\Users\\Ann Lee", runAs: null, notify: "main" as const };
  const ends = (status: number | null, stdout = "", stderr = "") => {
    const asked: string[] = [];
    const run = async (program: string) => {
      asked.push(program);
      return { status, stdout, stderr };
    };
    return { asked, options: { env: {}, run } };
  };
  const none = ends(null);
  const missing = await nssm.obstacle(service, none.options);
  expect(none.asked).toEqual(["C:\\Program Files\\aegis\\nssm64.exe", "nssm64.exe", "nssm.exe"]);
  expect(missing?.message).toBe(`nssm64.exe is neither beside ${spec.executable} nor on the Path`);
  expect(missing?.hint).toContain("install aegis again");

  expect(await nssm.status(service, ends(0, "SERVICE_PAUSED\r\n").options)).toMatchObject({
    ...{ state: "failed", detail: "it ended too often in a row; aegis edge service restart" },
  });
  await expect(nssm.restart(service, ends(1, "", "OpenService(): Access is denied.").options)).rejects.toMatchObject({
    message: expect.stringContaining("Access is denied"),
    hint: expect.stringContaining("Run as administrator"),
  });
});

const listed = (path: string, ...entries: string[]) =>
  `${path} ${entries.join(`\r\n${" ".repeat(path.length + 1)}`)}\r\n\r\nSuccessfully processed 1 files; Failed processing 0 files\r\n`;

test("who may write an executable is read from icacls", () => {
  const path = "C:\\Users\\ann\\aegis.exe";
  const said = listed(
    path,
    "NT AUTHORITY\\SYSTEM:(I)(F)",
    "BUILTIN\\Users:(I)(RX)",
    "DESK\\ann:(I)(F)",
    "DESK\\Some One:(M)",
    "Everyone:(RX,W)",
  );
  expect(writersOf(said, path)).toEqual(["NT AUTHORITY\\SYSTEM", "DESK\\ann", "DESK\\Some One", "Everyone"]);
});

test("an executable that others can replace is not run as LocalSystem unless forced", async () => {
  const path = "C:\\Users\\ann\\AppData\\Local\\Programs\\aegis\\aegis.exe";
  const flags = { allow: [], allowUserBus: false, allowJit: false, allowUnsandboxed: false };
  const service = { ...spec, ...flags, executable: path, home: "C:\\Users\\ann", runAs: null, notify: "main" as const };
  const env = { USERNAME: "ann", ProgramFiles: "C:\\Program Files" };
  const withAcl = (...entries: string[]) => ({
    env,
    run: async (program: string) => {
      const stdout = program === "icacls" ? listed(path, ...entries) : "";
      return { status: program === "icacls" ? 0 : 3, stdout, stderr: "" };
    },
  });
  const own = ["NT AUTHORITY\\SYSTEM:(F)", "BUILTIN\\Administrators:(F)", "DESK\\ann:(F)"];
  expect(await nssm.obstacle(service, withAcl(...own))).toBeNull();
  const shared = await nssm.obstacle(service, withAcl(...own, "BUILTIN\\Users:(M)"));
  expect(shared?.message).toContain("as LocalSystem, which BUILTIN\\Users can change");
  expect(shared?.hint).toContain("C:\\Program Files\\aegis");
  expect(await nssm.obstacle(service, { ...withAcl(...own, "BUILTIN\\Users:(M)"), force: true })).toBeNull();
  expect((await nssm.obstacle(service, withAcl()))?.message).toContain("cannot be told");
});

const flags = { allow: [], allowUserBus: false, allowJit: false, allowUnsandboxed: false };
const wanted = { ...spec, ...flags, home: "C:\\Users\\Ann Lee", runAs: null, notify: "main" as const };
/** UTF-16 read as UTF-8. */
const wide = (text: string) => Buffer.from(`${text}\r\n`, "utf16le").toString("utf8");

/** NSSM with what it was set to. */
function scripted(settings: readonly (readonly string[])[] | null) {
  const asked: string[] = [];
  const value = (words: readonly string[]) => {
    const [, , ...key] = words;
    const set = settings?.find((one) => key.every((word, at) => one[at + 2] === word));
    return set?.slice(2 + key.length).join("\r\n") ?? "";
  };
  return {
    asked,
    env: {},
    run: async (_program: string, words: readonly string[]) => {
      asked.push(words[0] ?? "");
      if (settings === null) return { status: 3, stdout: wide("Can't open service!"), stderr: "" };
      return { status: 0, stdout: wide(words[0] === "status" ? "SERVICE_RUNNING" : value(words)), stderr: "" };
    },
  };
}

test("a service that is what it should be is recognised, and asking changes nothing", async () => {
  const umlauts = { ...wanted, configPath: "C:\\Users\\Jürgen\\c.yaml", env: { A: "1", B: "2" } };
  const manager = scripted(installCommands(umlauts));
  expect(await nssm.kept(umlauts, manager)).toBe("same");
  expect(new Set(manager.asked)).toEqual(new Set(["status", "get"]));
});

test("other settings, another's service and none at all are told apart", async () => {
  expect(await nssm.kept({ ...wanted, env: {} }, scripted(installCommands(wanted)))).toBe("other");
  expect(await nssm.kept({ ...wanted, executable: "C:\\a.exe" }, scripted(installCommands(wanted)))).toBe("other");
  expect(await nssm.kept({ ...wanted, env: { HTTPS_PROXY: "x" } }, scripted(installCommands(wanted)))).toBe("other");
  const theirs = installCommands(wanted).map((words) =>
    words[2] === "DisplayName" ? [...words.slice(0, 3), "Theirs"] : words,
  );
  expect(await nssm.kept(wanted, scripted(theirs))).toBe("foreign");
  expect(await nssm.kept(wanted, scripted(null))).toBe("nothing");
});
