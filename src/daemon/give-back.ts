/** Gives memory back that was needed for a while only: pages of files, which the system has and brings again when they are used. */
import { launcherDirs } from "../native/launcher.ts";
import { trimWorkingSet } from "../native/trim.ts";
import type { Log } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import type { Quietness } from "./quiet.ts";

/**
 * What to do when a daemon of this state directory is quiet: nothing where `AEGIS_TRIM=off` says so. What only a start or a
 * call needs may be read from the disk again; what each heartbeat needs must not be. Where it cannot be done, that is said once.
 */
export function giveBack({
  stateDir,
  env,
  log,
}: {
  stateDir: string;
  env: Environment;
  log: Log;
}): (after: Quietness) => void {
  if (env.AEGIS_TRIM === "off") return () => {};
  let said = false;
  return (after) =>
    void trimWorkingSet(launcherDirs(stateDir, env), { deep: after === "work" }).then((outcome) => {
      if (typeof outcome !== "string" || said) return;
      said = true;
      log.debug("not_trimmed", { why: outcome });
    });
}
