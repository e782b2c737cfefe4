import { heapStats } from "bun:jsc";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toolContext } from "../../test/support/call-tool.ts";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { type FakeProcess, fakeProcesses } from "../../test/support/fake-process.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { Secret } from "../platform/log.ts";
import { type ProcessRunner, systemProcesses } from "../platform/process.ts";
import { cmdRun, commandHost, systemPath } from "./cmd-run.ts";
import { createJobs } from "./jobs.ts";
import type { PreparedCall, StopReason, ToolContext, ToolResult } from "./tool.ts";

let home: string;
beforeAll(() => {
  home = realpathSync(mkdtempSync(join(tmpdir(), "aegis-cmd-")));
});
afterAll(() => rmSync(home, { recursive: true }));

const runner = systemProcesses({ clock: systemClock, launcher: null });
const toolOn = (runner: ProcessRunner, clock: Clock) => {
  const host = { runner, clock, path: systemPath, home };
  return cmdRun({ ...host, jobs: createJobs(commandHost(host), join(home, "jobs")) });
};
const tool = () => toolOn(runner, systemClock);

async function prepared(args: unknown, from = tool()): Promise<PreparedCall> {
  const preparation = await from.prepare(args);
  if (preparation.kind === "invalid_args") throw new Error(preparation.message);
  return preparation.call;
}

const run = async (args: unknown, more: Partial<ToolContext> = {}): Promise<ToolResult> =>
  (await prepared(args)).run(toolContext(more));

const text = ({ head, tail }: ToolResult["stdout"]) => Buffer.concat([head, tail]).toString();
const sh = (script: string, more: object = {}) => ({ command: "sh", args: ["-c", script], ...more });

describe("arguments", () => {
  const refusals: [args: unknown, message: string][] = [
    [{}, "command is missing: name a program in command, or write a line in cmd"],
    ["ls", 'the arguments: expected an object, got "ls"'],
    [{ command: 5 }, "command: expected a string, got 5"],
    [{ command: "ls", args: "-l" }, 'args: expected an array, got "-l"'],
    [{ command: "ls", args: ["-l", 7] }, "args[1]: expected a string, got 7"],
    [{ comand: "ls" }, 'unknown field "comand"; did you mean command?'],
    [{ command: "ls", colour: 1, cwd: 2 }, 'cwd: expected a string, got 2; unknown field "colour"'],
    [{ command: "ls", timeout_secs: "5" }, 'timeout_secs: expected a number, got "5"'],
    [{ command: "ls", timeout_secs: 0 }, "timeout_secs: expected more than 0, got 0"],
    [{ command: "ls", max_output_bytes: 1.5 }, "max_output_bytes: expected an integer, got 1.5"],
    [{ command: "ls", env: { A: 1 } }, "env.A: expected a string, got 1"],
    [{ command: "ls", env: { "A=B": "x" } }, 'env: "A=B" is no name of a variable'],
    [
      { command: "ls", cmd: "ls" },
      "command and cmd exclude each other: cmd is a whole line, command the program's name alone",
    ],
    [{ cmd: "ls", args: ["-l"] }, "args belong to command; cmd is a whole line"],
    [
      { cmd: "ls | wc" },
      'cmd "ls | wc" cannot be split into words: | at character 4 needs a shell, or quotes; set shell to true for a shell',
    ],
    [{ cmd: "   " }, "cmd is empty"],
    [{ command: "ls", shell: true }, "shell needs the line in cmd; command and args are started without a shell"],
    [{ command: "bin/ls" }, 'command "bin/ls" cannot be used: it is neither a bare name nor an absolute path'],
    [{ command: "../ls" }, 'command "../ls" cannot be used: it is neither a bare name nor an absolute path'],
    [{ command: ".." }, 'command ".." cannot be used: it is no name of a command'],
    [{ command: "ls", args: ["a\0b"] }, "args holds a zero byte, which no command can be given"],
    [{ command: "ls", cwd: "sub" }, 'cwd "sub" cannot be used: it is not absolute'],
    [{ command: "cat", stdin: "a", stdin_base64: "YQ==" }, "stdin and stdin_base64 exclude each other"],
    [{ command: "cat", stdin_base64: "?" }, 'stdin_base64: expected Invalid base64-encoded string, got "?"'],
  ];
  for (const [args, message] of refusals)
    test(`${JSON.stringify(args)} is refused in words`, async () => {
      expect(await tool().prepare(args)).toEqual({ kind: "invalid_args", message });
    });

  test("a name that is nowhere says where it was looked for", async () => {
    const message = `command "no-such-program" cannot be used: it is not found in ${systemPath}`;
    expect(await tool().prepare({ command: "no-such-program" })).toEqual({ kind: "invalid_args", message });
  });

  test("what policy is asked about is the real file, the exact words, the directory and each variable", async () => {
    symlinkSync("/usr/bin", join(home, "link"));
    const { accesses } = await prepared({
      command: "env",
      args: ["a b", "c"],
      cwd: join(home, "link"),
      env: { ONE: "1" },
    });
    expect(accesses).toEqual([
      { kind: "command", executable: realpathSync("/usr/bin/env"), name: "env", args: ["a b", "c"] },
      { kind: "env", name: "ONE" },
      { kind: "path", mode: "read", path: realpathSync("/usr/bin") },
    ]);
    expect((await prepared({ cmd: `env 'a b' "c"` })).accesses).toEqual(accesses.slice(0, 1));
    const line = "ls | wc";
    expect((await prepared({ cmd: line, shell: true })).accesses).toEqual([{ kind: "shell", line }]);
  });

  test("nobody learns whether a file or folder is there before policy was asked", async () => {
    const file = await prepared({ command: "/no/such/../program" });
    expect(file.accesses).toEqual([
      { kind: "command", executable: "/no/program", name: "/no/such/../program", args: [] },
    ]);
    expect(await file.run(toolContext())).toMatchObject({
      ok: false,
      errorKind: "invalid_args",
      errorMessage: "/no/such/../program does not exist",
    });
    const folder = await prepared({ command: "ls", cwd: "/no/such/" });
    expect(folder.accesses[1]).toEqual({ kind: "path", mode: "read", path: "/no/such" });
    expect(await folder.run(toolContext())).toMatchObject({
      ok: false,
      errorMessage: 'cwd "/no/such/" does not exist',
    });
  });
});

