/** Policy over the real cmd.run: names are resolved on this machine's disk, where an attacker may have put links. */
import { afterAll, beforeAll, expect } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PolicyAnswer, testPolicy } from "../src/daemon/test-policy.ts";
import { systemClock } from "../src/platform/clock.ts";
import { systemProcesses } from "../src/platform/process.ts";
import { securityContextsSchema } from "../src/policy/context.ts";
import { defaultContext } from "../src/policy/written-contexts.ts";
import { cmdRun, commandHost, systemPath } from "../src/tools/cmd-run.ts";
import { createJobs } from "../src/tools/jobs.ts";
import { createRegistry } from "../src/tools/registry.ts";
import { needs } from "./support/needs.ts";

let home: string;
beforeAll(() => {
  home = realpathSync(mkdtempSync(join(tmpdir(), "aegis-policy-")));
  mkdirSync(join(home, "bin"));
  mkdirSync(join(home, ".aegis"));
  mkdirSync(join(home, "work"));
  writeFileSync(join(home, "bin", "date"), "#!/bin/sh\necho stolen\n");
  chmodSync(join(home, "bin", "date"), 0o755);
  symlinkSync("/bin/sh", join(home, "bin", "uptime"));
  symlinkSync("/usr/bin/date", join(home, "bin", "clock"));
  symlinkSync("/etc", join(home, "work", "out"));
  symlinkSync(join(home, ".aegis"), join(home, "work", "state"));
});
afterAll(() => rmSync(home, { recursive: true }));

async function ask(context: string, args: Record<string, unknown>): Promise<PolicyAnswer> {
  const contexts = securityContextsSchema.parse([
    defaultContext({ folders: [] }),
    {
      name: "build",
      principals: [{ sub: "*" }],
      capabilities: [
        { tool_pattern: "cmd.run", command_allowlist: ["date", "/usr/bin/true"], path_allowlist: [join(home, "work")] },
      ],
    },
    { name: "any", principals: [{ sub: "*" }], capabilities: [{ tool_pattern: "cmd.run", command_allowlist: ["*"] }] },
  ]);
  const runner = systemProcesses({ clock: systemClock, launcher: null });
  const host = { runner, clock: systemClock, path: systemPath, home };
  const jobs = createJobs(commandHost(host), join(home, "jobs"));
  return testPolicy({
    config: { contexts: new Map(contexts.map((one) => [one.name, one])), requireOperatorSignature: false },
    tools: createRegistry([cmdRun({ ...host, jobs })]),
    world: { home, protectedPaths: [] },
    ...{ context, tool: "cmd.run", args },
  });
}

/** `allowed`, the reason of a denial, or why it was not even judged. */
async function verdict(context: string, args: Record<string, unknown>): Promise<string> {
  const answer = await ask(context, args);
  if (answer.kind === "invalid_args") return answer.message;
  if (answer.kind !== "judged") return answer.kind;
  return answer.verdict.kind === "allowed" ? "allowed" : answer.verdict.reason;
}

const onLinux = needs("linux");

onLinux("what enrollment allows is allowed on a real host", async () => {
  expect(await verdict("default", { command: "uname", args: ["-a"] })).toBe("allowed");
  expect(await verdict("default", { cmd: "date -u +%s" })).toBe("allowed");
  expect(await verdict("default", { command: "whoami" })).toBe("allowed");
});

onLinux("a file of an allowed name, in a folder of the user's, is not what the name means", async () => {
  expect(await verdict("default", { command: join(home, "bin", "date") })).toMatch(/command_allowlist does not hold/);
  expect(await verdict("build", { command: join(home, "bin", "date") })).toMatch(/command_allowlist does not hold/);
  expect(await verdict("build", { command: "./bin/date", cwd: home })).toMatch(/neither a bare name nor an absolute/);
  expect(await verdict("build", { command: `${home}/work/../bin/date` })).toMatch(/command_allowlist does not hold/);
});

onLinux("a link is judged as what it leads to", async () => {
  expect(await verdict("any", { command: join(home, "bin", "uptime") })).toMatch(
    /is a shell and run_as_shell is not set/,
  );
  expect(await verdict("default", { command: join(home, "bin", "uptime") })).toMatch(/command_allowlist does not hold/);
  expect(await verdict("build", { command: join(home, "bin", "clock") })).toMatch(/command_allowlist does not hold/);
  expect(await verdict("build", { command: "/usr/bin/../bin/true" })).toBe("allowed");
});

onLinux("a working directory is judged as where it really is", async () => {
  expect(await verdict("build", { command: "date", cwd: join(home, "work") })).toBe("allowed");
  expect(await verdict("build", { command: "date", cwd: `${home}/work/` })).toBe("allowed");
  expect(await verdict("build", { command: "date", cwd: join(home, "work", "out") })).toMatch(/does not hold "\/etc"/);
  expect(await verdict("build", { command: "date", cwd: `${home}/work/..` })).toMatch(/cannot be used: it holds \.\./);
  expect(await verdict("build", { command: "date", cwd: join(home, "work", "state") })).toMatch(/is protected/);
  expect(await verdict("build", { command: "date", cwd: "work" })).toMatch(/not absolute/);
  expect(await verdict("default", { command: "date", cwd: join(home, "work") })).toMatch(
    /path_allowlist does not hold/,
  );
});

onLinux("whether a file exists is told only to those who may run it", async () => {
  const absent = await verdict("build", { command: join(home, "bin", "absent") });
  expect(absent.replace("absent", "date")).toBe(await verdict("build", { command: join(home, "bin", "date") }));
});

onLinux("words of a line are arguments, and what only a shell understands is none", async () => {
  expect(await verdict("default", { cmd: "date '-u' \"+%s\"" })).toBe("allowed");
  expect(await verdict("default", { cmd: "date -s 2030-01-01" })).toMatch(/args_allowlist does not hold "-s"/);
  expect(await verdict("default", { cmd: "uname; reboot" })).not.toBe("allowed");
  expect(await verdict("default", { cmd: "uname $(reboot)" })).not.toBe("allowed");
  expect(await verdict("default", { cmd: "uname", shell: true })).toMatch(/run_as_shell is not set/);
  expect(await verdict("any", { cmd: "uname", shell: true })).toMatch(/run_as_shell is not set/);
  expect(await verdict("any", { command: "uname", env: { LANG: "C" } })).toMatch(/env_allowlist does not hold LANG/);
});
