import { afterEach, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { systemClock } from "./clock.ts";
import { maxPieceBytes } from "./output-pump.ts";
import {
  type Launcher,
  type Pipe,
  type ProcessEnd,
  type ProcessHandle,
  type ProcessSpec,
  systemProcesses,
} from "./process.ts";

/** Waits pass twenty times faster than they say, so that five seconds of patience cost a test 250 ms. */
const hurried = {
  ...systemClock,
  sleep: (ms: number, signal: AbortSignal) => systemClock.sleep(ms / 20, signal),
};
const runner = systemProcesses({ clock: systemClock, launcher: null });
const hurriedRunner = systemProcesses({ clock: hurried, launcher: null });
const never = new AbortController().signal;

/** As the build puts it there. */
const launchPath = join(import.meta.dir, "../../dist/native/linux-x64/aegis-launch");
const launcher: Launcher = {
  path: launchPath,
  args: ({ command, name, args }) => ["--grace-ms", "300", "--name", name, "--", command, ...args],
};
const launched = systemProcesses({ clock: systemClock, launcher });

const directory = mkdtempSync(join(tmpdir(), "aegis-process-"));
const started: ProcessHandle[] = [];
afterEach(async () => {
  for (const handle of started.splice(0)) {
    handle.stop();
    await handle.ended.catch(() => {});
  }
});
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));

interface Run {
  end: ProcessEnd;
  stdout: Buffer;
  stderr: Buffer;
  pieces: Array<{ pipe: Pipe; bytes: number }>;
}

interface Options extends Partial<ProcessSpec> {
  onPiece?: (piece: Buffer, handle: () => ProcessHandle) => Promise<void> | void;
}

function start(script: string, { onPiece, ...options }: Options = {}, which = runner) {
  const printed: Record<Pipe, Buffer[]> = { stdout: [], stderr: [] };
  const pieces: Run["pieces"] = [];
  const handle: ProcessHandle = which.start({
    executable: "/bin/sh",
    name: "sh",
    args: ["-c", script],
    cwd: "/",
    env: { PATH: "/usr/bin:/bin" },
    stdin: null,
    async output(pipe, piece) {
      printed[pipe].push(Buffer.from(piece));
      pieces.push({ pipe, bytes: piece.length });
      await onPiece?.(Buffer.from(piece), () => handle);
    },
    ...options,
  });
  started.push(handle);
  const run = handle.ended.then(
    (end): Run => ({ end, stdout: Buffer.concat(printed.stdout), stderr: Buffer.concat(printed.stderr), pieces }),
  );
  return { handle, run, text: () => Buffer.concat(printed.stdout).toString() };
}

const run = (script: string, options: Options = {}, which = runner) => start(script, options, which).run;

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    if (turn > 500) throw new Error("it never came");
    await systemClock.sleep(10, never);
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
};

test("every byte of both pipes arrives, in order and as it was, with the exit status", async () => {
  const { end, stdout, stderr } = await run(
    `printf '\\377\\000\\303('; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf wrong >&2; exit 3`,
  );
  expect(end).toEqual({ kind: "exited", code: 3, stopped: false, outlived: 0, left: [] });
  expect([...stdout.subarray(0, 4)]).toEqual([0xff, 0x00, 0xc3, 0x28]);
  expect(stdout.subarray(4).toString()).toBe(Array.from({ length: 3000 }, (_, i) => `line ${i}\n`).join(""));
  expect(stderr.toString()).toBe("wrong");
});

test("a signal is told by its name, also one that has only a number, and is never a success", async () => {
  expect((await run("kill -SEGV $$")).end).toMatchObject({ kind: "signal", signal: "SIGSEGV" });
  expect((await run("kill -37 $$")).end).toMatchObject({ kind: "signal", signal: "SIGRTMIN+3" });
});

test("the environment, the argument 0, the directory and the standard input are what was stated and nothing else", async () => {
  const { stdout } = await run("", {
    executable: "/usr/bin/env",
    name: "env",
    args: [],
    env: { ONE: "1", EMPTY: "" },
  });
  expect(stdout.toString().replace(/AEGIS_PROCESS=[0-9a-f]{16}\n/, "")).toBe("ONE=1\nEMPTY=\n");
  expect((await run("pwd; cat; echo end", { cwd: directory })).stdout.toString()).toBe(`${directory}\nend\n`);
});