describe("a command", () => {
  test("that succeeds brings both its outputs and its status", async () => {
    const result = await run(sh("echo out; echo err >&2"));
    expect(result).toMatchObject({ ok: true, exitCode: 0 });
    expect(text(result.stdout)).toBe("out\n");
    expect(text(result.stderr)).toBe("err\n");
  });

  test("that fails says how", async () => {
    expect(await run(sh("exit 3"))).toMatchObject({
      ok: false,
      exitCode: 3,
      errorKind: "nonzero_exit",
      errorMessage: '"sh" exited with status 3',
    });
    expect(await run(sh("kill -9 $$"))).toMatchObject({
      ok: false,
      exitCode: 137,
      signal: "SIGKILL",
      errorKind: "signal",
    });
    expect(await run(sh("kill -37 $$"))).toMatchObject({ ok: false, exitCode: 128 + 37, signal: "SIGRTMIN+3" });
  });

  test("gets the plain environment, what the call adds and the owner's secrets, which it cannot show", async () => {
    const secretEnv = { TOKEN: new Secret("s3cr3t-value") };
    const shown: string[] = [];
    const output = async (_: string, piece: Uint8Array) => void shown.push(Buffer.from(piece).toString());
    const { stdout } = await run({ command: "env", env: { ONE: "1" } }, { secretEnv, output });
    const lines = text(stdout)
      .trim()
      .split("\n")
      .filter((line) => !/^(?:USER|LOGNAME|AEGIS_PROCESS)=/.test(line));
    expect(lines.sort()).toEqual(
      [`HOME=${home}`, "LANG=C.UTF-8", "ONE=1", `PATH=${systemPath}`, "TOKEN=[secret]"].sort(),
    );
    expect(shown.join("")).toBe(text(stdout));
  });

  test("runs in the home directory unless told otherwise", async () => {
    expect(text((await run({ command: "pwd" })).stdout)).toBe(`${home}\n`);
    expect(text((await run({ command: "pwd", cwd: "/usr" })).stdout)).toBe("/usr\n");
  });

  test("runs in the directory that was judged, even if its name leads elsewhere by now", async () => {
    for (const name of ["here", "there"]) mkdirSync(join(home, name));
    symlinkSync("here", join(home, "cwd"));
    const call = await prepared({ command: "pwd", cwd: join(home, "cwd") });
    unlinkSync(join(home, "cwd"));
    symlinkSync("there", join(home, "cwd"));
    expect(text((await call.run(toolContext())).stdout)).toBe(`${join(home, "here")}\n`);
  });

  test("reads text or bytes, or nothing", async () => {
    expect(text((await run({ command: "cat", stdin: "hélo" })).stdout)).toBe("hélo");
    expect([...(await run({ command: "cat", stdin_base64: "/wAB" })).stdout.head]).toEqual([0xff, 0, 1]);
    expect((await run({ command: "cat" })).stdout.bytes).toBe(0);
  });

  test("is the file that was judged, even if its name leads elsewhere by now", async () => {
    const folder = join(home, "programs");
    mkdirSync(folder);
    for (const which of ["judged", "other"]) {
      writeFileSync(join(folder, which), `#!/bin/sh\necho ${which}\n`);
      chmodSync(join(folder, which), 0o755);
    }
    const name = join(folder, "name");
    symlinkSync("judged", name);
    const call = await prepared({ command: name });
    expect(call.accesses[0]).toMatchObject({ executable: join(folder, "judged"), name });
    unlinkSync(name);
    symlinkSync("other", name);
    expect(text((await call.run(toolContext())).stdout)).toBe("judged\n");
  });

  test("that cannot be started says why", async () => {
    const script = join(home, "no-interpreter");
    writeFileSync(script, "#!/no/such/interpreter\n");
    chmodSync(script, 0o755);
    const result = await run({ command: script });
    expect(result).toMatchObject({ ok: false, exitCode: 127, errorKind: "invalid_args" });
    expect(result.errorMessage).toContain("its interpreter is missing");
  });

  test("keeps the beginning and the end of much output, counts the rest and does not fill memory", async () => {
    /** What is in use, and not what lies about, in bytes. */
    const inUse = () => {
      Bun.gc(true);
      return heapStats().heapSize;
    };
    const before = inUse();
    let [live, looked, most] = [0, 0, 0];
    const output = async (_: string, piece: Uint8Array) => {
      live += piece.length;
      if (live - looked < 16 * 1024 * 1024) return;
      looked = live;
      most = Math.max(most, inUse() - before);
    };
    const script = "printf begin; head -c 268435456 /dev/zero; printf end";
    const { stdout, ok } = await run(sh(script, { max_output_bytes: 1000 }), { output });
    expect(ok).toBe(true);
    expect(stdout.bytes).toBe(268_435_456 + 8);
    expect([stdout.head.length, stdout.tail.length]).toEqual([500, 500]);
    expect(Buffer.from(stdout.head).toString()).toStartWith("begin\0");
    expect(Buffer.from(stdout.tail).toString()).toEndWith("\0end");
    expect(live).toBe(stdout.bytes);
    expect(looked).toBeGreaterThan(0);
    expect(most).toBeLessThan(8 * 1024 * 1024);
  }, 20_000);
});

