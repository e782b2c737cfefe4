/** The first thirty seconds: install.sh against a local mirror, in several shells, with everything that can go wrong. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import {
  hostTarget,
  installScript,
  type MiniRelease,
  type Mirror,
  miniRelease,
  mirror,
  sign,
} from "./support/mini-release.ts";
import { needs } from "./support/needs.ts";
import { tinyproxy } from "./support/proxies.ts";

const root = join(import.meta.dir, "..");
const scratch = mkdtempSync(join(tmpdir(), "aegis-installer-"));
/** Where every user of these tests can read it, which may not be so of the project. */
const script = join(scratch, "install.sh");
/** Of these tests alone, and open to every user as /tmp is. */
const temporary = join(scratch, "tmp");
let release: MiniRelease;
let older: MiniRelease;
let web: Mirror;

/** Stands for an older aegis: it answers --version and nothing else. */
const olderVersion = "0.0.9";

beforeAll(() => {
  copyFileSync(installScript, script);
  mkdirSync(temporary);
  chmodSync(temporary, 0o1777);
  chmodSync(script, 0o755);
  release = miniRelease(manifest.version);
  const fake = join(scratch, "old-aegis");
  writeFileSync(fake, `#!/bin/sh\necho "aegis ${olderVersion}"\n`, { mode: 0o755 });
  older = miniRelease(olderVersion, fake);
  web = mirror({
    latest: release.folder,
    [`v${manifest.version}`]: release.folder,
    [`v${olderVersion}`]: older.folder,
  });
  chmodSync(scratch, 0o755);
});
afterAll(() => {
  web.stop();
  for (const folder of [scratch, release.folder, older.folder]) rmSync(folder, { recursive: true, force: true });
});

interface Asked {
  shell?: string[];
  args?: string[];
  env?: Record<string, string>;
  /** Piped to the shell instead of naming the script. */
  input?: string;
  as?: string[];
}

