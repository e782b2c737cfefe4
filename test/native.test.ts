/** The native parts as the system sees them: what a tool behind the launcher can reach, and what it leaves behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { compile, hardening } from "../install/build.ts";
import { buildNative } from "../install/native.ts";
import { placeNative } from "../src/native/find.ts";
import { findLauncher, type Launcher } from "../src/native/launcher.ts";
import { openNotifier } from "../src/native/notify.ts";
import { missing, needs } from "./support/needs.ts";
import { runProgram } from "./support/run-program.ts";

const here = `${process.platform}-${process.arch}`;
/** Not in /tmp: what lies on the way to a protected path takes no new entries, and tools may use /tmp. */
const scratch = mkdtempSync("/var/tmp/aegis-native-");
const home = join(scratch, "home");
const parts = join(scratch, "parts");
const support = join(import.meta.dir, "support");
/** Lies where the ordinary user of these tests can read it, which may not be so of the project. */
const attacker = join(scratch, "attack.py");
const withCompiler = needs("linux", "command:cc");
const withPython = needs("linux", "command:cc", "command:python3");
/** An ordinary user's rights, also where the tests run as root. */
const asUser = process.getuid?.() === 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];
const usable = missing("linux", "command:cc").length === 0;

const unit = ".config/systemd/user/aegis-edge.service";
const protectedPaths = [join(home, ".aegis")];
const readOnlyPaths = [".local/bin/aegis", unit, `${unit}.d`].map((path) => join(home, path));
let launcher: Launcher;

/** A home with an enrolled edge in it. */
function furnish(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  const put = (path: string, text: string, mode = 0o600) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
    chmodSync(join(folder, path), mode);
  };
  put(".aegis/edge/node.key", "secret");
  put(".aegis/edge/aegis-config.yaml", "kind: NodeConfig\n");
  put(".aegis/edge/run/requests/.keep", "");
  put(".local/bin/aegis", "#!/bin/sh\necho aegis\n", 0o755);
  put(unit, "[Unit]\n");
  mkdirSync(join(folder, `${unit}.d`));
  put(".config/other/settings", "x");
  put("projects/a", "a");
  symlinkSync(join(folder, ".aegis"), join(folder, "link"));
  if (asUser.length > 0) Bun.spawnSync(["chown", "-hR", "65534:65534", folder]);
}

