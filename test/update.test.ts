/** `aegis update` on a real systemd: by hand, asked for by an operator, and undone when the new executable does not connect. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, hardening, stampedConstants } from "../install/build.ts";
import { releaseKey } from "../install/release-key.ts";
import manifest from "../package.json" with { type: "json" };
import { installation } from "./support/installation.ts";
import { hostTarget, miniRelease, mirror as serve } from "./support/mini-release.ts";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon", "command:python3"] as const;
const onSystemd = needs(...requirements);
const newer = "9.9.0";
const broken = "9.9.1";
const older = "0.0.1";
let bench: SystemdBench;
let mirror: string;

/** The same program that calls itself another version. */
function build(version: string, folder: string): string {
  const outfile = join(folder, "aegis");
  mkdirSync(folder);
  const define = { ...stampedConstants(hostTarget, releaseKey({}).publicPem), AEGIS_VERSION: version };
  compile({
    entry: join(import.meta.dir, "../src/main.ts"),
    outfile,
    bunTarget: `bun-${hostTarget}`,
    define,
    hardening,
    target: hostTarget,
  });
  return outfile;
}

beforeAll(async () => {
  if (missing(...requirements).length > 0) return;
  mirror = mkdtempSync(join(tmpdir(), "aegis-mirror-"));
  chmodSync(mirror, 0o755);
  const script = join(mirror, "broken");
  writeFileSync(script, `#!/bin/sh\n[ "$1" = --version ] && echo "aegis ${broken}" && exit\nexit 1\n`, { mode: 0o755 });
  for (const [version, executable] of [
    [newer, build(newer, join(mirror, "built"))],
    [broken, script],
    [older, script],
  ] as const) {
    const { folder } = miniRelease(version, executable);
    cpSync(folder, join(mirror, "releases", `v${version}`), { recursive: true });
    rmSync(folder, { recursive: true });
  }
  cpSync(join(mirror, "releases", `v${newer}`), join(mirror, "releases/latest"), { recursive: true });
  bench = await systemdBench({ binds: { [mirror]: "/srv/mirror" } });
  await bench.root(
    "systemd-run --quiet --unit=mirror python3 -m http.server 9000 --bind 127.0.0.1 --directory /srv/mirror",
  );
  const placed = await bench.user(
    `mkdir -p ~/.local/bin; cp /usr/local/bin/aegis ~/.local/bin/aegis; export AEGIS_BASE_URL=http://127.0.0.1:9000; ~/.local/bin/aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access`,
  );
  if (placed.exit !== 0) throw new Error(placed.said);
}, 120_000);
afterAll(() => {
  bench?.down();
  if (mirror) rmSync(mirror, { recursive: true, force: true });
});

const update = (flags: string) => bench.user(`AEGIS_BASE_URL=http://127.0.0.1:9000 ~/.local/bin/aegis update ${flags}`);
const running = async () => (await bench.operator("aegis edge ls")).said;
const restore = () =>
  bench.user(
    "cp /usr/local/bin/aegis ~/.local/bin/aegis.x && mv ~/.local/bin/aegis.x ~/.local/bin/aegis && ~/.local/bin/aegis edge service restart",
  );

describe("without a service", () => {
  needs("command:script")("shows its progress on a terminal, and replaces the executable it is", async () => {
    const home = mkdtempSync(join(tmpdir(), "aegis-desk-"));
    const executable = join(home, "aegis");
    cpSync(join(import.meta.dir, "../dist/aegis"), executable);
    const fake = join(home, "fake");
    writeFileSync(fake, `#!/bin/sh\necho "aegis ${newer}"\n`, { mode: 0o755 });
    const release = miniRelease(newer, fake);
    const web = serve({ latest: release.folder });
    const child = Bun.spawn(["script", "-qec", `${executable} update`, "/dev/null"], {
      env: { HOME: home, PATH: process.env.PATH, AEGIS_BASE_URL: web.url, TERM: "xterm" },
      stdin: "ignore",
      stdout: "pipe",
    });
    const said = await new Response(child.stdout).text();
    expect(said).toMatch(/\r[\d.]+ of [\d.]+ MB/);
    expect(said).toContain(`aegis ${manifest.version} was replaced by ${newer}`);
    expect(readFileSync(executable, "utf8")).toBe(readFileSync(fake, "utf8"));
    expect(readdirSync(join(home, ".aegis/update"))).toEqual([]);
    web.stop();
    for (const folder of [home, release.folder]) rmSync(folder, { recursive: true });
  });

  test("a host that cannot update itself ends the fleet's update before the next is asked", async () => {
    const site = await installation();
    try {
      for (const name of ["first", "second"]) await site.addHost(name, { enroll: ["--full-access"] });
      const ran = await site.desk.run("edge", "fleet", "update", "--target", "all", "--yes", "-o", "json");
      expect(ran.exit).toBe(6);
      expect(JSON.parse(ran.stdout)).toMatchObject([
        { name: "first", ok: false, message: expect.stringContaining("nothing on this host waits for such requests") },
      ]);
      expect(JSON.parse(ran.stdout)).toHaveLength(1);
    } finally {
      await site.close();
    }
  });
});