needs("linux")("a process gets a session of its own, its stated name and no descriptor of ours", async () => {
  const { stdout } = await run("", {
    executable: "/bin/sh",
    name: "other-name",
    args: ["-c", "tr '\\0' ' ' < /proc/$$/cmdline; echo; cut -d' ' -f1,5,6 /proc/$$/stat; ls /proc/$$/fd"],
  });
  const [command = "", numbers = "", ...descriptors] = stdout.toString().trim().split("\n");
  expect(command).toStartWith("other-name -c");
  expect(new Set(numbers.split(" ")).size).toBe(1);
  expect(descriptors.slice(0, 3)).toEqual(["0", "1", "2"]);
  expect(descriptors.filter((fd) => Number(fd) > 2 && Number(fd) < 10)).toEqual([]);
});

test("bytes for standard input are read to their end, and /dev/stdin can be opened anew", async () => {
  const stdin = Buffer.alloc(300_000, "abc\n");
  expect((await run("cat", { stdin })).stdout.equals(stdin)).toBe(true);
  expect((await run("cat /dev/stdin | wc -c", { stdin })).stdout.toString().trim()).toBe("300000");
  expect((await run("exec true", { stdin })).end).toMatchObject({ kind: "exited", code: 0 });
});

test("an open standard input takes what is written later, and says when nobody reads it any more", async () => {
  const { handle, run: whole, text } = start("while read line; do echo got $line; done", { stdin: "open" });
  expect(await handle.write(Buffer.from("one\n"))).toBe(true);
  await until(() => text() === "got one\n");
  expect(await handle.write(Buffer.from("two\n"))).toBe(true);
  handle.closeStdin();
  const { end, stdout } = await whole;
  expect(end).toMatchObject({ kind: "exited", code: 0 });
  expect(stdout.toString()).toBe("got one\ngot two\n");
  expect(await handle.write(Buffer.from("three\n"))).toBe(false);

  const deaf = start("exec <&-; echo deaf; sleep 600", { stdin: "open" });
  await until(() => deaf.text() === "deaf\n");
  expect(await deaf.handle.write(Buffer.from("one\n"))).toBe(false);
});

needs("linux")(
  "a reader that takes its time slows the process down instead of filling memory",
  async () => {
    const reader = Promise.withResolvers<void>();
    const { handle, run: whole } = start("exec head -c 60000000 /dev/zero", { onPiece: () => reader.promise });
    const written = () => Number(/wchar: (\d+)/.exec(readFileSync(`/proc/${handle.pid}/io`, "latin1"))?.[1]);
    const sleeps = () => / S /.test(readFileSync(`/proc/${handle.pid}/stat`, "latin1"));
    // How much fits into the pipe and what was read from it at once is the system's affair; that it stays so is ours.
    let stalledAt = 0;
    while (stalledAt === 0 || !sleeps() || written() !== stalledAt) {
      stalledAt = written();
      await systemClock.sleep(100, never);
    }
    expect(stalledAt).toBeLessThan(2_000_000);
    reader.resolve();
    const { stdout } = await whole;
    expect(stdout.length).toBe(60_000_000);
  },
  20_000,
);

test("many small writes become few pieces, none longer than 32 KiB", async () => {
  const { pieces, stdout } = await run("i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done");
  expect(stdout.toString().split("\n").length).toBe(5001);
  expect(pieces.length).toBeLessThan(100);
  const long = await run("head -c 1000000 /dev/zero");
  expect(Math.max(...long.pieces.map((piece) => piece.bytes))).toBe(maxPieceBytes);
});

test("what ignores SIGTERM is killed, and so is all that it started", async () => {
  const {
    handle,
    run: whole,
    text,
  } = start(`trap '' TERM; (trap '' TERM; echo $$; sleep 600) & sleep 600; sleep 600`, {}, hurriedRunner);
  await until(() => text().includes("\n"));
  const began = performance.now();
  handle.stop();
  handle.stop();
  expect((await whole).end).toEqual({ kind: "signal", signal: "SIGKILL", stopped: true, outlived: 0, left: [] });
  expect(performance.now() - began).toBeGreaterThan(200);
});

test("what obeys SIGTERM may say its last words", async () => {
  const {
    handle,
    run: whole,
    text,
  } = start(`trap 'echo last words; exit 7' TERM; echo ready; while :; do sleep 0.01; done`);
  await until(() => text() === "ready\n");
  handle.stop();
  const { end, stdout } = await whole;
  expect(end).toMatchObject({ kind: "exited", code: 7 });
  expect(stdout.toString()).toBe("ready\nlast words\n");
});

const leaver = `setsid sh -c 'sh -c "echo \\$\\$; exec sleep 600" & exit 0' & `;