beforeAll(async () => {
  copyFileSync(join(support, "attack.py"), attacker);
  chmodSync(attacker, 0o644);
  chmodSync(scratch, 0o755);
  furnish(home);
  if (!usable) return;
  buildNative(here);
  const found = await findLauncher({ dirs: [parts], run: runProgram, protectedPaths, readOnlyPaths, graceMs: 400 });
  if (found.kind === "absent") throw new Error(found.why);
  // Where that user may run it.
  launcher = { ...found.launcher, path: join(scratch, "aegis-launch") };
  copyFileSync(found.launcher.path, launcher.path);
  chmodSync(launcher.path, 0o755);
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Runs a command in the projects folder until it ends. */
async function run(command: readonly string[]) {
  const env = { PATH: "/usr/bin:/bin", HOME: home };
  const child = Bun.spawn([...command], { cwd: join(home, "projects"), env, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  await child.exited;
  return { exit: child.exitCode, signal: child.signalCode, stdout, stderr };
}

/** The whole command line behind which `command` runs; without `--parent` where a shell of ours starts it. */
const behind = (command: string, ...args: string[]) => [launcher.path, ...launcher.args({ command, args })];
const behindShell = (command: string, ...args: string[]) =>
  behind(command, ...args).filter((word, at, all) => word !== "--parent" && all[at - 1] !== "--parent");
const tool = (command: string, ...args: string[]) => run([...asUser, ...behind(command, ...args)]);
const sh = (script: string) => tool("/bin/sh", "-c", script);

/** Processes that live and whose arguments hold `mark`. */
const marked = (mark: string): string[] =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(mark);
    } catch {
      return false; // it ended while we looked
    }
  });

/** Answers once `condition` holds; a test's own time limit ends the wait. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(5);
}

describe("a tool behind the launcher", () => {
  const withDaemon = async <T>(folder: string, act: (pid: string) => Promise<T>): Promise<T> => {
    const daemon = Bun.spawn([...asUser, "sleep", "60"], { cwd: join(folder, ".aegis/edge"), stdin: "ignore" });
    await until(() => readFileSync(`/proc/${daemon.pid}/comm`, "utf8") === "sleep\n");
    try {
      return await act(String(daemon.pid));
    } finally {
      daemon.kill("SIGKILL");
    }
  };
  const attempts = (): string[] =>
    [...readFileSync(attacker, "utf8").matchAll(/^attempt\("([^"]+)"/gm)].map(([, name = ""]) => name);

  /** As the daemon starts it: with rules that were made before. */
  const byRules = (...command: string[]) => {
    const [path = "", ...args] = command;
    const rules = launcher.rules?.() ?? null;
    if (rules === null) throw new Error("there are no rules");
    const words = [...asUser, launcher.path, ...launcher.args({ command: path, args }, 4)];
    const stdio = ["ignore", "pipe", "pipe", "ignore", rules] as unknown as ["ignore", "pipe", "pipe"];
    const child = Bun.spawnSync(words, {
      cwd: join(home, "projects"),
      env: { PATH: "/usr/bin:/bin", HOME: home },
      stdio,
    });
    return { exit: child.exitCode, stdout: child.stdout.toString(), stderr: child.stderr.toString() };
  };

  type Start = (...command: [string, ...string[]]) => Promise<{ stdout: string; stderr: string }>;
  const starts: [string, Start][] = [
    ["its own rules", tool],
    ["rules made before", async (...command) => byRules(...command)],
  ];
  for (const [how, start] of starts)
    withPython(
      `by ${how} reaches nothing of the daemon's: files, memory, environment, signals, binary, unit`,
      async () => {
        furnish(home);
        const attack = await withDaemon(home, (pid) => start("/usr/bin/python3", attacker, home, pid));
        expect(attack.stderr).toBe("");
        const succeeded = JSON.parse(attack.stdout) as Record<string, boolean>;
        const open = new Set(launcher.probe.open);
        const known = (name: string) =>
          (open.has("signals") && /end|kill/.test(name)) || (open.has("truncate") && /empty/.test(name));
        expect(Object.keys(succeeded)).toEqual(attempts());
        expect(Object.keys(succeeded).filter((name) => succeeded[name] && !known(name))).toEqual([]);
        expect(readFileSync(join(home, ".aegis/edge/node.key"), "utf8")).toBe("secret");
      },
    );

  withPython(
    "would succeed at each of these attempts without it",
    async () => {
      const free = join(scratch, "free");
      const failed: string[] = [];
      for (const name of attempts()) {
        furnish(free);
        const succeeded = await withDaemon(free, async (pid) => {
          // Below a parent that may be killed.
          const command = [...asUser, "/bin/sh", "-c", 'python3 "$@"; true', "sh", attacker, free, pid, name];
          const child = Bun.spawn(command, { stdout: "pipe" });
          const said = await new Response(child.stdout).text();
          await child.exited;
          return said !== "" && JSON.parse(said)[name] === true;
        });
        if (!succeeded) failed.push(name);
      }
      expect(failed).toEqual([]);
    },
    30_000,
  );

  withCompiler("works as it would without: names in the home, other folders, /tmp, pipes, children, git", async () => {
    expect((await sh('ls -A "$HOME"')).stdout).toBe(".aegis\n.config\n.local\nlink\nprojects\n");
    expect((await sh('cat "$HOME/.config/other/settings"; echo y > "$HOME/.config/other/new"')).exit).toBe(0);
    expect((await sh("echo 1 > b && mv b c && ln c d && cat d && rm c d")).stdout).toBe("1\n");
    expect((await sh("f=$(mktemp) && echo 2 > $f && (cat $f | tr 2 3) && rm $f")).stdout).toBe("3\n");
    expect((await sh('"$HOME/.local/bin/aegis"')).stdout).toBe("aegis\n");
    expect((await sh("sleep 9 & kill $! && wait $!; echo $?")).stdout).toBe("143\n");
    expect((await tool("/usr/bin/python3", "-c", "print(open('/etc/passwd').read()[:4])")).stdout).toBe("root\n");
    const commit = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m m";
    const git = await sh(`git init -q r && cd r && ${commit} && git log --format=%s`);
    expect(git.stdout || git.stderr).toBe("m\n");
  });

  needs(
    "root",
    "linux",
    "command:cc",
    "command:unshare",
    "file:/usr/sbin/chroot",
  )("is not started in a plain chroot, where nothing says what is mounted, and that is the reason given", async () => {
    const jail = join(scratch, "jail");
    for (const name of ["proc", "kept"]) mkdirSync(join(jail, name), { recursive: true });
    copyFileSync(launcher.path, join(jail, "aegis-launch"));
    const inside = `mount -t proc proc ${jail}/proc && exec /usr/sbin/chroot ${jail} /aegis-launch --protect /kept -- /aegis-launch --probe`;
    const { exit, stdout, stderr } = await run(["unshare", "-m", "/bin/sh", "-c", inside]);
    expect({ exit, stdout }).toEqual({ exit: 126, stdout: "" });
    expect(stderr).toContain("Invalid cross-device link"); // EXDEV, which start-failure.ts puts into words
  });

  withCompiler("works in a home whose parent may be entered and not listed, and finds no more there", async () => {
    const above = join(scratch, "entered");
    const below = join(above, "home");
    furnish(below);
    if (asUser.length > 0) Bun.spawnSync(["chown", "65534:65534", above]);
    chmodSync(above, 0o311);
    const words = ["--protect", join(below, ".aegis"), "--read-only", join(below, ".local/bin/aegis")];
    const script =
      "cat projects/a && echo y > projects/new && ls -A && .local/bin/aegis; echo; cat .aegis/edge/node.key; ls ..";
    const child = Bun.spawn([...asUser, launcher.path, ...words, "--", "/bin/sh", "-c", script], {
      cwd: below,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [said, complaints] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    chmodSync(above, 0o755);
    expect(said).toBe("a.aegis\n.config\n.local\nlink\nprojects\naegis\n\n");
    expect(complaints.match(/Permission denied/g)).toHaveLength(2);
  });

  needs(
    "root",
    "linux",
    "command:cc",
    "command:unshare",
  )("finds the key neither through another mount of the home nor of the folder", async () => {
    const [whole, part] = [join(scratch, "whole"), join(scratch, "part")];
    for (const folder of [whole, part]) mkdirSync(folder);
    const script = `cat ${whole}/projects/a; cat ${whole}/.aegis/edge/node.key ${part}/node.key`;
    const mounts = `mount --bind ${home} ${whole} && mount --bind ${home}/.aegis/edge ${part}`;
    const inside = behindShell("/bin/sh", "-c", script);
    const { stdout, stderr } = await run(["unshare", "-m", "sh", "-c", `${mounts} && "$@"`, "sh", ...inside]);
    expect(stdout).toBe("a");
    expect(stderr.match(/Permission denied/g)).toHaveLength(2);
  });

  withCompiler("sees by rules made before what has come to be since, and never what is closed", () => {
    const show = (path: string) => byRules("/bin/cat", join(home, path));
    expect(show("projects/a").stdout).toBe("a");
    mkdirSync(join(home, "newer"));
    writeFileSync(join(home, "newer/file"), "new");
    expect(show("newer/file").stdout).toBe("new");
    rmSync(join(home, "newer"), { recursive: true });
    mkdirSync(join(home, "newer"));
    writeFileSync(join(home, "newer/file"), "newest");
    expect(show("newer/file").stdout).toBe("newest");
    rmSync(join(home, "newer"), { recursive: true });
    // The identity itself is moved away and put back: what is protected is its place.
    renameSync(join(home, ".aegis"), join(home, "aside"));
    furnish(home);
    expect(show(".aegis/edge/node.key")).toMatchObject({ exit: 1, stdout: "" });
  });

  withCompiler("is confined all the same where rules given to it are none", () => {
    const words = [launcher.path, ...launcher.args({ command: "/bin/echo", args: ["started"] }, 4)];
    const child = Bun.spawnSync(words, { stdio: ["ignore", "pipe", "pipe", "ignore", "ignore"] as never });
    expect({ exit: child.exitCode, stdout: child.stdout?.toString() }).toEqual({ exit: 126, stdout: "" });
  });

  needs(
    "root",
    "linux",
    "command:cc",
    "command:unshare",
  )("does not find the key through a mount that is newer than the rules", async () => {
    const entry = join(scratch, "rules-probe.ts");
    // What lies in a folder that tools may use is theirs too.
    const whole = join(scratch, "later/deep");
    mkdirSync(whole, { recursive: true });
    const lines = [
      `import { openRules } from ${JSON.stringify(join(import.meta.dir, "../src/native/rules.ts"))};`,
      `const rules = await openRules(${JSON.stringify([parts])}, ${JSON.stringify({ protectedPaths, readOnlyPaths })});`,
      'if (typeof rules === "string") throw new Error(rules);',
      `const launch = ${JSON.stringify([launcher.path, "--ruleset-fd", "4", "--", "/bin/cat"])};`,
      "const show = (path) => {",
      '  const child = Bun.spawnSync([...launch, path], { stdio: ["ignore", "pipe", "pipe", "ignore", rules()] });',
      "  return [child.exitCode, child.stdout.toString()];",
      "};",
      // What changed a moment ago is looked at anew anyway.
      "await Bun.sleep(100);",
      `const before = show(${JSON.stringify(join(home, "projects/a"))});`,
      `Bun.spawnSync(["mount", "--bind", ${JSON.stringify(home)}, ${JSON.stringify(whole)}]);`,
      `const paths = ${JSON.stringify(["projects/a", ".aegis/edge/node.key"].map((path) => join(whole, path)))};`,
      "console.log(JSON.stringify([before, ...paths.map(show)]));",
    ];
    writeFileSync(entry, lines.join("\n"));
    const { stdout, stderr } = await run(["unshare", "-m", process.execPath, entry]);
    expect(JSON.parse(stdout || `"${stderr}"`)).toEqual([
      [0, "a"],
      [0, "a"],
      [1, ""],
    ]);
  });

  withCompiler("ends as the command did, and an absent one is told from one that may not run", async () => {
    expect(await sh("exit 42")).toMatchObject({ exit: 42, signal: null });
    expect(await sh("kill -SEGV $$")).toMatchObject({ signal: "SIGSEGV" });
    expect((await tool("/no/such")).exit).toBe(127);
    expect((await tool("/etc/passwd")).exit).toBe(126);
    const named = launcher.args({ command: "/bin/sh", args: ["-c", 'echo "$0"; exit 3'], name: "other" });
    expect(await run([launcher.path, ...named])).toMatchObject({ exit: 3, stdout: "other\n" });
    expect(await run([launcher.path, "--", "relative"])).toMatchObject({ exit: 64 });
    expect(await run([launcher.path, "--protect", "/", "--", "/bin/true"])).toMatchObject({ exit: 64 });
    expect(await run([launcher.path, "--unknown", "x", "--", "/bin/true"])).toMatchObject({ exit: 64 });
  });

  withCompiler("is not started at all when confining it fails", async () => {
    // The kernel stacks sixteen rulesets at most.
    const outer = Array.from({ length: 17 }, () => [launcher.path, "--protect", protectedPaths[0] ?? "", "--"]).flat();
    const { exit, stdout } = await run([...outer, ...behindShell("/bin/echo", "started")]);
    expect({ exit, stdout }).toEqual({ exit: 126, stdout: "" });
  });

  withCompiler("holds no descriptor of the daemon's and no signal that the daemon ignores", async () => {
    const look = "ls /proc/self/fd | tr '\\n' ' '; grep -E 'SigIgn|SigBlk' /proc/self/status | tr -d '\\n'";
    const daemon = `exec 7</etc/passwd; trap '' PIPE HUP; exec "$@"`;
    const { stdout } = await run(["/bin/bash", "-c", daemon, "bash", ...behindShell("/bin/sh", "-c", look)]);
    expect(stdout).toBe("0 1 2 3 SigBlk:\t0000000000000000SigIgn:\t0000000000000000"); // 3 is ls looking
  });
});

describe("nothing is left behind", () => {
  const mark = () => `mark-${Math.random().toString(36).slice(2)}`;
  /** Leaves the process group and the session, and does not go when asked. */
  const escapee = (name: string) => `(setsid sh -c 'trap "" TERM; while :; do sleep 30; done' ${name} & )`;

  withCompiler("by a command that ends: what left its group and session ends with it", async () => {
    const name = mark();
    const { exit, stdout } = await sh(`${escapee(name)}; sleep 0.1; echo done; exit 5`);
    expect({ exit, stdout }).toEqual({ exit: 5, stdout: "done\n" });
    expect(marked(name)).toEqual([]);
  });

  withCompiler("by one that is asked to stop: SIGTERM first, SIGKILL when the grace is over", async () => {
    const name = mark();
    const loop = "while :; do sleep 30 & wait; done";
    const polite = `trap 'echo stopping; exit 3' TERM; ${escapee(name)}; echo ready; ${loop}`;
    const child = Bun.spawn(behind("/bin/sh", "-c", polite), { stdout: "pipe" });
    let said = "";
    const reading = (async () => {
      for await (const chunk of child.stdout) said += Buffer.from(chunk).toString();
    })();
    await until(() => said === "ready\n");
    child.kill("SIGTERM");
    await reading;
    expect(said).toBe("ready\nstopping\n");
    expect(await child.exited).toBe(3);
    expect(marked(name)).toEqual([]);
  });

  withCompiler("by a daemon that is killed", async () => {
    const name = mark();
    const inside = behindShell("/bin/sh", "-c", `${escapee(name)}; sleep 30`, name);
    const daemon = Bun.spawn(["/bin/sh", "-c", '"$@" & wait', "sh", ...inside]);
    await until(() => marked(name).length > 3);
    daemon.kill("SIGKILL");
    await until(() => marked(name).length === 0);
  });

  withCompiler("by many that fork as fast as they are ended", async () => {
    const name = mark();
    const forking = `setsid sh -c 'trap "" TERM; while :; do sleep 0.01 & wait; done' ${name} &`;
    expect((await sh(`i=0; while [ $i -lt 40 ]; do (${forking}); i=$((i+1)); done; sleep 0.2`)).exit).toBe(0);
    expect(marked(name)).toEqual([]);
  });

  withCompiler("and how it ended is told on a descriptor of the caller's", async () => {
    const inside = behindShell("/bin/sh", "-c", "(setsid sleep 30 &); sleep 0.1");
    const [path = "", ...args] = inside;
    const { stdout } = await run(["sh", "-c", '"$@" 5>&1 >/dev/null', "sh", path, "--report-fd", "5", ...args]);
    expect(JSON.parse(stdout)).toEqual({ started: true, ended: 1, left: 0 });
  });

  withCompiler("nor started for a daemon that is gone", async () => {
    expect((await run([launcher.path, "--parent", "1", "--", "/bin/echo", "started"])).stdout).toBe("");
  });
});

describe("native parts", () => {
  withCompiler("are placed once, privately, and replaced when they are not what was built", async () => {
    const dir = join(scratch, "placed");
    const first = await placeNative("aegis-launch", dir);
    if (first.kind === "absent") throw new Error(first.why);
    expect([statSync(dir).mode & 0o777, statSync(first.path).mode & 0o777]).toEqual([0o700, 0o700]);
    const built = readFileSync(first.path);
    const inode = statSync(first.path).ino;
    await placeNative("aegis-launch", dir);
    expect(statSync(first.path).ino).toBe(inode);

    writeFileSync(first.path, "#!/bin/sh\nexit 0\n");
    writeFileSync(join(dir, "aegis-launch-0123456789abcdef"), "of another version");
    await placeNative("aegis-launch", dir);
    expect(readFileSync(first.path).equals(built)).toBe(true);
    chmodSync(first.path, 0o777);
    await placeNative("aegis-launch", dir);
    expect(statSync(first.path).mode & 0o777).toBe(0o700);
    rmSync(first.path);
    symlinkSync("/bin/true", first.path);
    await placeNative("aegis-launch", dir);
    expect(readFileSync(first.path).equals(built)).toBe(true);
    expect(readdirSync(dir)).toHaveLength(1);
  });

  needs(
    "root",
    "linux",
    "command:cc",
  )("are not placed in a folder of somebody else", async () => {
    const dir = join(scratch, "theirs");
    mkdirSync(dir);
    await runProgram("chown", ["65534", dir]);
    expect(placeNative("aegis-launch", dir)).rejects.toThrow("is not a directory of this user");
  });

  const program = (name: string, define: Record<string, string>, target?: string) => {
    const entry = join(scratch, `${name}.ts`);
    const find = join(import.meta.dir, "../src/native/find.ts");
    writeFileSync(
      entry,
      `import { placeNative } from ${JSON.stringify(find)};\nconsole.log(JSON.stringify(await placeNative("aegis-notify", process.argv[2])));\n`,
    );
    const outfile = join(scratch, name);
    compile({
      entry,
      outfile,
      bunTarget: `bun-${here}`,
      define,
      hardening,
      ...(target === undefined ? {} : { target }),
    });
    return async (dir: string) => JSON.parse((await runProgram(outfile, [dir])).stdout);
  };

  withCompiler("travel inside the executable", async () => {
    const dir = join(scratch, "unpacked");
    const answer = await program("carrier", { AEGIS_TARGET: here }, here)(dir);
    expect(answer.kind).toBe("placed");
    expect(
      readFileSync(answer.path).equals(readFileSync(join(import.meta.dir, "../dist/native", here, "aegis-notify"))),
    ).toBe(true);
  });

  test("that are missing from an executable are missed by name", async () => {
    const why = "there was no C compiler (cc) when this executable was built";
    const answer = await program("bare", { AEGIS_TARGET: here, AEGIS_NATIVE: "{}", AEGIS_NATIVE_MISSING: why })(
      scratch,
    );
    expect(answer).toEqual({ kind: "absent", why: process.platform === "linux" ? why : expect.any(String) });
  });

  test("of a target without a compiler are named, and the build goes on", () => {
    const path = process.env.PATH;
    process.env.PATH = "";
    try {
      expect(buildNative("linux-arm64")).toEqual({
        files: {},
        sums: {},
        missing: "there was no C compiler (aarch64-linux-gnu-gcc) when this executable was built",
      });
      expect(buildNative("windows-x64")).toEqual({ files: {}, sums: {}, missing: null });
    } finally {
      process.env.PATH = path;
    }
  });

  needs(
    "linux",
    "command:aarch64-linux-gnu-gcc",
    "command:file",
  )("are built for arm64 as well", async () => {
    const { files, missing } = buildNative("linux-arm64");
    expect(missing).toBeNull();
    const { stdout } = await runProgram("file", ["-b", ...Object.values(files)]);
    expect(stdout).toMatch(
      /^ELF 64-bit .*ARM aarch64.*statically linked.*\nELF 64-bit .*ARM aarch64.*\nELF 64-bit .*ARM aarch64/,
    );
  });

  needs(
    "linux",
    "command:cc",
    "command:objdump",
  )("ask for no newer glibc than the executable itself", async () => {
    const folder = join(import.meta.dir, "../dist/native", here);
    const { stdout } = await runProgram("objdump", [
      "-T",
      ...["notify", "rules", "trim"].map((name) => join(folder, `aegis-${name}`)),
    ]);
    const versions = [...stdout.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
    expect(versions.length).toBeGreaterThan(0);
    expect(Math.max(...versions)).toBeLessThanOrEqual(17);
  });
});

describe("the service manager", () => {
  withPython("hears from the main process, through a path or an abstract socket", async () => {
    for (const socket of [join(scratch, "notify"), `@aegis-${process.pid}`]) {
      const listener = Bun.spawn(["python3", join(support, "notify-socket.py"), socket, "2"], { stdout: "pipe" });
      const lines = listener.stdout.getReader();
      await lines.read(); // it listens
      const notifier = await openNotifier({ env: { NOTIFY_SOCKET: socket }, dirs: [parts], run: runProgram });
      expect(notifier?.how).toBe("addon");
      expect(await notifier?.send("READY=1\nSTATUS=connected")).toBeNull();
      expect(await notifier?.send("STOPPING=1")).toBeNull();
      await listener.exited;
      let heard = "";
      for (;;) {
        const { value, done } = await lines.read();
        if (done) break;
        heard += new TextDecoder().decode(value);
      }
      expect(
        heard
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line)),
      ).toEqual([
        ["READY=1\nSTATUS=connected", process.pid],
        ["STOPPING=1", process.pid],
      ]);
    }
  });

  withCompiler("that is gone makes a message, not an exception", async () => {
    const env = { NOTIFY_SOCKET: join(scratch, "nobody") };
    const notifier = await openNotifier({ env, dirs: [parts], run: runProgram });
    expect(await notifier?.send("READY=1")).toBe(`sd_notify to ${env.NOTIFY_SOCKET} failed with errno 2`);
  });

  test("is told through systemd-notify where there is no addon, and nobody is told where none listens", async () => {
    const asked: unknown[] = [];
    const warned: string[] = [];
    const notifier = await openNotifier({
      env: { NOTIFY_SOCKET: "/run/x", WATCHDOG_USEC: "10000000", WATCHDOG_PID: String(process.pid) },
      dirs: [],
      run: async (...call) => {
        asked.push(call);
        return { status: 1, stdout: "", stderr: "no\n" };
      },
      warn: (why) => warned.push(why),
    });
    expect(notifier).toMatchObject({ how: "command", watchdogMs: 5000 });
    expect(await notifier?.send("READY=1\nSTATUS=x y")).toBe("systemd-notify: no");
    expect(asked).toEqual([["systemd-notify", ["READY=1", "STATUS=x y"], { env: { NOTIFY_SOCKET: "/run/x" } }]]);
    expect(warned).toHaveLength(1);
    for (const env of [{}, { NOTIFY_SOCKET: "" }, { NOTIFY_SOCKET: "vsock:2:1" }])
      expect(await openNotifier({ env, dirs: [], run: runProgram })).toBeNull();
  });

  test("does not watch a child that inherited its environment", async () => {
    const env = { NOTIFY_SOCKET: "/run/x", WATCHDOG_USEC: "10000000", WATCHDOG_PID: "1" };
    expect(await openNotifier({ env, dirs: [], run: runProgram })).toMatchObject({ watchdogMs: null });
  });
});

describe("the working set", () => {
  withCompiler("shrinks when it is trimmed, and the process goes on", async () => {
    const entry = join(scratch, "trim-me.ts");
    const trim = join(import.meta.dir, "../src/native/trim.ts");
    const lines = [
      `import { trimWorkingSet as trim } from ${JSON.stringify(trim)};`,
      "const before = process.memoryUsage().rss;",
      `const trimmed = await trim([${JSON.stringify(parts)}], { deep: true });`,
      "const shrank = process.memoryUsage().rss < before / 2;",
      "console.log(JSON.stringify({ trimmed, shrank }));",
    ];
    writeFileSync(entry, lines.join("\n"));
    const { stdout, stderr } = await runProgram(process.execPath, [entry]);
    expect(JSON.parse(stdout || `"${stderr}"`)).toEqual({ trimmed: expect.any(Number), shrank: true });
  });
});

test("dist/native holds what a run from source uses", () => {
  if (usable) expect(existsSync(join(import.meta.dir, "../dist/native", here, "sums.json"))).toBe(true);
});
