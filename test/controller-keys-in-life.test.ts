/** The controller's own keys change on real machines: while hosts are away, and through kills in the middle of a change. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { eventually, executable } from "./support/aegis.ts";
import { type Host, type Installation, installation, jsonOf } from "./support/installation.ts";
import { needs } from "./support/needs.ts";

setDefaultTimeout(120_000);

const changes = [
  ["rotate", "root"],
  ["rotate", "command"],
  ["revoke", "command"],
] as const;

let site: Installation;
let host: Host;
beforeAll(async () => {
  site = await installation();
  // Before any change: a token that was issued under another root is void.
  host = await site.addHost("web-1");
});
afterAll(() => site.close());

const works = async (host: Host) => {
  const ran = await site.desk.run("edge", "exec", host.name, "--", "uname");
  expect(ran).toMatchObject({ exit: 0, stdout: "Linux\n" });
};

/** Changes keys beside the running controller. */
async function change(...words: string[]): Promise<void> {
  const { exit, stderr } = await site.server.run("controller", "keys", ...words, "-o", "json");
  expect({ words, exit, stderr }).toMatchObject({ exit: 0 });
}

const keysOf = async () => jsonOf(await site.server.run("controller", "keys", "ls", "-o", "json"));

test("a host that was away while the root changed three times follows by itself, and so does its next process", async () => {
  await works(host);
  await host.daemon?.stop();
  const roots = new Set([(await keysOf()).root_fingerprint]);
  for (const what of ["root", "command", "root", "token", "root", "command"]) {
    await change("rotate", what);
    roots.add((await keysOf()).root_fingerprint);
  }
  expect(roots.size).toBe(4);
  expect((await keysOf()).hosts_behind).toMatchObject([{ name: "web-1" }]);
  for (const process of ["its own", "its next"]) {
    await host.connect();
    await works(host);
    expect({ process, behind: (await keysOf()).hosts_behind }).toEqual({ process, behind: [] });
    expect(host.daemon?.stderr()).not.toMatch(/"level":"(?:warn|error)"/);
    await host.daemon?.stop();
  }
  await host.connect();
});

/** Where a change of keys touches the disk, and how often. */
const points = [
  ["/^f(data)?sync", [1, 2, 3]],
  ["/^rename", [1]],
  ["/^pwrite", [1, 2, 4, 8, 12]],
  ["/^unlink", [1]],
] as const;

for (const what of changes)
  needs("command:strace")(
    `keys ${what.join(" ")}, killed at each point where it writes, moves or removes: hosts stay, and it can be done again`,
    async () => {
      let killed = 0;
      for (const [call, times] of points)
        for (const when of times) {
          const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:signal=SIGKILL:when=${when}`];
          const { exit } = await site.server.startProgram([
            ...["strace", "-f", "-qq", "-o", "/dev/null", ...inject],
            ...[executable, "controller", "keys", ...what],
          ]).ended;
          if (exit !== 0) killed++;
          await works(host);
        }
      expect(killed).toBeGreaterThan(5);
      // A controller that begins anew from what is on the disk now is believed too.
      const sessions = () => host.daemon?.stderr().match(/"event":"connected"/g)?.length ?? 0;
      const before = sessions();
      await site.controller.stop();
      await site.restartController();
      await eventually("it is connected again", () => sessions() > before, 30_000);
      await works(host);
      await change(...what);
      await works(host);
    },
  );
