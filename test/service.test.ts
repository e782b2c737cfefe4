/** `edge service` on a real systemd: it starts, it is proved to have started, it comes back, it stops, it leaves nothing. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
const onSystemd = needs(...requirements);
let bench: SystemdBench;

beforeAll(async () => {
  if (missing(...requirements).length === 0)
    bench = await systemdBench(process.env.AEGIS_SYSTEMD_ROOT ? { rootFolder: process.env.AEGIS_SYSTEMD_ROOT } : {});
}, 60_000);
afterAll(() => bench?.down());

const unit = "/home/edge/.config/systemd/user/aegis-edge.service";
/** Each property on a line of its own, in this order, which is not systemd's. */
const shown = (...properties: string[]) =>
  properties.map((one) => `systemctl --user show aegis-edge -P ${one}`).join("; ");
const show = async (property: string) => (await bench.user(shown(property))).said.trim();
const isConnected = `[ "$( ( ${shown("ActiveState", "StatusText")} ) | tr "\\n" " ")" = "active connected " ]`;
const untilConnected = (seconds: number) =>
  `for i in $(seq ${seconds * 10}); do ${isConnected} && break; sleep 0.1; done`;

describe("a host that is not enrolled", () => {
  onSystemd("gets no service, and a daemon that is started anyway ends with 78 and is not started again", async () => {
    expect(await bench.user("aegis edge service install")).toEqual({
      exit: 78,
      said: "error: this host is not enrolled: /home/edge/.aegis/edge/aegis-config.yaml does not exist\nhint: aegis edge enroll TOKEN\n",
    });
    const printed = await bench.user(
      `mkdir -p ~/.config/systemd/user ~/.aegis/edge; aegis edge service install --print > ${unit}; systemctl --user daemon-reload; systemctl --user start aegis-edge 2>/dev/null; sleep 0.3; ${shown("ExecMainStatus", "NRestarts", "ActiveState")}`,
    );
    expect(printed.said).toEndWith("78\n0\nfailed\n");
    await bench.user(`rm -r ${unit} ~/.aegis; systemctl --user daemon-reload; systemctl --user reset-failed`);
  });
});

