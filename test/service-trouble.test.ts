/** The service where things are not as usual: other places, odd names, a daemon that hangs, a disk that is full, two at once. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
const onSystemd = needs(...requirements);
let bench: SystemdBench;

beforeAll(async () => {
  if (missing(...requirements).length > 0) return;
  bench = await systemdBench(process.env.AEGIS_SYSTEMD_ROOT ? { rootFolder: process.env.AEGIS_SYSTEMD_ROOT } : {});
}, 60_000);
afterAll(() => bench?.down());

const unit = "~/.config/systemd/user/aegis-edge.service";
const show = (property: string) => `systemctl --user show aegis-edge -P ${property}`;
const connected = `for i in $(seq 150); do [ "$(${show("ActiveState")} | cat - <(${show("StatusText")}) | tr '\\n' ' ')" = "active connected " ] && break; sleep 0.1; done; ${show("StatusText")}`;
/** Does that to the daemon and waits until there is another. */
const again = (act: string) =>
  `old=$(${show("MainPID")}); ${act} $old; for i in $(seq 150); do new=$(${show("MainPID")}); [ $new != $old ] && [ $new != 0 ] && break; sleep 0.1; done`;
const tool = (command: string) => bench.operator(`aegis edge exec bench --context operator -- ${command}`);

describe("an executable in ~/.local/bin", () => {
  onSystemd(
    "is started from there, hidden behind nothing, and no tool can replace it",
    async () => {
      await bench.user("install -D /usr/local/bin/aegis ~/.local/bin/aegis");
      const enrolled = await bench.user(
        `~/.local/bin/aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access`,
      );
      expect(enrolled.said).toContain("it is connected");
      expect((await bench.user(`grep ^ExecStart= ${unit}`)).said).toStartWith("ExecStart=/home/edge/.local/bin/aegis ");
      expect((await tool("/bin/sh -c 'echo x > /home/edge/.local/bin/aegis'")).said).toMatch(/Read-only|denied|busy/);
    },
    60_000,
  );

  onSystemd(
    "is replaced by a rename, and a restart runs the new one under the same key",
    async () => {
      const key = "sha256sum < ~/.aegis/edge/node.key.pub";
      const before = (await bench.user(key)).said;
      const call = tool("/bin/sleep 60");
      await Bun.sleep(400);
      const upgraded = await bench.user(
        `cp ~/.local/bin/aegis ~/.local/bin/aegis.new && mv ~/.local/bin/aegis.new ~/.local/bin/aegis; ${again("kill -KILL")}; ${connected}; ls -l /proc/$(${show("MainPID")})/exe`,
      );
      expect(upgraded.said).toStartWith("connected\n");
      expect(upgraded.said).toEndWith("/home/edge/.local/bin/aegis\n"); // not "(deleted)"
      expect((await call).exit).not.toBe(0);
      expect((await call).said).toContain("disconnected");
      expect((await bench.user(key)).said).toBe(before);
    },
    60_000,
  );
});

describe("a daemon that hangs", () => {
  onSystemd(
    "is ended by the watchdog and started again",
    async () => {
      const line = "[Service]\\nWatchdogSec=2\\nRestartSec=0\\n";
      const hung = await bench.user(
        `mkdir -p ${unit}.d; printf '${line}' > ${unit}.d/90-mine.conf; systemctl --user daemon-reload; systemctl --user restart aegis-edge; ${connected}; ${again("kill -STOP")}; ${connected}; ${show("NRestarts")}; journalctl --user -u aegis-edge -o cat | grep -c -i 'watchdog timeout'`,
      );
      expect(hung.said).toBe("connected\nconnected\n1\n1\n");
      // It is somebody else's file, and stays.
      expect((await bench.user(`aegis edge service uninstall; cat ${unit}.d/90-mine.conf`)).said).toContain(
        "WatchdogSec=2",
      );
      await bench.user(`rm -r ${unit}.d`);
    },
    60_000,
  );
});

