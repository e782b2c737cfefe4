/** The user that a service of the system runs as: it signs in nowhere and owns nothing but the daemon's state. */
import { chown, lchown, lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { makeDirectory } from "../platform/private-file.ts";
import type { RunProgram } from "../platform/run-program.ts";

export const systemUser = "aegis";
export const systemHome = "/var/lib/aegis";

export interface UserIds {
  uid: number;
  gid: number;
}

/** Makes the user and its home where they are missing. Twice is the same as once. Needs root. */
export async function ensureSystemUser(run: RunProgram): Promise<UserIds> {
  const before = await idsOf(run);
  if (!before) {
    const made = await run("useradd", [
      "--system",
      "--user-group",
      "--home-dir",
      systemHome,
      "--no-create-home",
      "--shell",
      "/usr/sbin/nologin",
      systemUser,
    ]);
    if (made.status !== 0)
      throw new AegisError(
        "forbidden",
        `cannot make the user ${systemUser}: ${made.stderr.trim() || `useradd ended with ${made.status}`}`,
        {
          hint: "run it as root",
        },
      );
  }
  const ids = before ?? (await idsOf(run));
  if (!ids) throw new AegisError("internal", `the user ${systemUser} was made and cannot be found`);
  await makeDirectory(systemHome);
  await chown(systemHome, ids.uid, ids.gid);
  return ids;
}

async function idsOf(run: RunProgram): Promise<UserIds | null> {
  const found = await run("getent", ["passwd", systemUser]);
  const [, uid, gid] = /^[^:]*:[^:]*:(\d+):(\d+):/.exec(found.stdout) ?? [];
  return uid === undefined ? null : { uid: Number(uid), gid: Number(gid) };
}

/** Everything below `folder` belongs to that user; links are changed, and not what they lead to. */
export async function giveTo({ uid, gid }: UserIds, folder: string): Promise<void> {
  await lchown(folder, uid, gid);
  if (!(await lstat(folder)).isDirectory()) return;
  for (const name of await readdir(folder)) await giveTo({ uid, gid }, join(folder, name));
}
