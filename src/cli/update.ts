/** `update`: this executable replaced by another release, verified with the key that is built into it. */
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { systemClock } from "../platform/clock.ts";
import { aegisHome } from "../platform/paths.ts";
import { systemProgram } from "../platform/system-program.ts";
import { takeRequest, writeResult } from "../release/request.ts";
import { defaultBaseUrl, webSource } from "../release/source.ts";
import { look, take, type UpdateOptions, undo } from "../release/update.ts";
import { releaseKeyPem, target, version } from "../version.ts";
import { command, type Surroundings } from "./command.ts";
import { ownExecutable } from "./edge/service-spec.ts";
import { outputFlag, printResult } from "./options.ts";
import { type RunningService, runningService, updateFor } from "./update-service.ts";

/** Exit status of --check when there is a newer release. */
const updateFound = 10;

export default command({
  example: "aegis update --check",
  details: `Verifies the release before it replaces anything, and keeps the old executable for --rollback. A download that broke off
goes on where it stopped, also when the command is given again. A service that runs is restarted; when it is not connected
again within 2 minutes, the old executable comes back. AEGIS_BASE_URL names another place that serves the same files.`,
  args: {
    check: { type: "boolean", description: "only look: ends with 10 when there is a newer release" },
    version: { type: "string", valueHint: "VERSION", description: "this release, also when it is older" },
    rollback: { type: "boolean", description: "put the executable before the last update back" },
    output: outputFlag,
  },
  async run(given) {
    const { args, env, terminal } = given;
    const stateDir = updateFor(env);
    if (stateDir !== null) return await answerRequest(stateDir, given);
    const executable = await ownExecutable();
    if (args.rollback) {
      if (args.check || args.version) throw new AegisError("usage", "--rollback goes with no other flag");
      await undo(executable);
      await (await runningService(given))?.restart();
      const text = () => `${executable} is the one before the last update again\n`;
      await printResult(given, args.output, { executable, rolled_back: true }, text);
      return 0;
    }
    const downloads = join(aegisHome(env, given.home), "update");
    const options = optionsFor(executable, args.version ?? null, args.version !== undefined, downloads, given);
    const found = await look(options);
    const offered = found.kind === "newer" ? found.artefact.version : version;
    if (found.kind === "current" || args.check) {
      const words =
        found.kind === "newer" ? `aegis ${offered} is there; this is ${version}\n` : `aegis ${version} is current\n`;
      await printResult(given, args.output, { current: version, offered, updated: false }, () => words);
      return found.kind === "newer" ? updateFound : 0;
    }
    const service = await runningService(given);
    await take(options, found.artefact);
    if (service) await prove(executable, offered, service, (text) => terminal.note(text));
    await printResult(
      given,
      args.output,
      { current: version, offered, updated: true },
      () => `aegis ${version} was replaced by ${offered}\n`,
    );
    return 0;
  },
});

function optionsFor(
  executable: string,
  wanted: string | null,
  pinned: boolean,
  downloads: string | null,
  { env, stop, terminal }: Surroundings,
): UpdateOptions {
  const onBytes = (have: number, total: number | null) => {
    terminal.draw(`\r${(have / 1e6).toFixed(1)}${total ? ` of ${(total / 1e6).toFixed(1)}` : ""} MB`);
    if (have === total) terminal.draw("\n");
  };
  const source = webSource(env.AEGIS_BASE_URL || defaultBaseUrl, wanted, stop);
  const ours = { current: version, target, publicPem: releaseKeyPem };
  return {
    executable,
    ...ours,
    source,
    pinned,
    downloads,
    clock: systemClock,
    run: systemProgram(systemClock),
    signal: stop,
    onBytes,
  };
}

/** Restarts the service and goes back when the new executable does not connect where the old one did. */
async function prove(
  executable: string,
  offered: string,
  service: RunningService,
  say: (text: string) => void,
): Promise<void> {
  const failure = await service.restart().then(
    () => (service.wasConnected ? service.connected() : null),
    (error: unknown) => AegisError.from(error).message,
  );
  if (failure === null)
    return say(
      service.wasConnected
        ? "the service is connected again"
        : "the service was restarted; it was not connected before",
    );
  await undo(executable);
  await service.restart();
  throw new AegisError("unavailable", `aegis ${offered} did not connect (${failure}); ${version} is back`, {
    hint: "aegis edge service logs --lines 50",
  });
}

/** What the companion unit runs: the daemon asked by a file, and reads the answer from one. */
async function answerRequest(stateDir: string, given: Surroundings): Promise<number> {
  const request = await takeRequest(stateDir);
  if (!request) return 0;
  const tell = (ok: boolean, now: string, message: string) =>
    writeResult(stateDir, { id: request.id, ok, version: now, message, at: new Date(systemClock.now()).toISOString() });
  try {
    const executable = await ownExecutable();
    // Never pinned: an older release is refused, whoever asks. Nothing is kept where the daemon's tools could reach it.
    const options = optionsFor(executable, request.version, false, null, given);
    const found = await look(options);
    if (found.kind === "current") {
      await tell(true, version, `aegis ${version} is current`);
      return 0;
    }
    const service = await runningService(given);
    await take(options, found.artefact);
    if (service) await prove(executable, found.artefact.version, service, (text) => given.terminal.note(text));
    await tell(true, found.artefact.version, `aegis ${version} was replaced by ${found.artefact.version}`);
    return 0;
  } catch (thrown) {
    const error = AegisError.from(thrown);
    await tell(false, version, error.message);
    throw error;
  }
}
