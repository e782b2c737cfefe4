/** Policy and sandbox tell one story: what the one allows and the other hides says so, and names the command that shows it. */
import { afterAll, beforeAll, expect } from "bun:test";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
let bench: SystemdBench;
beforeAll(async () => {
  if (missing(...requirements).length > 0) return;
  bench = await systemdBench();
  await bench.user("mkdir -p ~/projects && echo plans > ~/projects/plan");
  await bench.user(`aegis edge enroll ${await bench.token("bench")} --non-interactive --full-access`);
}, 60_000);
afterAll(() => bench?.down());

const read = (path: string) =>
  bench.operator(`aegis edge fleet run --yes --target @bench --context operator --tool fs.read --arg path=${path}`);

needs(...requirements)(
  "a folder is hidden from tools until its owner shows it, and doctor finds service and sandbox well",
  async () => {
    const plan = "/home/edge/projects/plan";
    const shown = "aegis edge service install --allow /home/edge/projects";
    const hidden = await read(plan);
    expect(hidden.exit).toBe(6);
    expect(hidden.said).toContain("does not exist; the service's sandbox");
    expect(hidden.said).toContain(shown);
    const cat = await bench.operator(`aegis edge exec bench --context operator -- cat ${plan}`);
    expect(cat).toMatchObject({ exit: 1, said: expect.stringContaining(shown) });
    const absent = await bench.operator("aegis edge exec bench --context operator -- cat /no/such/file");
    expect(absent.said).not.toContain("sandbox");

    expect(await bench.user(shown)).toMatchObject({ exit: 0 });
    expect(await read(plan)).toMatchObject({ exit: 0, said: expect.stringContaining("plans") });
    expect((await bench.operator(`aegis edge exec bench --context operator -- cat ${plan}`)).said).toBe("plans\n");

    const doctor = await bench.user("aegis doctor");
    expect(doctor.said).toMatch(/^service +ok +systemd runs process \d+.*connected/m);
    expect(doctor.said).toMatch(/^sandbox +ok /m);
    expect(doctor.said).toMatch(/^health +ok /m);
    await bench.user("systemctl --user stop aegis-edge");
    const stopped = await bench.user("aegis doctor");
    expect(stopped).toMatchObject({ exit: 1, said: expect.stringMatching(/service: aegis edge service restart/) });
  },
  60_000,
);
