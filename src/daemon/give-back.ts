/** Gives memory back that was needed for a while only: pages of files, which the system has and brings again when they are used. */
import { launcherDirs } from "../native/launcher.ts";
import { trimWorkingSet } from "../native/trim.ts";
import type { Log } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";

/** What to do when a daemon of this state directory is quiet. Where it cannot be done, that is said once. */
export function giveBack({ stateDir, env, log }: { stateDir: string; env: Environment; log: Log }): () => void {
  let said = false;
  return () =>
    void trimWorkingSet(launcherDirs(stateDir, env)).then((outcome) => {
      if (typeof outcome !== "string" || said) return;
      said = true;
      log.debug("not_trimmed", { why: outcome });
    });
}
