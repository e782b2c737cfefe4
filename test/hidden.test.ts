/** Policy and sandbox tell one story: what the one allows and the other hides says so, and names the command that shows it. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { missing, needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
let bench: SystemdBench;
beforeAll(async () => {
  if (missing(...requirements).length > 0) return;
  bench = await systemdBench(process.env.AEGIS_SYSTEMD_ROOT ? { rootFolder: process.env.AEGIS_SYSTEMD_ROOT } : {});
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

describe("edge policy test", () => {
  const onSystemd = needs(...requirements);
  const ask = async (...words: string[]) => {
    const { exit, said } = await bench.user(`aegis edge policy test --context operator -o json ${words.join(" ")}`);
    const { allowed, sandbox } = JSON.parse(said);
    return { exit, allowed, sandbox };
  };
  const write = (path: string) => `--tool fs.write --arg path=${path} --arg content=x`;
  const writes = async (path: string) => {
    const call = `aegis edge fleet run --yes --target @bench --context operator --tool fs.write --arg path=${path} --arg content=x`;
    return (await bench.operator(call)).exit === 0;
  };
  const unit = "/home/edge/.config/systemd/user/aegis-edge.service";

  onSystemd(
    "says for each path what the sandbox then does, also by drop-ins, and ends with 3 where that is no",
    async () => {
      await bench.root("mkdir -p /usr/local/open && chmod 777 /usr/local/open");
      await bench.user("mkdir -p ~/shown ~/changed ~/mine ~/.config/systemd/user/aegis-edge.service.d");
      await bench.user(
        "printf '[Service]\\nBindPaths=%%h/mine\\n' > ~/.config/systemd/user/aegis-edge.service.d/90-mine.conf; systemctl --user daemon-reload; aegis edge service install --allow ~/shown --allow ~/changed:rw; aegis edge service restart",
      );
      const denied = (by: string) => ({ exit: 3, allowed: true, sandbox: { kind: "denied", by, unit } });
      const allowed = { exit: 0, allowed: true, sandbox: { kind: "allowed", unit } };
      for (const [path, expected] of [
        ["/usr/local/open/new", denied("ProtectSystem=strict")],
        ["/home/edge/projects/new", denied("TemporaryFileSystem=/home/edge")],
        ["/home/edge/shown/new", denied("BindReadOnlyPaths=/home/edge/shown")],
        ["/home/edge/changed/new", allowed],
        ["/home/edge/mine/new", allowed],
        ["/tmp/new", allowed],
      ] as const) {
        expect(await ask(write(path))).toMatchObject(expected);
        expect([path, await writes(path)]).toEqual([path, expected === allowed]);
      }
      expect(await ask("-- cat /home/edge/projects/plan")).toMatchObject({
        ...denied("TemporaryFileSystem=/home/edge"),
        sandbox: { remedy: "aegis edge service install --allow /home/edge/projects" },
      });
      expect(await ask("--arg cwd=/home/edge/projects -- date")).toMatchObject(
        denied("TemporaryFileSystem=/home/edge"),
      );
      const words = (await bench.user(`aegis edge policy test --context operator ${write("/usr/local/open/new")}`))
        .said;
      expect(words).toMatch(/^verdict +allowed$/m);
      expect(words).toContain(`denied by ProtectSystem=strict in ${unit}: /usr/local/open/new: it cannot be written`);
    },
    60_000,
  );

  onSystemd(
    "says what the launcher closes, what needs a JIT or the user's bus, and that it answers for the policy alone",
    async () => {
      const key = "/home/edge/.aegis/edge/node.key";
      expect(await ask(`-- cat ${key}`)).toMatchObject({ exit: 3, sandbox: { kind: "denied", unit: null } });
      const read = await bench.operator(`aegis edge exec bench --context operator -- cat ${key}`);
      expect(read.said).toContain("Permission denied");
      expect(await ask("-- systemctl --user status")).toMatchObject({
        exit: 3,
        sandbox: { kind: "denied", remedy: "aegis edge service install --allow-user-bus" },
      });
      if ((await bench.user("command -v node")).exit === 0) {
        const jit = {
          exit: 3,
          sandbox: { by: "MemoryDenyWriteExecute=true", remedy: "aegis edge service install --allow-jit" },
        };
        expect(await ask("-- node -v")).toMatchObject(jit);
      }
      await bench.user("aegis edge service uninstall");
      expect(await ask(write("/usr/local/open/new"))).toMatchObject({
        exit: 0,
        sandbox: { kind: "not_asked", why: expect.stringContaining("policy alone") },
      });
    },
    60_000,
  );
});
