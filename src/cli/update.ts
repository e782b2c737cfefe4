/** `update`: this executable replaced by another release, verified with the key that is built into it. */
import { realpath } from "node:fs/promises";
import { AegisError } from "../errors.ts";
import { defaultBaseUrl, webSource } from "../release/source.ts";
import { look, take, undo } from "../release/update.ts";
import { releaseKeyPem, target, version } from "../version.ts";
import { command } from "./command.ts";
import { outputFlag, printResult } from "./options.ts";

/** Exit status of --check when there is a newer release. */
const updateFound = 10;

export default command({
  example: "aegis update --check",
  details:
    "Verifies the release before it replaces anything, and keeps the old executable for --rollback. AEGIS_BASE_URL names another place that serves the same files.",
  args: {
    check: { type: "boolean", description: "only look: ends with 10 when there is a newer release" },
    version: { type: "string", valueHint: "VERSION", description: "this release, also when it is older" },
    rollback: { type: "boolean", description: "put the executable before the last update back" },
    output: outputFlag,
  },
  async run(given) {
    const { args, env, stop, terminal } = given;
    const executable = await realpath(process.execPath);
    if (args.rollback) {
      if (args.check || args.version) throw new AegisError("usage", "--rollback goes with no other flag");
      await undo(executable);
      await printResult(
        given,
        args.output,
        { executable, rolled_back: true },
        () => `${executable} is the one before the last update again\n`,
      );
      return 0;
    }
    const source = webSource(env.AEGIS_BASE_URL || defaultBaseUrl, args.version ?? null, stop);
    const onBytes = (have: number, total: number | null) => {
      terminal.draw(`\r${(have / 1e6).toFixed(1)}${total ? ` of ${(total / 1e6).toFixed(1)}` : ""} MB`);
      if (have === total) terminal.draw("\n");
    };
    const options = {
      executable,
      current: version,
      target,
      publicPem: releaseKeyPem,
      source,
      pinned: args.version !== undefined,
      onBytes,
    };
    const found = await look(options);
    const shown = {
      current: version,
      offered: found.kind === "newer" ? found.artefact.version : version,
      updated: false,
    };
    if (found.kind === "current" || args.check) {
      await printResult(given, args.output, shown, () =>
        found.kind === "newer"
          ? `aegis ${shown.offered} is there; this is ${version}\n`
          : `aegis ${version} is current\n`,
      );
      return found.kind === "newer" ? updateFound : 0;
    }
    await take(options, found.artefact);
    await printResult(
      given,
      args.output,
      { ...shown, updated: true },
      () => `aegis ${version} was replaced by ${shown.offered}\n`,
    );
    terminal.note("a running edge goes on with the old one until: aegis edge service restart");
    return 0;
  },
});
