/** SIGHUP makes a running daemon read its settings again: the policy at once, without a word lost on its stream. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { eventually } from "./support/aegis.ts";
import { type Host, type Installation, installation, jsonOf } from "./support/installation.ts";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

describe("a daemon that gets SIGHUP", () => {
  let site: Installation;
  let host: Host;
  beforeAll(async () => {
    site = await installation();
    host = await site.addHost("host", { enroll: ["--full-access", "--label", "site=a"] });
  }, 60_000);
  afterAll(() => site.close());

  const call = async () =>
    (await site.desk.run("edge", "exec", "host", "--context", "operator", "--", "echo", "ran")).stdout;
  const reload = async (said: RegExp) => {
    host.daemon?.signal("SIGHUP");
    await host.daemon?.until(said);
  };
  const labels = async () => jsonOf(await site.desk.run("edge", "ls", "-o", "json"))[0].capabilities.labels;

  test("obeys a policy that became narrower from then on, and keeps its connection", async () => {
    expect(await call()).toBe("ran\n");
    const script = "echo begun; sleep 1; echo late";
    const slow = site.desk.start("edge", "exec", "host", "--context", "operator", "--", "sh", "-c", script);
    await eventually("the slow call runs", () => slow.stdout() === "begun\n");
    host.edit("name: operator", "name: nobodys");
    await reload(/"event":"settings_reloaded"/);
    expect((await site.desk.run("edge", "exec", "host", "--context", "operator", "--", "echo", "ran")).exit).not.toBe(
      0,
    );
    expect((await slow.ended).stdout).toBe("begun\nlate\n");
    host.edit("name: nobodys", "name: operator");
    await reload(/(?:"event":"settings_reloaded"[\s\S]*){2}/);
    expect(await call()).toBe("ran\n");
    expect(host.daemon?.stderr().match(/"event":"connected"/g)).toHaveLength(1);
  }, 30_000);

  test("tells the controller what it says of itself now", async () => {
    expect(await labels()).toEqual({ site: "a" });
    host.edit("site: a", "site: b");
    await reload(/(?:"event":"settings_reloaded"[\s\S]*){3}/);
    await eventually("the controller knows", async () => (await labels()).site === "b");
  }, 30_000);

  test("goes on with what it has when the new settings are no good, and says why", async () => {
    const good = host.settings();
    host.edit("kind: NodeConfig", "kind: Nonsense");
    await reload(/"event":"settings_not_reloaded".*NodeConfig/);
    expect(await call()).toBe("ran\n");
    host.edit("kind: Nonsense", "kind: NodeConfig");
    expect(host.settings()).toBe(good);
  }, 30_000);

  test("runs as many calls at once as the settings say now", async () => {
    const at = (script: string) =>
      site.desk.start("edge", "exec", "host", "--context", "operator", "--", "sh", "-c", script);
    host.edit("max_concurrent_invocations: 16", "max_concurrent_invocations: 1");
    await reload(/(?:"event":"settings_reloaded"[\s\S]*){4}/);
    const one = at("echo begun; sleep 1; date +%s%N");
    await eventually("the first runs", () => one.stdout() === "begun\n");
    const [second, first] = [await at("date +%s%N").ended, await one.ended];
    expect(Number(second.stdout)).toBeGreaterThan(Number(first.stdout.replace("begun\n", "")));
  }, 30_000);

  test("names what a restart would bring", async () => {
    host.edit("spec:\n", "spec:\n  mcp_servers: [{ name: x, command: /bin/false }]\n");
    await reload(/"after_restart":\["spec\.mcp_servers"\]/);
  }, 30_000);
});

describe("systemctl --user reload", () => {
  const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
  let bench: SystemdBench;
  beforeAll(async () => {
    if (missing(...requirements).length === 0) bench = await systemdBench();
  }, 60_000);
  afterAll(() => bench?.down());

  needs(...requirements)(
    "reads the settings again, and the same process goes on",
    async () => {
      await bench.user(`aegis edge enroll ${await bench.token("bench")} --non-interactive`);
      const pid = "systemctl --user show aegis-edge -P MainPID -P ActiveState";
      const before = (await bench.user(pid)).said;
      const waits =
        "for i in $(seq 100); do journalctl --user -u aegis-edge -o cat | grep -q settings_reloaded && break; sleep 0.05; done";
      expect((await bench.user(`systemctl --user reload aegis-edge; ${waits}; ${pid}`)).said).toBe(before);
      expect(before).toContain("active");
      expect((await bench.user("systemctl --user show aegis-edge -P StatusText")).said).toBe("connected\n");
    },
    60_000,
  );
});