needs("linux", "command:setsid")("a process that left the group, and lost its parent, is stopped as well", async () => {
  const { handle, run: whole, text } = start(`${leaver} sleep 600`);
  await until(() => text().includes("\n"));
  const pid = Number(text());
  await until(() => readFileSync(`/proc/${pid}/cmdline`, "latin1").startsWith("sleep"));
  handle.stop();
  expect((await whole).end).toMatchObject({ kind: "signal", signal: "SIGTERM", left: [] });
  expect(isAlive(pid)).toBe(false);
});

needs("linux", "command:setsid")("what outlives its starter is ended with it, and counted", async () => {
  const { end, stdout } = await run(
    `${leaver} while ! pgrep -s 0 sleep >/dev/null && [ $((n+=1)) -lt 9 ]; do sleep 0.02; done; exit 0`,
  );
  const pid = Number(stdout.toString());
  expect(pid).toBeGreaterThan(0);
  expect(end).toEqual({ kind: "exited", code: 0, stopped: false, outlived: 1, left: [] });
  expect(isAlive(pid)).toBe(false);
});

test("a grandchild that holds the pipe, and ignores SIGTERM, holds nothing up", async () => {
  const began = performance.now();
  const { end, stdout } = await run(`(trap '' TERM; sleep 600; sleep 600) & echo done; exit 4`);
  expect(end).toMatchObject({ kind: "exited", code: 4, left: [] });
  expect(stdout.toString()).toBe("done\n");
  expect(performance.now() - began).toBeLessThan(3_000);
});

needs("linux", "command:setsid")("a pipe held by what hid from us altogether is given up", async () => {
  const { end, stdout } = await run(
    `env -i setsid setsid sh -c 'echo $$; exec sleep 600' & sleep 0.2; exit 0`,
    {},
    hurriedRunner,
  );
  const pid = Number(stdout.toString());
  expect(isAlive(pid)).toBe(true);
  process.kill(pid, "SIGKILL");
  expect(end).toMatchObject({ kind: "exited", code: 0 });
});

test("what cannot be started is an answer that says why", async () => {
  const plain = join(directory, "plain");
  writeFileSync(plain, "echo hi\n");
  const message = async (spec: Partial<ProcessSpec>) => {
    const { end } = await run("", { args: [], ...spec });
    if (end.kind !== "not_started") throw new Error(`it ${end.kind}`);
    return `${end.reason}: ${end.message}`;
  };
  expect(await message({ executable: "/no/such/file" })).toStartWith(
    "not_found: /no/such/file cannot be started: no such file",
  );
  expect(await message({ executable: plain })).toBe(`not_permitted: ${plain} cannot be started: permission denied`);
  chmodSync(plain, 0o755);
  expect(await message({ executable: plain })).toStartWith(
    `no_program: ${plain} cannot be started: this machine cannot run it`,
  );
  expect(await message({ cwd: "/no/such" })).toBe("not_found: the working directory /no/such does not exist");
  expect(await message({ args: ["x".repeat(3_000_000)] })).toStartWith(
    "no_resources: /bin/sh cannot be started: its arg",
  );
});

test("a reader that fails ends the process, and its failure is what is told", async () => {
  const failing = run("echo one; sleep 600", {
    onPiece: () => Promise.reject(new Error("the reader is gone")),
  });
  await expect(failing).rejects.toThrow("the reader is gone");
});

needs("linux", "command:mkfifo")("with real pipes a program can open /dev/stderr anew", async () => {
  const { constants, openSync, unlinkSync } = await import("node:fs");
  let made = 0;
  const makePipe = () => {
    const path = join(directory, `pipe-${made++}`);
    Bun.spawnSync(["mkfifo", "-m", "600", path]);
    const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const write = openSync(path, constants.O_WRONLY);
    unlinkSync(path);
    return { read, write };
  };
  const piped = systemProcesses({ clock: systemClock, launcher: null, makePipe });
  const { stdout, stderr } = await run("echo out >/dev/stdout; echo err >/dev/stderr; seq 1 50000", {}, piped);
  expect(stderr.toString()).toBe("err\n");
  expect(stdout.length).toBe(4 + 288_894);
});

needs("linux")("no descriptor and no process is left by many runs", async () => {
  const descriptors = () => readdirSync("/proc/self/fd").length;
  await run("echo warm");
  const before = descriptors();
  const many = await Promise.all(
    Array.from({ length: 60 }, (_, i) =>
      run(`seq 1 ${i * 200}; exit ${i}`, { stdin: i % 2 ? Buffer.from("x") : null }),
    ),
  );
  for (const [i, { end, stdout }] of many.entries()) {
    expect(end).toMatchObject({ kind: "exited", code: i });
    expect(stdout.toString().split("\n").length).toBe(i * 200 + 1);
  }
  await until(() => descriptors() <= before + 1);
});

