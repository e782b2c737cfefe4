/**
 * `npm run test:release`: what `npm run release` left in dist/, on every platform that can be had here. macOS is read and
 * not run: no Apple machine has seen these files.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readMachO, signatureProblem } from "../../install/macho.ts";
import { build } from "../../install/setup.mjs";
import { installDebianPackages } from "../debian.mjs";
import { type Installation, installation } from "../support/installation.ts";
import { type Mirror, mirror } from "../support/mini-release.ts";
import { needs } from "../support/needs.ts";
import { type Wine, wine } from "../support/wine.ts";

installDebianPackages("release/debian-packages.txt");
build(process.execPath); // the controller and the operator's desk that the archives are tried against

const root = join(import.meta.dir, "../..");
const dist = join(root, "dist");
const scratch = mkdtempSync(join(tmpdir(), "aegis-matrix-"));

interface Manifest {
  version: string;
  commit: string;
  targets: {
    target: string;
    executable: { name: string; sha256: string; bytes: number };
    files: { name: string; sha256: string; bytes: number }[];
    minimum_macos?: string;
  }[];
}
const manifestPath = join(dist, "manifest.json");
if (!existsSync(manifestPath)) throw new Error("dist/manifest.json is missing. Try: npm run release");
const manifest = JSON.parse(readFileSync(manifestPath, "utf8")) as Manifest;
const { version } = manifest;
const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");
const sh = (command: string, cwd = scratch) =>
  Bun.spawnSync(["sh", "-c", command], { cwd, stdout: "pipe", stderr: "pipe" });

/** The same while this process goes on: it serves what the command downloads. */
async function live(command: string): Promise<{ exit: number; said: string }> {
  const child = Bun.spawn(["sh", "-c", command], { cwd: scratch, stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const said = await new Response(child.stdout).text();
  return { exit: await child.exited, said };
}

const figure = (text: string) => process.stderr.write(`figure: ${text}\n`);
const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** Unpacked, the folder of a target. */
const unpacked = (target: string) => join(scratch, `aegis-${version}-${target}`);
const executableOf = (target: string) => join(unpacked(target), target.startsWith("windows") ? "aegis.exe" : "aegis");

let site: Installation;
let windows: Wine | null = null;

beforeAll(async () => {
  for (const { target } of manifest.targets) {
    const name = join(dist, `aegis-${version}-${target}`);
    const done = target.startsWith("windows") ? sh(`unzip -q '${name}.zip'`) : sh(`tar -xf '${name}.tar.gz'`);
    if (done.exitCode !== 0) throw new Error(`${target}: ${done.stderr}`);
  }
  site = await installation();
});
afterAll(async () => {
  windows?.destroy();
  await site?.close();
  rmSync(scratch, { recursive: true, force: true });
});

describe("the release", () => {
  test("has every target, and its list is signed and right, to plain openssl and sha256sum", () => {
    expect(manifest.targets.map(({ target }) => target)).toEqual([
      "linux-x64",
      "linux-arm64",
      "darwin-x64",
      "darwin-arm64",
      "windows-x64",
    ]);
    expect(
      sh("openssl dgst -sha256 -verify release-key.pem -signature SHA256SUMS.sig SHA256SUMS", dist).stdout.toString(),
    ).toBe("Verified OK\n");
    expect(sh("sha256sum --quiet -c SHA256SUMS", dist).exitCode).toBe(0);
    for (const { target, executable, files } of manifest.targets) {
      expect(digest(executableOf(target))).toBe(executable.sha256);
      for (const { name, sha256 } of files) expect(digest(join(dist, name))).toBe(sha256);
    }
  });

  test("carries the launcher and the addons of its CPU in each executable for Linux", () => {
    for (const target of ["linux-x64", "linux-arm64"])
      for (const part of ["aegis-launch", "aegis-notify", "aegis-rules", "aegis-trim"])
        expect(readFileSync(executableOf(target)).includes(readFileSync(join(dist, "native", target, part)))).toBe(
          true,
        );
  });

  test("holds licences, notices, manual and completions beside each executable, and a bill with the runtime in it", () => {
    for (const { target } of manifest.targets) {
      const names = readdirSync(unpacked(target), { recursive: true, encoding: "utf8" });
      expect(names).toEqual(
        expect.arrayContaining([
          "LICENSE",
          "NOTICES",
          "README.md",
          "aegis.1",
          "completions/_aegis",
          "completions/aegis.bash",
          "completions/aegis.fish",
          "completions/aegis.ps1",
        ]),
      );
      if (target.startsWith("windows")) expect(names).toContain("nssm64.exe");
    }
    const bill = JSON.parse(readFileSync(join(dist, "aegis.cdx.json"), "utf8")) as { components: { name: string }[] };
    expect(bill.components.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["bun", "JavaScriptCore", "@grpc/grpc-js", "zod"]),
    );
  });

  needs(
    "command:mandoc",
    "command:zsh",
    "command:fish",
  )("has a manual page and completions that their readers take", () => {
    const folder = unpacked("linux-x64");
    expect(sh("mandoc -T lint -W error aegis.1", folder).stdout.toString()).toBe("");
    expect(sh("mandoc aegis.1 | col -b", folder).stdout.toString()).toContain("aegis edge enroll");
    for (const check of ["bash -n aegis.bash", "zsh -n _aegis", "fish --no-execute aegis.fish"])
      expect(sh(check, join(folder, "completions")).exitCode).toBe(0);
  });

  test("has xz archives of the same content, each at most 45 MB to download", () => {
    for (const { target, files } of manifest.targets.filter(({ target }) => !target.startsWith("windows"))) {
      const [gz, xz] = ["tar.gz", "tar.xz"].map((kind) =>
        sh(
          `${kind === "tar.gz" ? "gzip" : "xz"} -dc '${dist}/aegis-${version}-${target}.${kind}' | sha256sum`,
        ).stdout.toString(),
      );
      expect(gz).toBe(xz as string);
      expect(Math.min(...files.map(({ bytes }) => bytes))).toBeLessThanOrEqual(45_000_000);
    }
  });
});

describe("install.sh, with these archives from a mirror", () => {
  let web: Mirror;
  /** An executable of before, which has to survive. */
  const old = join(scratch, "old-aegis");
  const asNobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups env -i PATH=/usr/bin:/bin";
  /** Alone in its mounts, with a /usr/local/bin of its own. */
  const asRoot = (words: string) => live(`unshare -m sh -c 'mount -t tmpfs tmpfs /usr/local/bin && ${words}' 2>&1`);

  beforeAll(() => {
    web = mirror({ latest: dist, [`v${version}`]: dist });
    writeFileSync(old, "#!/bin/sh\necho aegis 0.0.1\n", { mode: 0o755 });
    sh(`cp '${dist}/install.sh' . && chmod 755 . install.sh`);
  });
  afterAll(() => web.stop());

  for (const shell of ["bash", "bash --posix", "dash", "zsh", "busybox ash", "mksh", "ksh93", "yash"])
    needs(
      "root",
      "command:curl",
      "command:setpriv",
      `command:${shell.split(" ")[0] ?? ""}`,
    )(`${shell}: as an ordinary user into ~/.local/bin, as root into /usr/local/bin`, async () => {
      const home = mkdtempSync(join(scratch, "home-"));
      sh(`chown nobody '${home}' && chmod 755 '${home}'`);
      const started = performance.now();
      const user = await live(
        `cat install.sh | ${asNobody} HOME='${home}' TMPDIR='${home}' AEGIS_BASE_URL=${web.url} ${shell} 2>&1`,
      );
      figure(`install.sh under ${shell}: ${seconds(started)}`);
      expect(user.said).toContain(`aegis ${version} is installed: ${home}/.local/bin/aegis`);
      expect(sh(`'${home}/.local/bin/aegis' --version`).stdout.toString()).toBe(`aegis ${version}\n`);
      expect(web.seen.at(-1)).toEndWith(".tar.xz");
      expect(sh(`find '${home}' -type f`).stdout.toString()).toBe(`${home}/.local/bin/aegis\n`);
      rmSync(home, { recursive: true });
      // Without xz, so that the other archive is taken too.
      const { said: system } = await asRoot(
        `mkdir p && ln -s $(ls -d /usr/bin/* | grep -v "/xz$") p && cat install.sh | PATH=$PWD/p AEGIS_BASE_URL=${web.url} ${shell}; rm -r p; stat -c %a:%U /usr/local/bin/aegis; /usr/local/bin/aegis --version`,
      );
      expect(system).toContain(`aegis ${version} is installed: /usr/local/bin/aegis`);
      expect(system).toEndWith(`755:root\naegis ${version}\n`);
      expect(web.seen.at(-1)).toEndWith(".tar.gz");
    });

  needs("command:curl")("cut off wherever, altered or absent, they leave what was there", async () => {
    const folder = join(scratch, "cut");
    mkdirSync(folder);
    cpSync(old, join(folder, "aegis"));
    const refused = async (words: string, env = "") => {
      const run = await live(`AEGIS_BASE_URL=${web.url} AEGIS_INSTALL_DIR='${folder}' ${env} sh install.sh 2>&1`);
      expect(run.said).toContain(words);
      expect(run.exit).toBe(1);
      expect(readdirSync(folder)).toEqual(["aegis"]);
      expect(readFileSync(join(folder, "aegis")).equals(readFileSync(old))).toBe(true);
    };
    const sizes = manifest.targets[0]?.files.map(({ bytes }) => bytes) ?? [];
    for (const cut of [1, 512, 1 << 20, 17 << 20, Math.min(...sizes) - 1]) {
      web.cutAfter = cut;
      await refused("is damaged: its SHA-256 is");
    }
    web.cutAfter = null;
    await refused("cannot download", "AEGIS_VERSION=7.7.7");
    const altered = join(scratch, "altered");
    sh(`mkdir altered && cp '${dist}'/SHA256SUMS* '${dist}'/*linux-x64.tar.* altered`);
    for (const name of readdirSync(altered).filter((name) => name.includes(".tar."))) {
      const bytes = readFileSync(join(altered, name));
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
      writeFileSync(join(altered, name), bytes);
    }
    const run = await live(`AEGIS_INSTALL_DIR='${folder}' sh install.sh --from altered 2>&1`);
    expect(run.said).toContain("is damaged: its SHA-256 is");
    expect(readFileSync(join(folder, "aegis")).equals(readFileSync(old))).toBe(true);
  });
});

describe("macOS, read and not run", () => {
  for (const target of ["darwin-x64", "darwin-arm64"])
    test(`${target} is signed page by page, asks for macOS 13 and links nothing of ours`, () => {
      const image = readFileSync(executableOf(target));
      expect(signatureProblem(image)).toBeNull();
      expect(readMachO(image).minimumOs).toBe("13.0");
      image[image.length >> 1] = (image[image.length >> 1] ?? 0) ^ 1;
      expect(signatureProblem(image)).toMatch(/^page \d+ of \d+ is not what was signed$/);
    });

  needs("command:llvm-objdump")("their load commands name only libraries of the system", () => {
    for (const target of ["darwin-x64", "darwin-arm64"]) {
      const said = sh(`llvm-objdump --macho --dylibs-used '${executableOf(target)}'`).stdout.toString();
      const libraries = said
        .split("\n")
        .slice(1)
        .map((line) => line.trim().split(" ")[0] ?? "")
        .filter(Boolean);
      expect(libraries.length).toBeGreaterThan(0);
      expect(libraries.filter((path) => !/^\/(?:usr\/lib|System\/Library)\//.test(path))).toEqual([]);
    }
  });
});

/** A folder whose owner would like to run code in whatever is started there. */
function hostile(): string {
  const folder = mkdtempSync(join(scratch, "hostile-"));
  writeFileSync(join(folder, ".env"), "AEGIS_HOME=/from-dotenv\nAEGIS_OUTPUT=from-dotenv\n");
  writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(join(folder, "preload.ts"), 'require("node:fs").writeFileSync("ran", "");\n');
  return folder;
}

test("linux-x64 answers, and takes no orders from its folder", () => {
  const folder = hostile();
  const said = ["--version", "edge status"].map((words) => sh(`'${executableOf("linux-x64")}' ${words}`, folder));
  expect(said[0]?.stdout.toString()).toBe(`aegis ${version}\n`);
  expect(said.map(({ stdout, stderr }) => `${stdout}${stderr}`).join("")).not.toContain("from-dotenv");
  expect(existsSync(join(folder, "ran"))).toBe(false);
});

const emulator = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"];

describe("linux-arm64 under emulation", () => {
  needs("command:qemu-aarch64-static", "file:/usr/aarch64-linux-gnu/lib/libc.so.6")(
    "answers, takes no orders from its folder, enrolls and runs a call",
    async () => {
      const folder = hostile();
      const said = sh(`${emulator.join(" ")} '${executableOf("linux-arm64")}' --version`, folder);
      expect(said.stdout.toString()).toBe(`aegis ${version}\n`);
      const status = sh(`${emulator.join(" ")} '${executableOf("linux-arm64")}' edge status`, folder);
      expect(`${status.stdout}${status.stderr}`).not.toContain("from-dotenv");
      expect(existsSync(join(folder, "ran"))).toBe(false);
      const host = await site.addHost("arm", { before: emulator, executable: executableOf("linux-arm64") });
      expect(await site.desk.run("edge", "exec", "arm", "--", "hostname")).toMatchObject({ exit: 0 });
      expect(await host.daemon?.stop()).toBe(0);
    },
  );
});

describe("windows-x64 under wine", () => {
  needs("command:wine", "command:x86_64-w64-mingw32-gcc")(
    "answers, joins the user's Path, enrolls and runs a call",
    async () => {
      windows = await wine();
      const programs = join(windows.drive, "programs/aegis");
      cpSync(unpacked("windows-x64"), programs, { recursive: true });
      const executable = join(programs, "aegis.exe");
      const folder = hostile();
      expect(await windows.run([executable, "--version"], 60_000, folder)).toEqual({
        exit: 0,
        said: `aegis ${version}\n`,
      });
      const status = await windows.run([executable, "edge", "status"], 60_000, folder);
      expect(status.said).not.toContain("from-dotenv");
      expect(existsSync(join(folder, "ran"))).toBe(false);

      expect(await windows.run([executable, "install", "path"])).toMatchObject({ exit: 0 });
      const next = await windows.run(["cmd", "/c", "echo", "%PATH%"]);
      expect(next.said).toContain("C:\\programs\\aegis");
      expect((await windows.run([executable, "install", "path"])).said).toContain("needs no change");

      writeFileSync(join(windows.drive, "token.txt"), await site.token("win"));
      const enrolled = await windows.run([
        executable,
        "edge",
        "enroll",
        "--token-file",
        "C:/token.txt",
        "--no-service",
        "--non-interactive",
      ]);
      expect(enrolled.said).toContain("next: aegis edge run");
      const daemon = windows.start([executable, "edge", "run"]);
      await daemon.says('"event":"connected"');
      const ran = await site.desk.run("edge", "exec", "win", "--", "hostname");
      expect(ran).toMatchObject({ exit: 0, stderr: "" });
      expect(ran.stdout.trim()).not.toBe("");
    },
  );

  needs("command:wine", "command:x86_64-w64-mingw32-gcc")(
    "NSSM keeps it running: enrolled, called, restarted in order, started again after a crash, its log rotated, removed",
    async () => {
      windows?.destroy();
      windows = await wine();
      const programs = join(windows.drive, "Program Files/aegis");
      cpSync(unpacked("windows-x64"), programs, { recursive: true });
      const executable = join(programs, "aegis.exe");
      const log = join(windows.drive, "users", process.env.USER ?? "root", ".aegis/edge/logs/aegis-edge.err.log");
      const events = (name: string) => readFileSync(log, "utf8").split(`"event":"${name}"`).length - 1;
      writeFileSync(join(windows.drive, "token.txt"), await site.token("nssm"));
      const enroll = [executable, "edge", "enroll", "--token-file", "C:/token.txt", "--non-interactive"];
      expect((await windows.run(enroll, 120_000)).said).toContain("the service nssm keeps it running; it is connected");
      expect(await site.desk.run("edge", "exec", "nssm", "--", "hostname")).toMatchObject({ exit: 0, stderr: "" });
      const service = (...words: string[]) => windows?.run([executable, "edge", "service", ...words], 120_000);
      const connections = events("connected");
      await Bun.sleep(2_000); // what ends within 1.5 s NSSM takes for a failed start
      expect(windows.kill(/aegis\.exe.* edge run/)).toBeGreaterThan(0);
      // Asked as a person would; a wine in which nothing else runs may end its service manager.
      for (let look = 0; look < 30 && events("connected") === connections; look++) {
        await service("status");
        await Bun.sleep(1_000);
      }
      expect(events("connected")).toBeGreaterThan(connections);

      expect((await service("install"))?.said).toContain("connected  yes");
      expect((await service("restart"))?.said).toBe("restarted and connected\n");
      expect(events("stopped")).toBeGreaterThan(0); // it was asked to stop, and did

      expect((await service("logs", "--lines", "500"))?.said).toContain('"event":"connected"');
      const nssm = (...words: string[]) => windows?.run([join(programs, "nssm64.exe"), ...words]);
      expect((await nssm("get", "aegis-edge", "AppRotateBytes"))?.said.replace(/\0/g, "")).toContain("10485760");
      // With less than it has written already, the log goes aside at the next start, under a name with the time.
      expect((await nssm("set", "aegis-edge", "AppRotateBytes", "100"))?.exit).toBe(0);
      expect((await service("restart"))?.said).toBe("restarted and connected\n");
      const logs = readdirSync(join(log, ".."));
      expect(logs.filter((name) => /^aegis-edge\.err-\d{8}T\d{6}.*\.log$/.test(name)).length).toBeGreaterThan(0);
      expect(logs).toContain("aegis-edge.err.log");
      expect((await service("status"))?.said).toContain("running");
      expect((await service("uninstall"))?.said).toBe("removed aegis-edge (nssm)\n");
      expect((await service("uninstall"))?.said).toBe("no service of ours is installed\n");
      expect((await service("status"))?.exit).toBe(1);
    },
  );

  needs("command:wrestool", "command:icotool")("its executable shows Explorer its name, version and icon", () => {
    const image = executableOf("windows-x64");
    const described = sh(`wrestool -x --raw --type=version '${image}'`).stdout;
    for (const text of ["AEGIS edge daemon, controller and command line", version, "aegis.exe", "100monkeys.ai"])
      expect(described.includes(Buffer.from(text, "utf16le"))).toBe(true);
    const icons = sh(`wrestool -x --type=group_icon '${image}' | icotool -l /dev/stdin`).stdout.toString();
    for (const size of [16, 32, 48]) expect(icons).toContain(`--width=${size} --height=${size} --bit-depth=32`);
  });
});

// Last, because it takes as long as everything else.
test("the release comes out the same, byte for byte, from another folder", () => {
  const dirty = sh(
    "git status --porcelain -- src proto install package-lock.json README.md LICENSE",
    root,
  ).stdout.toString();
  expect(dirty).toBe("");
  // What lies in dist/ is one run, and this is the other.
  expect(manifest.commit).toBe(sh("git rev-parse --short=12 HEAD", root).stdout.toString().trim());
  const folder = join(scratch, "a longer name/two");
  mkdirSync(folder, { recursive: true });
  expect(sh(`git clone -q '${root}' .`, folder).exitCode).toBe(0);
  // Installed there as everybody has it: a link would lead both runs to the same files, by the same name.
  expect(sh(`cp -a '${root}/node_modules' .`, folder).exitCode).toBe(0);
  cpSync(join(root, "install/runtimes/node_modules"), join(folder, "install/runtimes/node_modules"), {
    recursive: true,
  });
  const started = performance.now();
  const built = sh(`'${process.execPath}' install/release.ts`, folder);
  expect(built.stderr.toString()).toContain("signed with");
  expect(built.exitCode).toBe(0);
  figure(`build of five targets: ${seconds(started)}`);
  for (const name of ["SHA256SUMS", "SHA256SUMS.sig"])
    expect(readFileSync(join(folder, "dist", name)).equals(readFileSync(join(dist, name)))).toBe(true);
}, 3_600_000); // most of it xz, four times a minute of a processor
