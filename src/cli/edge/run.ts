/** `edge run`, also called `daemon`: holds the stream to the controller until it is told to stop. */
import { runDaemon } from "../../daemon/run.ts";
import { systemClock } from "../../platform/clock.ts";
import { command } from "../command.ts";
import { jsonLog } from "../json-log.ts";
import { configFile, configFlag, edgeDir, stateDirFlag } from "../options.ts";

export default command({
  example: "aegis edge run",
  details:
    "Ctrl-C or SIGTERM stops it: calls that run get 20 s to finish, then everything they started is ended. Logs JSON lines to stderr.",
  args: {
    config: configFlag,
    "state-dir": stateDirFlag,
    once: { type: "boolean", description: "one connection; ends when it ends" },
  },
  async run(given) {
    const { args, env, home, stop } = given;
    await runDaemon({
      stateDir: edgeDir(args["state-dir"], given),
      ...configFile(args.config, given),
      once: args.once,
      env,
      home,
      clock: systemClock,
      log: jsonLog("debug"),
      signal: stop,
    });
    return undefined;
  },
});
