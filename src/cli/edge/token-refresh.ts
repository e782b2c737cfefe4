/** `edge token refresh`: a new node token for the key that this host has. */
import { askOwnHost } from "../../daemon/owner-request.ts";
import { systemClock } from "../../platform/clock.ts";
import { command } from "../command.ts";
import { edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { facts } from "../terminal.ts";
import { enrolledDir } from "./enrolled.ts";
import { noted } from "./noted.ts";

export default command({
  example: "aegis edge token refresh",
  details: `A running daemon does this by itself when half of the token's life is over. It works with a token that expired, for
365 days: the key proves the host. A token from the last hour is left as it is.`,
  args: {
    force: { type: "boolean", description: "also when the token is from the last hour" },
    "state-dir": stateDirFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args, env, home, stop, terminal } = given;
    const stateDir = await enrolledDir(edgeDir(args["state-dir"], given));
    const done = await askOwnHost(
      { kind: "refresh_token", force: args.force },
      { stateDir, env, home, clock: systemClock, log: noted(terminal), signal: stop },
    );
    const shown = {
      renewed: done.renewed,
      token_expires_at: done.tokenExpiresAtMs === null ? null : new Date(done.tokenExpiresAtMs).toISOString(),
    };
    await printResult(given, args.output, shown, () =>
      facts([["token good until", shown.token_expires_at ?? "it does not say"]]),
    );
    if (!done.renewed) terminal.note("it is from the last hour, so nothing was done; --force renews it anyway");
    return undefined;
  },
});