describe("an installation", () => {
  onSystemd(
    "that two start at once ends in one service",
    async () => {
      const raced = await bench.user(
        `aegis edge service install > one 2>&1 & aegis edge service install > two 2>&1; second=$?; wait $!; echo $? $second; cat one two; ${show("ActiveState")}; ls ${unit}* -d`,
      );
      expect(raced.said).toStartWith("0 0\n");
      expect(raced.said).toEndWith("active\n/home/edge/.config/systemd/user/aegis-edge.service\n");
    },
    60_000,
  );

  onSystemd(
    "on a full disk says so and leaves what was there",
    async () => {
      const folder = "/home/edge/.config/systemd/user";
      await bench.user("aegis edge service uninstall");
      await bench.root(
        `mount -t tmpfs -o size=4k,uid=4242,mode=700 none ${folder} && head -c 4096 /dev/zero > ${folder}/full`,
      );
      const failed = await bench.user("aegis edge service install; ls -A ~/.config/systemd/user");
      expect(failed.said).toMatch(/error: cannot write .*aegis-edge\.service: .*(?:ENOSPC|no space)/i);
      expect(failed.said).toStartWith("full\n");
      await bench.root(`umount ${folder}`);
    },
    60_000,
  );

  onSystemd(
    "without HOME asks whose home is meant, or finds it",
    async () => {
      const { exit, said } = await bench.user("env -u HOME aegis edge service install; echo $?");
      expect(exit).toBe(0);
      expect(said).toContain("connected  yes");
    },
    60_000,
  );

  onSystemd(
    "below names with blanks, percent signs, colons and letters of all kinds works as it does elsewhere",
    async () => {
      await bench.user("aegis edge service uninstall");
      const odd = `"$HOME/o d% é:\\$x"`;
      const enrolled = await bench.user(
        `mkdir -p ${odd}; export AEGIS_HOME=${odd}/a; aegis edge enroll ${await bench.token("odd")} --non-interactive --full-access --allow ${odd}; systemd-analyze --user verify ${unit}`,
      );
      expect(enrolled.said).toContain("it is connected");
      expect((await bench.operator("aegis edge exec odd --context operator -- /bin/ls -A /home/edge")).said).toBe(
        "o d% é:$x\n",
      );
      await bench.user(`AEGIS_HOME=${odd}/a aegis edge service uninstall`);
    },
    60_000,
  );
});

describe("a system that gives its users no user namespaces", () => {
  const manager = "/etc/systemd/system/user@4242.service.d";
  /** What the user's manager and all that it starts may do: a filter of the kernel's, as strict as a sysctl and only in here. */
  const namespaces = async (given: boolean) => {
    const change = given
      ? `rm -r ${manager}`
      : `mkdir -p ${manager} && printf '[Service]\\nRestrictNamespaces=~user\\n' > ${manager}/no-namespaces.conf`;
    const { exit, said } = await bench.root(
      `${change} && systemctl daemon-reload && systemctl restart user@4242 && for i in $(seq 100); do test -S /run/user/4242/bus && exit 0; sleep 0.1; done; exit 1`,
    );
    if (exit !== 0) throw new Error(said);
    expect((await bench.user("systemd-run --user --wait --quiet -p PrivateUsers=true true")).exit === 0).toBe(given);
  };
  const files = "find ~ -name 'aegis-edge*'";

  onSystemd(
    "enrolls and installs nothing until --allow-unsandboxed, which the refusal names; tools still cannot read the key",
    async () => {
      await bench.user("aegis edge service uninstall; aegis edge logout --force; rm -rf ~/.aegis");
      await namespaces(false);
      const token = await bench.token("bare");
      const enrolled = await bench.user(
        `exec 2>&1; aegis edge enroll ${token} --non-interactive --full-access; echo "exit $?"; ${files}`,
      );
      expect(enrolled.said).toContain(
        "this host is enrolled, and no service was installed: this system gives its users no",
      );
      expect(enrolled.said).toContain(
        "aegis edge service install --allow-unsandboxed; then: aegis edge service install",
      );
      expect(enrolled.said).toEndWith("exit 1\n");
      const refused = await bench.user(`exec 2>&1; aegis edge service install; echo "exit $?"; ${files}`);
      expect(refused.said).toContain("or go on with less: aegis edge service install --allow-unsandboxed");
      expect(refused.said).toEndWith("exit 1\n");
      expect((await bench.user("aegis doctor")).said).toMatch(/^sandbox +warning .*no user namespaces/m);

      const bare = (command: string) => bench.operator(`aegis edge exec bare --context operator -- ${command}`);
      const installed = await bench.user(
        `aegis edge service install --allow-unsandboxed; ${connected}; grep -c ^PrivateUsers ${unit}`,
      );
      expect(installed.said).toEndWith("connected\n0\n");
      expect(await bare("/bin/ls /home/edge/.config/systemd")).toEqual({ exit: 0, said: "user\n" });
      expect((await bare("/bin/cat /home/edge/.aegis/edge/node.key")).said).toContain("Permission denied");
      const append = "/bin/sh -c 'echo >> /home/edge/.config/systemd/user/aegis-edge.service'";
      expect((await bare(append)).said).toContain("Permission denied");
      // The lines that need no namespace hold.
      const personality = "/usr/bin/setarch --addr-no-randomize /bin/true";
      expect((await bare(personality)).exit).not.toBe(0);
      const policy = await bench.user("aegis edge policy test --context operator -- cat /home/edge/notes");
      expect(policy.said).toMatch(/^sandbox +allowed by /m);

      await namespaces(true);
      expect((await bench.user("aegis edge service install")).said).toContain("connected  yes");
      expect((await bench.user(`grep -c ^PrivateUsers ${unit}`)).said).toBe("1\n");
      expect((await bare("/bin/ls /home/edge/.config/systemd")).said).toContain("No such file");
    },
    90_000,
  );
});
