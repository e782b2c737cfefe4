/** `edge keys rotate`: this host proves itself with a new key from now on. */
import { askOwnHost } from "../../daemon/owner-request.ts";
import { systemClock } from "../../platform/clock.ts";
import { command } from "../command.ts";
import { duration, edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { facts } from "../terminal.ts";
import { enrolledDir } from "./enrolled.ts";
import { noted } from "./noted.ts";

export default command({
  example: "aegis edge keys rotate --keep-old 24h",
  details: `The running daemon does it over the connection it has: no call and no stream ends. Where none runs, it is done at once.
A rotation that was cut off is finished instead. The old key goes to archive/, and is good for 10 more minutes at most.`,
  args: {
    "keep-old": {
      type: "string",
      valueHint: "DURATION",
      default: "24h",
      description: "how long the old key stays in archive/; 0s = not at all",
    },
    force: { type: "boolean", description: "give up a rotation that was begun and cannot be finished" },
    "state-dir": stateDirFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args, env, home, stop, terminal } = given;
    const stateDir = await enrolledDir(edgeDir(args["state-dir"], given));
    const keepOldMs = duration("--keep-old", args["keep-old"]);
    const done = await askOwnHost(
      { kind: "rotate_keys", keepOldMs, force: args.force },
      { stateDir, env, home, clock: systemClock, log: noted(terminal), signal: stop },
    );
    const shown = {
      key_fingerprint: done.fingerprint,
      former_key_fingerprint: done.formerFingerprint,
      token_expires_at: done.tokenExpiresAtMs === null ? null : new Date(done.tokenExpiresAtMs).toISOString(),
      resumed: done.resumed,
    };
    await printResult(given, args.output, shown, () =>
      facts([
        ["key", shown.key_fingerprint],
        ["former key", shown.former_key_fingerprint],
        ["token good until", shown.token_expires_at ?? "it does not say"],
      ]),
    );
    if (done.resumed) terminal.note("a rotation that had been cut off is finished; run it again for yet another key");
    return undefined;
  },
});