async function install({ shell = ["sh"], args = [], env = {}, input, as = [] }: Asked) {
  const command = input === undefined ? [...shell, script, ...args] : [...shell, "-s", "--", ...args];
  const child = Bun.spawn([...as, ...command], {
    cwd: scratch,
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", TMPDIR: temporary, AEGIS_BASE_URL: web.url, ...env },
    stdin: input === undefined ? "ignore" : Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { exit: await child.exited, said: stdout + stderr };
}

let count = 0;
const newFolder = (): string => join(scratch, `to-${++count}`);
const versionOf = (folder: string) => Bun.spawnSync([join(folder, "aegis"), "--version"]).stdout.toString();

/** Tests that download. */
const online = needs("command:curl");

describe("a new installation", () => {
  for (const shell of [["bash"], ["bash", "--posix"], ["dash"], ["zsh"], ["busybox", "ash"]])
    needs(`command:${shell[0] ?? ""}`, "command:curl")(`in ${shell.join(" ")}, piped as the page says`, async () => {
      const folder = newFolder();
      const { exit, said } = await install({
        shell,
        input: readFileSync(script, "utf8"),
        env: { AEGIS_INSTALL_DIR: folder },
      });
      expect(said).toContain(`aegis ${manifest.version} is installed: ${folder}/aegis`);
      expect(said).toContain(`${folder} is not in your PATH yet`);
      expect(said).toContain("aegis edge enroll TOKEN");
      expect(exit).toBe(0);
      expect(versionOf(folder)).toBe(`aegis ${manifest.version}\n`);
      expect(readdirSync(folder)).toEqual(["aegis"]);
      expect(statSync(join(folder, "aegis")).mode & 0o777).toBe(0o755);
      rmSync(folder, { recursive: true });
    });

  test("from a folder or a file needs no network", async () => {
    const before = web.seen.length;
    for (const from of [release.folder, join(release.folder, release.archive)]) {
      const folder = newFolder();
      expect(await install({ args: ["--from", from], env: { AEGIS_INSTALL_DIR: folder } })).toMatchObject({ exit: 0 });
      expect(versionOf(folder)).toBe(`aegis ${manifest.version}\n`);
      rmSync(folder, { recursive: true });
    }
    expect(web.seen.length).toBe(before);
  });

  needs("command:xz")("prefers the xz archive where xz is, and takes the gzip one where it is not", async () => {
    const both = mkdtempSync(join(scratch, "both-"));
    const xz = older.archive.replace(".gz", ".xz");
    copyFileSync(join(older.folder, older.archive), join(both, older.archive));
    const packed = Bun.spawnSync(["sh", "-c", `gzip -dc ${older.archive} | xz > ${xz}`], { cwd: both });
    expect(packed.exitCode).toBe(0);
    sign(both, [older.archive, xz]);
    const dry = (env: Record<string, string>) =>
      install({ args: ["--dry-run", "--from", both], env: { AEGIS_INSTALL_DIR: newFolder(), ...env } });
    expect((await dry({})).said).toContain(xz);
    expect((await dry({ PATH: withoutCommands("xz") })).said).toContain(older.archive);
  });

  needs("root", "command:setpriv")("of an ordinary user goes to ~/.local/bin", async () => {
    const home = mkdtempSync(join(scratch, "home-"));
    Bun.spawnSync(["chown", "nobody", home]);
    const as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    const asked = await install({ as, env: { HOME: home }, args: ["--from", release.folder] });
    expect(asked).toMatchObject({ exit: 0, said: expect.stringContaining(`${home}/.local/bin/aegis`) });
    const nowhere = await install({ as, env: {} });
    expect(nowhere).toMatchObject({
      exit: 1,
      said: expect.stringContaining("HOME is not set and /usr/local/bin cannot be written"),
    });
  });

  needs("command:wget", "command:openssl")("needs neither curl nor sha256sum where wget and openssl are", async () => {
    const folder = newFolder();
    const env = { PATH: withoutCommands("curl", "sha256sum", "shasum"), AEGIS_INSTALL_DIR: folder };
    expect(await install({ env: { ...env, AEGIS_VERSION: olderVersion } })).toMatchObject({ exit: 0 });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
    web.cutAfter = 100;
    const cut = await install({ env });
    web.cutAfter = null;
    expect(cut).toMatchObject({ exit: 1, said: expect.stringContaining("is damaged") });
    const absent = await install({ env: { ...env, AEGIS_VERSION: "7.7.7" } });
    expect(absent).toMatchObject({ exit: 1, said: expect.stringContaining("cannot download") });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
  });

  for (const [downloader, other] of [
    ["curl", "wget"],
    ["wget", "curl"],
  ] as const)
    needs("command:script", `command:${downloader}`)(
      `shows ${downloader}'s progress on a terminal, and none elsewhere`,
      async () => {
        const path = withoutCommands(other);
        const env = () => ({ PATH: path, AEGIS_VERSION: olderVersion, AEGIS_INSTALL_DIR: newFolder() });
        expect((await install({ env: env() })).said).not.toContain("100");
        const child = Bun.spawn(["script", "-qec", `sh ${script}`, "/dev/null"], {
          cwd: scratch,
          env: { AEGIS_BASE_URL: web.url, ...env() },
          stdin: "ignore",
          stdout: "pipe",
        });
        expect(await new Response(child.stdout).text()).toContain("100");
        expect(await child.exited).toBe(0);
      },
    );

  test("has modes of its own whatever the umask, and is written through no link", async () => {
    for (const umask of ["000", "077"]) {
      const folder = join(newFolder(), "bin");
      const input = `umask ${umask}; sh ${script} --from ${older.folder}\n`;
      expect(await install({ input, env: { AEGIS_INSTALL_DIR: folder } })).toMatchObject({ exit: 0 });
      expect(statSync(folder).mode & 0o777).toBe(0o755);
      expect(statSync(join(folder, "aegis")).mode & 0o777).toBe(0o755);
    }
    const folder = newFolder();
    mkdirSync(folder);
    writeFileSync(join(folder, "victim"), "untouched");
    symlinkSync("victim", join(folder, "aegis"));
    await install({ args: ["--from", older.folder], env: { AEGIS_INSTALL_DIR: folder } });
    expect(readFileSync(join(folder, "victim"), "utf8")).toBe("untouched");
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
  });

  test("restarts the service when it is asked to, and says so when that fails", async () => {
    for (const status of [0, 5]) {
      const fake = join(scratch, "restarting-aegis");
      const version = `[ "$1" = --version ] && echo "aegis ${olderVersion}" && exit`;
      writeFileSync(fake, `#!/bin/sh\n${version}\necho "asked: $*"; exit ${status}\n`, { mode: 0o755 });
      const from = miniRelease(olderVersion, fake);
      const env = { AEGIS_INSTALL_DIR: newFolder() };
      const silent = await install({ args: ["--from", from.folder], env });
      expect(silent.said).not.toContain("asked:");
      const asked = await install({ args: ["--restart", "--from", from.folder], env });
      expect(asked.said).toContain("asked: edge service restart");
      expect(asked.said.includes("the service did not restart")).toBe(status !== 0);
      expect(asked.exit).toBe(status === 0 ? 0 : 1);
      rmSync(from.folder, { recursive: true });
    }
  });

  needs(
    "root",
    "command:tinyproxy",
    "command:curl",
  )("goes through a proxy", async () => {
    const proxy = await tinyproxy();
    const folder = newFolder();
    const env = { AEGIS_INSTALL_DIR: folder, http_proxy: `http://127.0.0.1:${proxy.port}`, no_proxy: "" };
    expect(await install({ env })).toMatchObject({ exit: 0 });
    await proxy.stop();
    expect(await install({ env })).toMatchObject({
      exit: 1,
      said: expect.stringContaining("behind a proxy set https_proxy"),
    });
    rmSync(folder, { recursive: true });
  });
});

/** A PATH that has everything of /usr/bin and /bin but these commands. */
function withoutCommands(...names: string[]): string {
  const folder = mkdtempSync(join(scratch, "path-"));
  const script = `for d in /usr/sbin /usr/bin /sbin /bin; do for f in "$d"/*; do n=\${f##*/}; [ -e ${folder}/"$n" ] || ln -s "$f" ${folder}/"$n"; done; done`;
  Bun.spawnSync(["sh", "-c", script]);
  for (const name of names) rmSync(join(folder, name), { force: true });
  return folder;
}

/** A PATH in which `name` says `words`. */
function pretending(name: string, words: string): string {
  const folder = mkdtempSync(join(scratch, "fake-"));
  writeFileSync(join(folder, name), `#!/bin/sh\n${words}\n`, { mode: 0o755 });
  return `${folder}:/usr/sbin:/usr/bin:/sbin:/bin`;
}

describe("what is there already", () => {
  online("is upgraded, downgraded by name, and replaced while it runs", async () => {
    const folder = newFolder();
    const env = { AEGIS_INSTALL_DIR: folder };
    expect(await install({ env: { ...env, AEGIS_VERSION: olderVersion } })).toMatchObject({ exit: 0 });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
    const upgraded = await install({ env });
    expect(upgraded.said).toContain(`It replaces aegis ${olderVersion}`);
    expect(versionOf(folder)).toBe(`aegis ${manifest.version}\n`);

    const running = Bun.spawn([join(folder, "aegis"), "controller", "start", "--data-dir", "/nonexistent"], {
      stdout: "ignore",
      stderr: "ignore",
    });
    expect(await install({ env: { ...env, AEGIS_VERSION: olderVersion } })).toMatchObject({ exit: 0 });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
    await running.exited;
    expect(readdirSync(folder)).toEqual(["aegis"]);
  });

  online("is removed by --uninstall, which names what stays and refuses while a service needs it", async () => {
    const folder = newFolder();
    const home = mkdtempSync(join(scratch, "home-"));
    const env = { AEGIS_INSTALL_DIR: folder, HOME: home };
    await install({ env: { ...env, AEGIS_VERSION: olderVersion } });
    mkdirSync(join(home, ".aegis"));
    mkdirSync(join(home, ".config/systemd/user"), { recursive: true });
    const unit = join(home, ".config/systemd/user/aegis-edge.service");
    writeFileSync(unit, "");
    const refused = await install({ args: ["--uninstall"], env });
    expect(refused).toMatchObject({ exit: 1, said: expect.stringContaining("aegis edge service uninstall") });
    expect(existsSync(join(folder, "aegis"))).toBe(true);
    rmSync(unit);
    expect((await install({ args: ["--uninstall", "--dry-run"], env })).said).toContain("would remove");
    expect(existsSync(join(folder, "aegis"))).toBe(true);
    const removed = await install({ args: ["--uninstall"], env });
    expect(removed).toMatchObject({ exit: 0, said: expect.stringContaining(`stay in ${home}/.aegis`) });
    expect(existsSync(join(folder, "aegis"))).toBe(false);
  });
});

describe("nothing is placed when", () => {
  /** Installs over an older one with `asked`; the older one must survive. */
  async function survives(asked: Asked, words: string, exit = 1): Promise<void> {
    const folder = newFolder();
    mkdirSync(folder);
    copyFileSync(join(scratch, "old-aegis"), join(folder, "aegis"));
    const result = await install({ ...asked, env: { AEGIS_INSTALL_DIR: folder, ...asked.env } });
    expect(result).toMatchObject({ exit, said: expect.stringContaining(words) });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
    expect(readdirSync(folder)).toEqual(["aegis"]);
    expect(readdirSync(temporary)).toEqual([]);
  }

  /** A copy of the release with one file changed. */
  function tampered(change: (folder: string) => void): string {
    const folder = mkdtempSync(join(scratch, "tampered-"));
    for (const name of readdirSync(release.folder)) copyFileSync(join(release.folder, name), join(folder, name));
    change(folder);
    return folder;
  }
  const flip = (path: string, at: number) => {
    const bytes = readFileSync(path);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
  };

  test("the archive was altered", () =>
    survives(
      { args: ["--from", tampered((folder) => flip(join(folder, release.archive), 5000))] },
      "is damaged: its SHA-256 is",
    ));
  test("the list was altered", () =>
    survives(
      { args: ["--from", tampered((folder) => flip(join(folder, "SHA256SUMS"), 3))] },
      "is not signed by the aegis release key",
    ));
  test("the signature was altered", () =>
    survives({ args: ["--from", tampered((folder) => flip(join(folder, "SHA256SUMS.sig"), 20))] }, "is not signed"));
  test("the signature is missing", () =>
    survives(
      { args: ["--from", tampered((folder) => rmSync(join(folder, "SHA256SUMS.sig")))] },
      "SHA256SUMS.sig is missing",
    ));
  test("the archive is not in the list", () =>
    survives(
      {
        args: [
          "--from",
          join(
            tampered((folder) =>
              copyFileSync(join(folder, release.archive), join(folder, `aegis-9.9.9-${hostTarget}.tar.gz`)),
            ),
            `aegis-9.9.9-${hostTarget}.tar.gz`,
          ),
        ],
      },
      "is not in the signed list",
    ));
  online("a mirror serves another version than was asked for", () => {
    const wrong = mirror({ "v9.9.9": release.folder });
    return survives(
      { env: { AEGIS_BASE_URL: wrong.url, AEGIS_VERSION: "9.9.9" } },
      `this is aegis ${manifest.version}, not the 9.9.9`,
    ).finally(() => wrong.stop());
  });
  online("there is no such version", () => survives({ env: { AEGIS_VERSION: "7.7.7" } }, "cannot download"));
  online("nobody answers", () =>
    survives(
      { env: { AEGIS_BASE_URL: "http://127.0.0.1:1" } },
      "cannot download http://127.0.0.1:1/releases/latest/SHA256SUMS",
    ),
  );
  test("the address is not https", () =>
    survives({ env: { AEGIS_BASE_URL: "http://mirror.example" } }, "is not an https address"));
  online("the download is cut off, wherever", async () => {
    for (const cut of [0, 1, 4096, 10_000_000]) {
      web.cutAfter = cut;
      await survives({}, cut === 0 ? "" : "is damaged");
    }
    web.cutAfter = null;
  });
  test("the script itself is cut off, wherever", async () => {
    const text = readFileSync(script, "utf8");
    const folder = newFolder();
    // Each byte of the last line, and places all over the rest.
    const tail = [...'{ main "$@"; }'].map((_, index) => text.length - 2 - index);
    const cuts = [...tail, ...Array.from({ length: 24 }, (_, index) => Math.floor((text.length * index) / 24))];
    for (const cut of cuts) {
      await install({
        shell: [cut % 2 === 0 ? "bash" : "sh"],
        input: text.slice(0, cut),
        args: ["--from", older.folder],
        env: { AEGIS_INSTALL_DIR: folder },
      });
      expect(existsSync(folder)).toBe(false);
    }
  });
  test("openssl is missing", () => survives({ env: { PATH: withoutCommands("openssl") } }, "openssl is not here"));
  test("neither curl nor wget is there", () =>
    survives({ env: { PATH: withoutCommands("curl", "wget") } }, "neither curl nor wget is here"));
  test("the processor is unknown", () =>
    survives(
      { env: { PATH: pretending("uname", '[ "$1" = -m ] && echo riscv64 || echo Linux') } },
      "there is no aegis for the processor riscv64",
    ));
  test("the system is unknown", () =>
    survives(
      { env: { PATH: pretending("uname", '[ "$1" = -m ] && echo x86_64 || echo FreeBSD') } },
      "there is no aegis for FreeBSD",
    ));
  test("the system uses musl", () =>
    survives(
      {
        env: {
          PATH: `${pretending("getconf", "exit 1").split(":")[0]}:${pretending("ldd", "echo musl libc >&2; exit 1")}`,
        },
      },
      "this system uses musl; aegis needs glibc 2.17 or newer",
    ));
  test("the place is a folder", async () => {
    const folder = newFolder();
    mkdirSync(join(folder, "aegis"), { recursive: true });
    const asked = await install({ args: ["--from", older.folder], env: { AEGIS_INSTALL_DIR: folder } });
    expect(asked).toMatchObject({ exit: 1, said: expect.stringContaining(`${folder}/aegis is a folder`) });
    expect(readdirSync(join(folder, "aegis"))).toEqual([]);
  });
  test("Homebrew owns what is there", async () => {
    const folder = newFolder();
    const cellar = join(folder, "Cellar/aegis-cli/0.1.0/bin");
    mkdirSync(cellar, { recursive: true });
    copyFileSync(join(scratch, "old-aegis"), join(cellar, "aegis"));
    symlinkSync("Cellar/aegis-cli/0.1.0/bin/aegis", join(folder, "aegis"));
    for (const args of [["--from", older.folder], ["--uninstall"]])
      expect(await install({ args, env: { AEGIS_INSTALL_DIR: folder } })).toMatchObject({
        exit: 1,
        said: expect.stringContaining("brew upgrade aegis-cli"),
      });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
  });
  test("the release is older than what is there, and was not asked for by name", async () => {
    for (const [before, refused] of [
      [manifest.version, true],
      ["10.0.0", true],
      ["0.0.10", true],
      [`${olderVersion}-rc.1`, false],
      [olderVersion, false],
      ["0.0.8", false],
    ] as const) {
      const folder = newFolder();
      mkdirSync(folder);
      writeFileSync(join(folder, "aegis"), `#!/bin/sh\necho "aegis ${before}"\n`, { mode: 0o755 });
      const env = { AEGIS_INSTALL_DIR: folder };
      const { exit, said } = await install({ args: ["--from", older.folder], env });
      expect(exit).toBe(refused ? 1 : 0);
      expect(said.includes(`offers ${olderVersion}, which is older than the aegis ${before}`)).toBe(refused);
      expect(versionOf(folder)).toBe(`aegis ${refused ? before : olderVersion}\n`);
      if (refused)
        expect(await install({ args: ["--from", join(older.folder, older.archive)], env })).toMatchObject({ exit: 0 });
    }
  });
  needs("command:curl")("a list never ends", () => {
    const piece = new Uint8Array(1 << 16);
    const endless = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response(new ReadableStream({ pull: (controller) => controller.enqueue(piece) })),
    });
    return survives({ env: { AEGIS_BASE_URL: `http://127.0.0.1:${endless.port}` } }, "cannot download").finally(() =>
      endless.stop(true),
    );
  });
  test("glibc is too old", () =>
    survives(
      { env: { PATH: pretending("getconf", "echo glibc 2.12") } },
      "this system has glibc 2.12; aegis needs 2.17 or newer",
    ));
  test("an option is unknown", () => survives({ args: ["--frm", "x"] }, "unknown option --frm", 2));
  test("the folder is not absolute", () =>
    survives({ env: { AEGIS_INSTALL_DIR: "bin" } }, "is not an absolute path").catch((error) => {
      if (!String(error).includes("ENOENT")) throw error;
    }));

  needs("root", "command:setpriv")("the folder cannot be written", async () => {
    const folder = newFolder();
    mkdirSync(folder);
    copyFileSync(join(scratch, "old-aegis"), join(folder, "aegis"));
    const as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    const result = await install({
      as,
      args: ["--from", release.folder],
      env: { AEGIS_INSTALL_DIR: folder, HOME: "/nonexistent" },
    });
    expect(result).toMatchObject({ exit: 1, said: expect.stringContaining("what was there is unchanged") });
    expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
  });

  needs(
    "root",
    "linux",
    "command:mount",
    "command:curl",
  )("the disk is full", async () => {
    const folder = newFolder();
    mkdirSync(folder);
    expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", folder]).exitCode).toBe(0);
    try {
      copyFileSync(join(scratch, "old-aegis"), join(folder, "aegis"));
      chmodSync(join(folder, "aegis"), 0o755);
      const result = await install({ env: { AEGIS_INSTALL_DIR: folder } });
      expect(result).toMatchObject({ exit: 1, said: expect.stringContaining("is there room") });
      expect(versionOf(folder)).toBe(`aegis ${olderVersion}\n`);
      expect(readdirSync(folder)).toEqual(["aegis"]);
    } finally {
      Bun.spawnSync(["umount", folder]);
    }
  });
});