describe("by hand", () => {
  onSystemd("a newer release is seen, taken, and the service runs it; --rollback brings the old one back", async () => {
    expect(await update("--check")).toEqual({
      exit: 10,
      said: `aegis ${newer} is there; this is ${manifest.version}\n`,
    });
    expect(await running()).toContain(manifest.version);
    const taken = await update("");
    expect(taken.said).toContain("the service is connected again");
    expect(taken.exit).toBe(0);
    expect(await running()).toMatch(new RegExp(`connected .*${newer}`));
    expect((await update("--check")).said).toBe(`aegis ${newer} is current\n`);
    expect((await update("--rollback")).exit).toBe(0);
    expect((await bench.user("~/.local/bin/aegis --version")).said).toBe(`aegis ${manifest.version}\n`);
    expect((await update("--rollback")).said).toContain("there is no earlier executable beside");
  });

  onSystemd("one that does not start is undone, and the host is connected as before", async () => {
    const failed = await update(`--version ${broken}`);
    expect(failed.exit).toBe(5);
    expect(failed.said).toContain(`aegis ${broken} did not connect`);
    expect(failed.said).toContain(`${manifest.version} is back`);
    const back = await bench.user(
      "for i in $(seq 100); do ~/.local/bin/aegis edge status >/dev/null && exit 0; sleep 0.1; done; exit 1",
    );
    expect(back.exit).toBe(0);
    expect(await running()).toMatch(new RegExp(`connected .*${manifest.version}`));
  });

  onSystemd("an altered release and an executable that may not be replaced change nothing", async () => {
    await bench.root(
      "mkdir -p /srv/evil/releases && cp -r /srv/mirror/releases/latest /srv/evil/releases/latest && sed -i 's/^./x/' /srv/evil/releases/latest/SHA256SUMS; systemd-run --quiet --unit=evil python3 -m http.server 9001 --bind 127.0.0.1 --directory /srv/evil",
    );
    const altered = await bench.user(
      "for i in $(seq 50); do (exec 3<>/dev/tcp/127.0.0.1/9001) 2>/dev/null && break; sleep 0.1; done; AEGIS_BASE_URL=http://127.0.0.1:9001 ~/.local/bin/aegis update",
    );
    expect(altered).toMatchObject({ exit: 3 });
    const foreign = await bench.user("AEGIS_BASE_URL=http://127.0.0.1:9000 /usr/local/bin/aegis update");
    expect(foreign.exit).not.toBe(0);
    expect((await bench.user("/usr/local/bin/aegis --version")).said).toBe(`aegis ${manifest.version}\n`);
  });
});

describe("asked for by an operator", () => {
  onSystemd("hosts update themselves through the companion unit, one after the other", async () => {
    const ran = await bench.operator("aegis edge fleet update --target all --yes");
    expect(ran.said).toContain(`bench: ${manifest.version} -> ${newer}`);
    expect(ran.exit).toBe(0);
    expect(await running()).toMatch(new RegExp(`connected .*${newer}`));
    await restore();
  });

  onSystemd("an older release is refused, whoever asks, and the host says why", async () => {
    const ran = await bench.operator(
      `aegis edge fleet run --target all --tool aegis.update --arg version=${older} --context operator --yes`,
    );
    expect(ran.exit).toBe(0);
    const said = await bench.operator(
      'for i in $(seq 100); do r=$(/usr/local/bin/aegis edge fleet run --target all --tool aegis.update --args \'{"status":true}\' --context operator --yes -o json); case $r in *older*) echo "$r"; exit 0;; esac; sleep 0.2; done; exit 1',
    );
    expect(said.said).toContain(`offers ${older}, which is older than this ${manifest.version}`);
    expect(await running()).toContain(manifest.version);
  });

  onSystemd("a policy that does not allow aegis.update keeps it from being asked", async () => {
    const ran = await bench.operator("aegis edge fleet update --target all --context default --yes");
    expect(ran.exit).toBe(6);
    expect(ran.said).toContain("aegis.update");
  });
});

describe("a service of the system", () => {
  onSystemd(
    "is updated by root for a daemon that is not, which learns how it went; a link of its leads root nowhere",
    async () => {
      const enrolled = await bench.root(
        `cp /usr/local/bin/aegis /opt/aegis; export HOME=/root AEGIS_BASE_URL=http://127.0.0.1:9000; /opt/aegis edge enroll ${await bench.token("rooted")} --non-interactive --full-access`,
      );
      expect(enrolled.said).toContain("it is connected");
      const ran = await bench.operator("aegis edge fleet update --target @rooted --yes");
      expect(ran.said).toContain(`rooted: ${manifest.version} -> ${newer}`);
      expect(ran.exit).toBe(0);
      expect((await bench.root("/opt/aegis --version")).said).toBe(`aegis ${newer}\n`);

      const asked = '{"id":"00000000-0000-4000-8000-000000000000","version":null}';
      const linked = await bench.root(
        `mkdir /etc/elsewhere; echo '${asked}' > /etc/elsewhere/request.json; cd /var/lib/aegis/.aegis/edge/run && rm -rf update && ln -s /etc/elsewhere update; for i in $(seq 100); do systemctl show aegis-edge-update.service -P Result | grep -qv success && break; sleep 0.1; done; ls /etc/elsewhere`,
      );
      expect(linked.said).toBe("request.json\n");
    },
  );
});