describe("enrolling on systemd", () => {
  onSystemd("installs the service, waits until it is ready and connected, and twice is the same as once", async () => {
    const enrolled = await bench.user(
      `mkdir -p ~/projects; aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access --allow ~/projects`,
    );
    expect(enrolled.said).toContain("the service systemd keeps it running; it is connected");
    expect(enrolled.exit).toBe(0);
    expect(await show("StatusText")).toBe("connected");
    const pid = await show("MainPID");
    const again = await bench.user("aegis edge service install --allow ~/projects -o json");
    expect(JSON.parse(again.said)).toMatchObject({
      service: "systemd",
      state: "running",
      connected: true,
      written: [],
    });
    expect(await show("MainPID")).toBe(pid);
    expect((await bench.user("aegis edge service status")).exit).toBe(0);
    expect((await bench.root("loginctl show-user edge -P Linger")).said).toBe("yes\n");
  });

  onSystemd("is confined: systemd's own score is at most 2.1", async () => {
    const { said } = await bench.user("systemd-analyze --user security aegis-edge.service --no-pager | tail -n 1");
    expect(Number(/level for aegis-edge\.service: ([\d.]+)/.exec(said)?.[1])).toBeLessThanOrEqual(2.1);
  });

  onSystemd("lets tools see what was allowed and nothing else of the owner's", async () => {
    await bench.user("echo mine > ~/projects/file; echo private > ~/diary");
    const run = (command: string) => bench.operator(`aegis edge exec bench --context operator -- ${command}`);
    expect(await run("/bin/cat /home/edge/projects/file")).toEqual({ exit: 0, said: "mine\n" });
    expect((await run("/usr/bin/touch /home/edge/projects/new")).said).toContain("Read-only file system");
    expect((await run("/bin/cat /home/edge/diary")).said).toContain("No such file");
    expect((await run("/bin/cat /home/edge/.aegis/edge/node.key")).said).toContain("Permission denied");
    expect((await run("/usr/bin/touch /usr/local/x")).said).toContain("Read-only file system");
    expect((await run("/usr/bin/id -u")).said).toBe("4242\n");
  });

  onSystemd(
    "comes back after a crash, stays stopped after a stop, and ends its calls with time to finish",
    async () => {
      const before = await show("MainPID");
      await bench.user(`kill -9 ${before}`);
      const back = await bench.user(
        `for i in $(seq 50); do [ "$(systemctl --user show aegis-edge -P MainPID)" != ${before} ] && break; sleep 0.1; done; ${untilConnected(15)}; ${shown("NRestarts", "ActiveState")}`,
      );
      expect(back.said).toBe("1\nactive\n");
      const call = bench.operator(
        "aegis edge exec bench --context operator -- /bin/sh -c 'echo begun; sleep 1.5; echo finished'",
      );
      await Bun.sleep(600);
      await bench.user("systemctl --user stop aegis-edge");
      expect((await call).said).toBe("begun\nfinished\n");
      expect(
        (await bench.user("systemctl --user is-active aegis-edge; aegis edge service status -o json")).said,
      ).toMatch(/^inactive\n[\s\S]*"state": "stopped"/);
      expect((await bench.user("aegis edge service restart")).said).toBe("restarted and connected\n");
    },
  );

  onSystemd("follows its log until it is interrupted", async () => {
    const followed = await bench.user(
      "timeout -s INT 4 aegis edge service logs --follow --lines 1 > ~/followed & sleep 1; systemctl --user reload aegis-edge; wait $!; echo $?; tail -n +2 ~/followed",
    );
    expect(followed.said).toContain('"event":"settings_reloaded"');
  });

  onSystemd("prints what it would write on each system, and changes nothing", async () => {
    const before = (await bench.user("cd ~/.config; find . -type f | sort | xargs sha256sum")).said;
    const print = async (platform: string) =>
      (await bench.user(`aegis edge service install --print --platform ${platform}`)).said;
    expect(await print("linux")).toStartWith(`# ${unit}\n# Written by: aegis edge service install`);
    expect(await print("darwin")).toContain("<string>io.aegis.edge</string>");
    expect(JSON.parse(await print("windows"))).toMatchObject({ name: "aegis-edge", startup: "automatic" });
    expect(await print("beos")).toContain("there is: linux, darwin, windows");
    expect((await bench.user("cd ~/.config; find . -type f | sort | xargs sha256sum")).said).toBe(before);
  });

  onSystemd("logs JSON lines that the journal keeps with the unit", async () => {
    const { said } = await bench.user("aegis edge service logs --lines 200");
    const events = said
      .split("\n")
      .flatMap((line) => (line.startsWith("{") ? [(JSON.parse(line) as { event: string }).event] : []));
    expect(events).toContain("connected");
    expect(events).toContain("call");
  });

  onSystemd("starts at boot without a login, and without a controller, which it then finds", async () => {
    await bench.reboot();
    const alone = await bench.user(
      `for i in $(seq 50); do systemctl --user is-active -q aegis-edge && break; sleep 0.1; done; ${shown("ActiveState", "StatusText")}`,
    );
    expect(alone.said).toMatch(/^active\n(?:connecting|not connected)/);
    await bench.startController();
    const found = await bench.user(`${untilConnected(70)}; ${isConnected}`);
    expect(found.exit).toBe(0);
  });
});

