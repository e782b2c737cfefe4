/** `controller service` on a real systemd: it starts, it is proved to serve, it is confined, it comes back, it leaves nothing. */
import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

setDefaultTimeout(30_000);

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
const onSystemd = needs(...requirements);
let bench: SystemdBench;

beforeAll(async () => {
  if (missing(...requirements).length > 0) return;
  bench = await systemdBench();
  // The bench has one of its own, outside any unit of ours.
  await bench.stopController();
}, 60_000);
afterAll(() => bench?.down());

const unit = "/etc/systemd/system/aegis-controller.service";
const asRoot = (line: string) => bench.root(`export AEGIS_HOME=/srv/operator/.aegis; ${line}`);

onSystemd("is installed by root only, for a controller that was made", async () => {
  const refused = await bench.user("aegis controller service install");
  expect(refused).toMatchObject({ exit: 3, said: expect.stringContaining("hint: sudo env AEGIS_HOME=") });
  const none = await bench.root("AEGIS_HOME=/srv/none aegis controller service install");
  expect(none).toMatchObject({ exit: 78, said: expect.stringContaining("holds no controller") });
});

onSystemd("runs as the owner of its data, serves when install ends, and twice is the same as once", async () => {
  await bench.root("useradd --system keeper; chown -R keeper /srv/operator/.aegis/controller; chmod 755 /srv/operator");
  const installed = await asRoot("aegis controller service install -o json");
  expect(JSON.parse(installed.said)).toMatchObject({ written: true, state: "running", user: "keeper" });
  expect((await bench.operator("aegis whoami -o json")).said).toContain('"principal": "tester"');
  const pid = (await bench.root("systemctl show aegis-controller -P MainPID")).said.trim();
  expect((await bench.root(`ps -o user= -p ${pid}`)).said.trim()).toBe("keeper");
  expect(JSON.parse((await asRoot("aegis controller service install -o json")).said)).toMatchObject({ written: false });
  expect((await bench.root("systemctl show aegis-controller -P MainPID")).said.trim()).toBe(pid);
  const status = await bench.user("aegis controller service status");
  expect(status).toMatchObject({ exit: 0, said: expect.stringMatching(/says +serving hosts on port 50056/) });
});

onSystemd("is confined: systemd's own score is at most 1.8, and it sees no home and no other's data", async () => {
  const { said } = await bench.root("systemd-analyze security aegis-controller --no-pager | tail -n 1");
  expect(Number(/level for aegis-controller\.service: ([\d.]+)/.exec(said)?.[1])).toBeLessThanOrEqual(1.8);
  const inside = (line: string) =>
    bench.root(`nsenter -t $(systemctl show aegis-controller -P MainPID) -m -U -S 0 -G 0 -- sh -c '${line}'`);
  expect((await inside("ls -A /home /root")).said).toBe("/home:\n\n/root:\n");
  expect((await inside("touch /etc/x")).said).toContain("Read-only file system");
});

onSystemd(
  "comes back after a crash with its hosts' trust, and commands beside it leave nothing it cannot read",
  async () => {
    await asRoot("aegis controller token create --name more --scope aegis.admin");
    await bench.root("systemctl kill --kill-whom=main -s KILL aegis-controller");
    const back = await bench.root(
      'for i in $(seq 100); do [ "$(systemctl show aegis-controller -P NRestarts)" = 1 ] && systemctl is-active aegis-controller && exit; sleep 0.1; done',
    );
    expect(back.said.trim().split("\n").at(-1)).toBe("active");
    expect((await bench.operator("aegis whoami -o json")).said).toContain('"principal": "tester"');
    expect((await asRoot("aegis controller audit verify")).exit).toBe(0);
  },
);

onSystemd("goes without a trace but its data, and leaves a unit of somebody else's alone", async () => {
  const gone = await asRoot(`aegis controller service uninstall; ls ${unit}; systemctl is-active aegis-controller`);
  expect(gone.said).toStartWith(`removed ${unit}\n`);
  expect(gone.said).toContain("\ninactive\n");
  expect(gone.said).toContain(`cannot access '${unit}'`);
  expect((await asRoot("aegis controller service uninstall")).said).toBe("no service of ours is installed\n");
  expect((await bench.user("aegis controller service status")).exit).toBe(1);
  await bench.root(`echo '[Unit]' > ${unit}`);
  for (const verb of ["install", "uninstall"])
    expect(await asRoot(`aegis controller service ${verb}`)).toMatchObject({
      exit: 4,
      said: expect.stringContaining("somebody else"),
    });
});