describe("nothing is placed when the system gives no room:", () => {
  needs(
    "root",
    "linux",
    "command:mount",
  )("the temporary folder is full, or the target can only be read", async () => {
    const folder = newFolder();
    mkdirSync(folder);
    expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", folder]).exitCode).toBe(0);
    try {
      copyFileSync(join(scratch, "old-aegis"), join(folder, "aegis"));
      const env = { AEGIS_INSTALL_DIR: folder };
      const full = await install({ args: ["--from", release.folder], env: { ...env, TMPDIR: folder } });
      expect(full).toMatchObject({ exit: 1, said: expect.stringContaining(`cannot copy ${release.folder}`) });
      expect(readdirSync(folder)).toEqual(["aegis"]);
      expect(Bun.spawnSync(["mount", "-o", "remount,ro", folder]).exitCode).toBe(0);
      const readOnly = await install({ args: ["--from", older.folder], env });
      expect(readOnly).toMatchObject({ exit: 1, said: expect.stringContaining("what was there is unchanged") });
      expect(readFileSync(join(folder, "aegis")).equals(readFileSync(join(scratch, "old-aegis")))).toBe(true);
    } finally {
      Bun.spawnSync(["umount", folder]);
    }
  });
});

describe("the one address", () => {
  test("gives PowerShell its script and everybody else the shell's", async () => {
    const get = async (agent: string) =>
      (await (await fetch(web.url, { headers: { "user-agent": agent } })).text()).split("\n")[0];
    expect(await get("Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682")).toContain(
      "# Installs aegis on Windows",
    );
    expect(await get("Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; en-US) PowerShell/7.4.1")).toContain(
      "# Installs aegis on Windows",
    );
    expect(await get("curl/7.88.1")).toBe("#!/bin/sh");
    expect(await get("Wget/1.21.3")).toBe("#!/bin/sh");
  });
});

needs("command:shellcheck")("install.sh is clean to shellcheck", () => {
  const run = Bun.spawnSync(["shellcheck", "-s", "sh", installScript]);
  expect(run.stdout.toString()).toBe("");
  expect(lstatSync(installScript).mode & 0o111).toBe(0o111);
  expect(readFileSync(join(root, "install/install.ps1"), "utf8")).toEndWith("\nInstall-Aegis\n");
  expect(readFileSync(installScript, "utf8")).toEndWith('\n{ main "$@"; }\n');
});