const throughLauncher = needs(`file:${launchPath}`);

test("through a wrapper the command is another program's to start, with the same bytes, environment and end", async () => {
  const wrapperPath = join(directory, "wrapper.sh");
  // As sandbox-exec: takes its own words up to --, and becomes the command.
  writeFileSync(wrapperPath, '#!/bin/sh\nwhile [ "$1" != -- ]; do echo "took $1" >&2; shift; done; shift; exec "$@"\n');
  chmodSync(wrapperPath, 0o755);
  const wrapper = {
    path: wrapperPath,
    args: ({ command, args }: { command: string; args: readonly string[] }) => [
      "-p",
      "a profile",
      "--",
      command,
      ...args,
    ],
  };
  const wrapped = systemProcesses({ clock: hurried, launcher: null, wrapper });
  const args = ["-c", 'printf "%s|" "$X" "$@"; exit 3', "sh", "a b"];
  const { end, stdout, stderr } = await run("", { args, env: { PATH: "/usr/bin:/bin", X: "y" } }, wrapped);
  expect(end).toEqual({ kind: "exited", code: 3, stopped: false, outlived: 0, left: [] });
  expect([stdout.toString(), stderr.toString()]).toEqual(["y|a b|", "took -p\ntook a profile\n"]);
  const { handle, run: ended } = start("", { executable: "/bin/sleep", name: "sleep", args: ["60"] }, wrapped);
  handle.stop();
  expect((await ended).end).toMatchObject({ kind: "signal", stopped: true, left: [] });
});

throughLauncher("through the launcher bytes, status, signal, name and standard input are the same", async () => {
  const { end, stdout } = await run(
    "cat; echo $0; exit 3",
    { name: "other-name", stdin: Buffer.from([0xff, 0x00]) },
    launched,
  );
  expect(end).toEqual({ kind: "exited", code: 3, stopped: false, outlived: 0, left: [] });
  expect([...stdout.subarray(0, 2)]).toEqual([0xff, 0x00]);
  const { stdout: named } = await run("tr '\\0' ' ' < /proc/$$/cmdline", { name: "other-name" }, launched);
  expect(named.toString()).toStartWith("other-name -c");
  expect((await run("kill -SEGV $$", {}, launched)).end).toMatchObject({ kind: "signal", signal: "SIGSEGV" });
  expect((await run("kill -37 $$", {}, launched)).end).toMatchObject({ kind: "signal", signal: "SIGRTMIN+3" });
});

throughLauncher("through the launcher what cannot be started is told in the same words", async () => {
  const { end } = await run("", { executable: "/no/such/file", args: [] }, launched);
  expect(end).toMatchObject({ kind: "not_started", reason: "not_found" });
  expect(end).toMatchObject({ message: expect.stringContaining("/no/such/file cannot be started: no such file") });
  const plain = join(directory, "not-executable");
  writeFileSync(plain, "");
  expect((await run("", { executable: plain, args: [] }, launched)).end).toMatchObject({ reason: "not_permitted" });
});

throughLauncher("through the launcher even a process that hid altogether is found, ended and counted", async () => {
  const { end, stdout } = await run(
    `env -i setsid setsid sh -c 'echo $$; exec sleep 600' & sleep 0.2; exit 0`,
    {},
    launched,
  );
  expect(end).toEqual({ kind: "exited", code: 0, stopped: false, outlived: 1, left: [] });
  expect(isAlive(Number(stdout.toString()))).toBe(false);
});

throughLauncher(
  "through the launcher what is stopped may say its last words, and what ignores that is killed",
  async () => {
    const obeying = start(
      `trap 'echo last words; exit 7' TERM; echo ready; while :; do sleep 0.01; done`,
      {},
      launched,
    );
    await until(() => obeying.text() === "ready\n");
    obeying.handle.stop();
    expect(await obeying.run).toMatchObject({ end: { kind: "exited", code: 7, stopped: true, left: [] } });
    const deaf = start(`trap '' TERM; (trap '' TERM; sleep 600) & echo ready; sleep 600; sleep 600`, {}, launched);
    await until(() => deaf.text() === "ready\n");
    deaf.handle.stop();
    expect((await deaf.run).end).toEqual({ kind: "signal", signal: "SIGKILL", stopped: true, outlived: 0, left: [] });
  },
);
