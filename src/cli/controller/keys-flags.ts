/** What the commands about the controller's keys share. */
import type { KeyChange, KeyChangeOptions } from "../../controller/key-rotation.ts";
import { fingerprint } from "../../envelope/public-key.ts";
import { systemClock } from "../../platform/clock.ts";
import { resolveFrom } from "../../platform/paths.ts";
import type { Store } from "../../store/store.ts";
import type { Surroundings } from "../command.ts";
import { printResult } from "../options.ts";
import { facts } from "../terminal.ts";

export const offlineRootFlag = {
  type: "string",
  valueHint: "FILE",
  description: "the root key, when controller init wrote it elsewhere",
} as const;

export const keyChangeOptions = (
  store: Store,
  dataDir: string,
  offlineRoot: string | undefined,
  { home }: Surroundings,
): KeyChangeOptions => ({
  ...{ store, dataDir, clock: systemClock },
  ...(offlineRoot === undefined ? {} : { offlineRoot: resolveFrom(process.cwd(), offlineRoot, home) }),
});

/** How long a running controller is given to put a new key in use before the command ends without it. */
const inUseWithinMs = 5_000;

/** Whether the planned keyset is in force, after waiting a little. */
async function cameIntoUse(store: Store, { plannedVersion }: KeyChange, stop: AbortSignal): Promise<boolean> {
  if (plannedVersion === null) return true;
  const until = systemClock.monotonic() + inUseWithinMs;
  for (;;) {
    if (((await store.newestKeyset())?.version ?? 0) >= plannedVersion) return true;
    if (systemClock.monotonic() > until || stop.aborted) return false;
    await systemClock.sleep(100, stop);
  }
}

export async function tellChange(
  given: Surroundings,
  output: string | undefined,
  store: Store,
  change: KeyChange,
): Promise<void> {
  const inUse = await cameIntoUse(store, change, given.stop);
  const shown = {
    version: inUse ? (change.plannedVersion ?? change.version) : change.version,
    key_fingerprint: fingerprint(change.key),
    former_key_fingerprint: change.former && fingerprint(change.former),
    in_use: inUse,
    ...(change.rootPath === null ? {} : { root_key_file: change.rootPath }),
  };
  await printResult(given, output, shown, () =>
    facts([
      ["key", shown.key_fingerprint],
      ["former key", shown.former_key_fingerprint ?? "none"],
      ["keyset", `version ${shown.version}`],
    ]),
  );
  if (!inUse)
    given.terminal.note(
      "it is published. The running controller puts it in use once every connected host knows it: aegis controller keys ls",
    );
  if (change.rootPath !== null)
    given.terminal.note(
      `the new root key is in ${change.rootPath}: keep it off this machine, and destroy the former one, which signs nothing more`,
    );
}