describe("changing what is installed", () => {
  onSystemd("flags become drop-ins, and go when they are not given any more", async () => {
    const wide = await bench.user(
      "NO_PROXY=localhost aegis edge service install --allow ~/projects:rw --allow-jit --allow-user-bus --proxy http://localhost:1 2>&1; ls ~/.config/systemd/user/aegis-edge.service.d",
    );
    expect(wide.said).toEndWith("10-environment.conf\n20-allow.conf\n30-user-bus.conf\n40-jit.conf\n");
    expect(
      (await bench.user("systemctl --user show aegis-edge -P MemoryDenyWriteExecute -P Environment")).said,
    ).toMatch(/HTTPS_PROXY=http:\/\/localhost:1[\s\S]*no\n|no\n[\s\S]*HTTPS_PROXY/);
    const plain = await bench.user("aegis edge service install; ls ~/.config/systemd/user");
    expect(plain.said).toContain("connected  yes");
    expect(plain.said).not.toContain("aegis-edge.service.d\n");
  });

  onSystemd("reinstall begins anew: what was asked for before is gone, and so are changes by hand", async () => {
    await bench.user(`aegis edge service install --allow-jit; sed -i 's/RestartSec=5/RestartSec=9/' ${unit}`);
    const before = await show("MainPID");
    const again = await bench.user(`aegis edge service reinstall; grep -c RestartSec=5 ${unit}; ls -d ${unit}.d`);
    expect(again.said).toContain("connected  yes");
    expect(again.said).toContain("\n1\n");
    expect(again.said).toContain("cannot access");
    expect(await show("MainPID")).not.toBe(before);
  });

  onSystemd("a daemon that does not start is told with its last words and what they mean", async () => {
    await bench.user(
      "cp ~/.aegis/edge/aegis-config.yaml ~/kept; echo '  - broken: [' >> ~/.aegis/edge/aegis-config.yaml",
    );
    const failed = await bench.user("aegis edge service reinstall");
    await bench.user("cp ~/kept ~/.aegis/edge/aegis-config.yaml");
    expect(failed.exit).toBe(1);
    expect(failed.said).toContain("78: this host is not enrolled, or its settings are invalid");
    expect(failed.said).toMatch(/its last words:\n[\s\S]*aegis-config\.yaml/);
    expect((await bench.user("aegis edge service install")).said).toContain("connected  yes");
  });

  onSystemd("a link that an update follows, as Homebrew's, is what is started", async () => {
    await bench.user(
      "mkdir -p ~/cellar/1 ~/bin; cp /usr/local/bin/aegis ~/cellar/1/aegis; ln -sf ../cellar/1/aegis ~/bin/aegis",
    );
    const linked = await bench.user(
      `export PATH=$HOME/bin:$PATH; aegis edge service install; grep ^ExecStart= ${unit}; cp -r ~/cellar/1 ~/cellar/2; ln -sfn ../cellar/2/aegis ~/bin/aegis; rm -r ~/cellar/1; aegis edge service restart; stat -Lc %d:%i /proc/$(${shown("MainPID")})/exe ~/cellar/2/aegis`,
    );
    expect(linked.said).toContain("ExecStart=/home/edge/bin/aegis edge run");
    expect(linked.said).toMatch(/^(\d+:\d+)\n\1\n/m);
    expect((await bench.user("aegis edge service install; rm -r ~/cellar ~/bin")).said).toContain("connected  yes");
  });

  onSystemd("whoever may not linger is told who can let him, and the service runs all the same", async () => {
    // Nobody is there who could say yes.
    await bench.root(
      "systemctl mask --now polkit 2>/dev/null; loginctl disable-linger edge; systemctl start user@4242; for i in $(seq 100); do test -S /run/user/4242/bus && break; sleep 0.1; done",
    );
    const told = await bench.user("aegis edge service install");
    expect(told.said).toContain("sudo loginctl enable-linger edge");
    expect(told.said).toContain("connected  yes");
    await bench.root("loginctl enable-linger edge");
    expect((await bench.user("aegis edge service install")).said).not.toContain("enable-linger");
  });

  onSystemd("a unit of somebody else's is neither replaced nor removed unasked", async () => {
    await bench.user(`sed -i '/Written by/d; s/RestartSec=5/RestartSec=7/' ${unit}`);
    const refused = await bench.user("aegis edge service install");
    expect(refused).toMatchObject({ exit: 4 });
    const kept = await bench.user("aegis edge service install --keep-existing");
    expect(kept.exit).toBe(0);
    expect((await bench.user(`grep -c RestartSec=7 ${unit}; aegis edge service uninstall; ls ${unit}`)).said).toContain(
      "somebody else wrote it",
    );
    expect(
      (await bench.user("aegis edge service install --force; systemctl --user show aegis-edge -P RestartUSec")).said,
    ).toContain("5s");
  });

  onSystemd("a unit or a drop-in of ours that somebody changed is not overwritten unasked", async () => {
    await bench.user(`aegis edge service install --allow-jit; sed -i 's/RestartSec=5/RestartSec=9/' ${unit}`);
    for (const flags of ["--allow-jit", "", "--allow ~/projects"]) {
      const { exit, said } = await bench.user(`aegis edge service install ${flags}`);
      expect([flags, exit]).toEqual([flags, 4]);
      expect(said).toContain(`${unit} is there already and was changed by hand`);
      expect(said).toContain("hint: --force replaces it, --keep-existing goes on with it");
    }
    expect(
      (await bench.user(`aegis edge service install --keep-existing; grep -c RestartSec=9 ${unit}`)).said,
    ).toEndWith("1\n");
    expect(
      (await bench.user(`aegis edge service install --allow-jit --force; grep -c RestartSec=5 ${unit}`)).said,
    ).toEndWith("1\n");
    await bench.user(`echo LimitCPU=9 >> ${unit}.d/40-jit.conf`);
    const dropIn = await bench.user("aegis edge service install");
    expect(dropIn).toMatchObject({
      exit: 4,
      said: expect.stringContaining("40-jit.conf is there already and was changed"),
    });
    expect((await bench.user("aegis edge service install --force")).said).toContain("connected  yes");
  });

  onSystemd("a masked service, a missing bus and a missing folder are named with what to do", async () => {
    await bench.user(`systemctl --user stop aegis-edge; rm ${unit}; systemctl --user mask aegis-edge`);
    expect(await bench.user("aegis edge service install")).toMatchObject({ exit: 4 });
    await bench.user(`rm -f ${unit}; systemctl --user daemon-reload`);
    const noBus = await bench.user("env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS aegis edge service install");
    expect(noBus.said).toContain("export XDG_RUNTIME_DIR=/run/user/$(id -u)");
    expect(noBus.exit).toBe(1);
    expect((await bench.user("aegis edge service install --allow ~/nowhere")).said).toContain(
      "--allow /home/edge/nowhere",
    );
  });
});

