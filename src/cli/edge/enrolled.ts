/** Commands for a host's owner begin here: whether the state directory is that of an enrolled host. */

import { AegisError } from "../../errors.ts";
import { statePaths } from "../../identity/state-dir.ts";
import { readTextFile } from "../../platform/text-file.ts";

/** Answers `stateDir`, or says that nobody enrolled there. */
export async function enrolledDir(stateDir: string): Promise<string> {
  if ((await readTextFile(statePaths(stateDir).config)) !== null) return stateDir;
  throw new AegisError("not_enrolled", `this host is not enrolled: ${statePaths(stateDir).config} does not exist`, {
    hint: "aegis edge enroll TOKEN",
  });
}