describe("a command is stopped", () => {
  const stopped = async (reason: StopReason, script = "echo started; sleep 600") => {
    const stop = new AbortController();
    const output = async () => stop.abort(reason);
    return run(sh(script), { signal: stop.signal, output });
  };
  const whatWasPrinted = "it had printed 8 bytes to stdout and 0 to stderr; nothing of it is left running";

  test("by a cancel, and what it printed is kept", async () => {
    const result = await stopped({ kind: "cancelled", detail: "by ann" });
    expect(result).toMatchObject({ ok: false, errorKind: "cancelled", signal: "SIGTERM" });
    expect(result.errorMessage).toBe(`"sh" was cancelled (by ann); ${whatWasPrinted}`);
    expect(text(result.stdout)).toBe("started\n");
  });

  test("by its deadline and by the daemon's end, each told as such", async () => {
    const late = await stopped({ kind: "timeout", afterMs: 1_500 });
    expect(late).toMatchObject({
      errorKind: "timeout",
      errorMessage: `"sh" was stopped after 1.5 s, its time limit; ${whatWasPrinted}`,
    });
    expect(await stopped({ kind: "shutdown" })).toMatchObject({ errorKind: "edge_disconnected" });
  });

  test("and one that ends well in time is not", async () => {
    expect(
      await stopped(
        { kind: "cancelled", detail: "" },
        "trap 'exit 0' TERM; echo started; while :; do sleep 0.01; done",
      ),
    ).toMatchObject({ ok: false, errorKind: "cancelled", exitCode: 0 });
    const stop = new AbortController();
    const result = run(sh("echo done"), {
      signal: stop.signal,
      async output() {
        await systemClock.sleep(100, stop.signal);
        stop.abort({ kind: "cancelled", detail: "too late" } satisfies StopReason);
      },
    });
    expect(await result).toMatchObject({ ok: true, exitCode: 0 });
  });

  test("although nobody reads what it prints", async () => {
    const stop = new AbortController();
    let called = 0;
    const result = run(sh("yes"), {
      signal: stop.signal,
      output() {
        if (++called === 1) stop.abort({ kind: "cancelled", detail: "" } satisfies StopReason);
        return new Promise(() => {});
      },
    });
    expect(await result).toMatchObject({ errorKind: "cancelled" });
    expect(called).toBe(1);
  });

  test("at once when its call was over before it began", async () => {
    expect(
      await run(sh("sleep 600"), { signal: AbortSignal.abort({ kind: "shutdown" } satisfies StopReason) }),
    ).toMatchObject({ errorKind: "edge_disconnected" });
  });

  const fake = async (
    args: object,
    play: (process: FakeProcess, clock: Clock & { advance(ms: number): Promise<void> }) => Promise<void>,
  ) => {
    const clock = fakeClock();
    const processes = fakeProcesses();
    const call = await prepared({ command: "ls", ...args }, toolOn(processes, clock));
    const result = call.run(toolContext());
    while (processes.all.length === 0) await systemClock.sleep(1, new AbortController().signal);
    const [process] = processes.all;
    if (process) await play(process, clock);
    const answer = await result;
    expect(clock.sleeping).toBe(0);
    return answer;
  };

  test("by its own time limit", async () => {
    const result = await fake({ timeout_secs: 30 }, async (process, clock) => {
      await process.print("some output");
      await clock.advance(29_999);
      expect(process.stopped.aborted).toBe(false);
      await clock.advance(1);
    });
    expect(result.errorMessage).toBe(
      '"ls" was stopped after 30 s, its time limit; it had printed 11 bytes to stdout and 0 to stderr; nothing of it is left running',
    );
  });

  test("by silence, which each piece of output ends", async () => {
    const result = await fake({ idle_timeout_secs: 10, timeout_secs: 60 }, async (process, clock) => {
      for (let i = 0; i < 4; i++) {
        await clock.advance(9_000);
        await process.print("still here", "stderr");
      }
      await clock.advance(9_999);
      expect(process.stopped.aborted).toBe(false);
      await clock.advance(1);
    });
    expect(result).toMatchObject({ errorKind: "timeout" });
    expect(result.errorMessage).toStartWith(
      '"ls" was stopped because it printed nothing for 10 s; it had printed 0 bytes to stdout and 40 to stderr',
    );
  });

  test("and what could not be ended is named", async () => {
    const result = await fake({ timeout_secs: 1 }, async (process) => {
      const left = [{ pid: 4711, command: "sleep 600" }];
      process.end({ kind: "signal", signal: "SIGKILL", stopped: false, outlived: 0, left });
    });
    expect(result.structured).toEqual({ left_running: [{ pid: 4711, command: "sleep 600" }] });
  });
});