describe("leaving", () => {
  onSystemd("the page's sequence, word for word, leaves nothing behind", async () => {
    await bench.user("aegis edge service install");
    const left = await bench.user("aegis edge logout && aegis edge service uninstall && rm -rf ~/.aegis/edge");
    expect(left.said).toContain("aegis edge keys revoke-remote");
    expect(left.exit).toBe(0);
    const rest = await bench.user(
      "find ~/.config ~/.aegis -type f; systemctl --user list-unit-files 'aegis*' --no-legend; pgrep -x aegis -u edge",
    );
    expect(rest.said).toBe("");
    expect((await bench.user("aegis edge service uninstall")).said).toBe("no service of ours is installed\n");
  });
});

describe("root", () => {
  onSystemd("enrolls a service of the system that runs as a user of its own", async () => {
    const enrolled = await bench.root(
      `export HOME=/root; aegis edge enroll ${await bench.token("rooted")} --non-interactive`,
    );
    expect(enrolled.said).toContain("the service systemd keeps it running; it is connected");
    const facts = await bench.root(
      "ps -o user= -p $(systemctl show aegis-edge -P MainPID); stat -c '%U %a' /var/lib/aegis/.aegis/edge/node.key; systemd-analyze security aegis-edge --no-pager | tail -n 1",
    );
    expect(facts.said).toMatch(/^aegis\naegis 600\n.*: (?:[01]\.\d|2\.[01]) /s);
    expect((await bench.operator("aegis edge exec rooted -- id -un")).said).toBe("aegis\n");
    const gone = await bench.root("aegis edge service uninstall --system; ls /etc/systemd/system/aegis-edge.service");
    expect(gone.said).toContain("removed /etc/systemd/system/aegis-edge.service");
  });
});

describe("another place than the usual", () => {
  onSystemd(
    "AEGIS_HOME holds for the service too, and a place that the service cannot know is refused first",
    async () => {
      const token = await bench.token("elsewhere");
      const enroll = `aegis edge enroll ${token} --non-interactive`;
      const refused = await bench.user(`${enroll} --state-dir ~/other; ls -A ~/other`);
      expect(refused.said).toContain("error: a service has its state and its settings in the usual place");
      expect(refused.said).toContain("ls: cannot access");
      const enrolled = await bench.user(`AEGIS_HOME=~/elsewhere ${enroll}`);
      expect(enrolled.said).toContain("it is connected");
      const restarted = await bench.user(
        `systemctl --user restart aegis-edge; ${untilConnected(10)}; ls ~/.aegis/edge/node.key; AEGIS_HOME=~/elsewhere aegis edge status; AEGIS_HOME=~/elsewhere aegis edge logout --service --purge`,
      );
      expect(restarted.said).toContain("state            connected");
      expect(restarted.said).toContain("removed");
    },
  );

  onSystemd("a service of the whole system is not started from a home that it cannot see", async () => {
    const refused = await bench.root(
      "cp /usr/local/bin/aegis /root/aegis && /root/aegis edge service install --system --print; rm /root/aegis",
    );
    expect(refused.said).toContain("cannot be started from /root/aegis\nhint: install -m 755 /root/aegis");
  });
});
