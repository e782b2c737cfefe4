/**
 * `npm run test:systemd [-- --suite trixie]`: the service and sandbox tests on this machine's systemd, or on that of
 * another Debian release, which is unpacked once below .cache.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { installDebianPackages } from "../debian.mjs";

const root = join(import.meta.dir, "../..");
const at = process.argv.indexOf("--suite");
const suite = at > 0 ? process.argv[at + 1] : undefined;
installDebianPackages("systemd/debian-packages.txt");

function rootOf(name: string): string {
  const folder = join(root, ".cache", `suite-${name}`);
  if (existsSync(join(folder, "lib/systemd/systemd")) || existsSync(join(folder, "usr/lib/systemd/systemd")))
    return folder;
  console.error(`unpacking Debian ${name} ...`);
  const include =
    "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,procps,iproute2,bash,util-linux,passwd,hostname";
  const run = Bun.spawnSync(["debootstrap", "--variant=minbase", `--include=${include}`, name, folder], {
    stdout: "ignore",
    stderr: "inherit",
  });
  if (run.exitCode !== 0) {
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`debootstrap ${name} failed`);
  }
  writeFileSync(join(folder, "etc/hosts"), "127.0.0.1 localhost\n");
  return folder;
}

const env = suite === undefined ? process.env : { ...process.env, AEGIS_SYSTEMD_ROOT: rootOf(suite) };
const files = ["service", "service-notify", "service-trouble", "sandbox", "hidden"].map(
  (name) => `./test/${name}.test.ts`,
);
const run = Bun.spawnSync([process.execPath, "test", "--timeout=120000", ...files], {
  cwd: root,
  env,
  stdout: "inherit",
  stderr: "inherit",
});
process.exit(run.exitCode);
