import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { systemPath } from "./cmd-run.ts";
import { findExecutable, trustedPath } from "./find-executable.ts";

const root = process.getuid?.() === 0;
/** Somebody who owns the folder below: ourselves, or as root another. */
const uid = root ? 4711 : (process.getuid?.() ?? null);

let folder: string;
let bin: string;
beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "aegis-find-")));
  bin = join(folder, "bin");
  mkdirSync(bin);
  writeFileSync(join(bin, "ls"), "#!/bin/sh\n");
  writeFileSync(join(bin, "data"), "no program\n", { mode: 0o644 });
  symlinkSync("/bin/sh", join(bin, "linked"));
  chmodSync(join(bin, "ls"), 0o755);
  if (root) chownSync(bin, 4711, 4711);
});
afterAll(() => rmSync(folder, { recursive: true }));

test("a bare name is the first of the fixed path, followed to the real file", async () => {
  expect(await findExecutable("ls", { path: `relative:/no/such:${bin}:/usr/bin`, uid: null })).toEqual({
    kind: "found",
    path: join(bin, "ls"),
  });
  expect(await findExecutable("linked", { path: bin, uid: null })).toEqual({
    kind: "found",
    path: realpathSync("/bin/sh"),
  });
});

test("a folder that this user could change counts for nothing, and that is said", async () => {
  expect(await findExecutable("ls", { path: bin, uid })).toEqual({
    kind: "refused",
    reason: `it is not found in ${bin}; ${join(bin, "ls")} is passed over, because this user can change ${bin}`,
  });
  expect(await trustedPath({ path: `${bin}:/usr/bin`, uid: 0 })).toBe(`${bin}:/usr/bin`);
  expect(await trustedPath({ path: `${bin}:sub`, uid })).toBe("");
});

needs("root", "command:setpriv")(
  "an ordinary user gets the system's programs, and none that it could change",
  async () => {
    // That user may be able to read nothing of the project.
    const built = await Bun.build({ entrypoints: [join(import.meta.dir, "find-executable.ts")], target: "bun" });
    const module = join(folder, "find-executable.js");
    writeFileSync(module, (await built.outputs[0]?.text()) ?? "");
    const bun = join(folder, "bun");
    copyFileSync(process.execPath, bun);
    const good = join(folder, "good");
    mkdirSync(good);
    chmodSync(folder, 0o755);
    symlinkSync("/bin/sh", join(good, "linked"));
    symlinkSync(join(bin, "ls"), join(good, "ls"));
    const asUser = (name: string, path: string) => {
      const code = `import { findExecutable } from "${module}";
      console.log(JSON.stringify(await findExecutable("${name}", { path: "${path}", uid: 4711 })));`;
      const user = ["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups"];
      const { stdout, stderr } = Bun.spawnSync([...user, bun, "-e", code], { cwd: "/" });
      return JSON.parse(stdout.toString() || `"${stderr}"`);
    };
    expect(asUser("linked", `${bin}:${good}`)).toEqual({ kind: "found", path: realpathSync("/bin/sh") });
    expect(asUser("ls", good).reason).toEndWith(`passed over, because this user can change ${bin}`);
    expect(asUser("env", systemPath)).toEqual({ kind: "found", path: realpathSync("/usr/bin/env") });
  },
);

test("an absolute path is followed, and what is wrong with it comes beside where it leads", async () => {
  const search = { path: "/usr/bin", uid };
  expect(await findExecutable(join(bin, "linked"), search)).toEqual({ kind: "found", path: realpathSync("/bin/sh") });
  const why = async (path: string) => await findExecutable(path, search);
  expect(await why(join(bin, "no"))).toEqual({
    kind: "absent",
    path: join(bin, "no"),
    why: `${join(bin, "no")} does not exist`,
  });
  expect(await why(`${bin}/../bin`)).toEqual({ kind: "absent", path: bin, why: `${bin}/../bin is no file` });
  expect(await why(join(bin, "data"))).toMatchObject({
    kind: "absent",
    path: join(bin, "data"),
    why: `${join(bin, "data")} is not executable by this host's user`,
  });
});
