/** The daemon's side of its own update: it asks by a file, because its sandbox lets it replace nothing. */

import type { Environment } from "../platform/paths.ts";
import { readResult, writeRequest } from "../release/request.ts";
import type { UpdateDesk } from "../tools/self-update.ts";
import { version } from "../version.ts";

/** Set by the service's unit where a companion unit waits for requests. */
const companion = "AEGIS_UPDATE_UNIT";

export function updateDesk(stateDir: string, env: Environment): UpdateDesk {
  return {
    absent: env[companion]
      ? null
      : "nothing on this host waits for such requests: run aegis update there, or install the service with aegis edge service install",
    current: version,
    request: (id, wanted) => writeRequest(stateDir, { id, version: wanted }),
    last: () => readResult(stateDir),
  };
}
