/** `edge run`, also called `daemon`: holds the stream to the controller until it is told to stop. */
import { giveBack } from "../../daemon/give-back.ts";
import { runDaemon } from "../../daemon/run.ts";
import { serviceNotifications } from "../../daemon/service-notify.ts";
import { systemClock } from "../../platform/clock.ts";
import { onHangup } from "../../platform/signals.ts";
import { systemProgram } from "../../platform/system-program.ts";
import { command } from "../command.ts";
import { jsonLog } from "../json-log.ts";
import { configFile, configFlag, edgeDir, stateDirFlag } from "../options.ts";

export default command({
  example: "aegis edge run",
  details:
    "Ctrl-C or SIGTERM stops it: calls that run get 20 s to finish, then everything they started is ended. SIGHUP reads the settings again. Logs JSON lines to stderr, and to an OTLP collector if spec.observability.otlp names one.",
  args: {
    config: configFlag,
    "state-dir": stateDirFlag,
    once: { type: "boolean", description: "one connection; ends when it ends" },
  },
  async run(given) {
    const { args, env, home, stop } = given;
    const stateDir = edgeDir(args["state-dir"], given);
    const log = jsonLog("debug");
    const service = await serviceNotifications({
      ...{ stateDir, env, log, clock: systemClock, signal: stop },
      run: systemProgram(systemClock),
    });
    if (service) stop.addEventListener("abort", service.stopping, { once: true });
    // From the start: a SIGHUP that comes before there is anything to read again must not end the daemon.
    let reload = async () => {};
    const forgetHangups = onHangup(() => {
      service?.reloading();
      void reload().then(() => service?.reloaded());
    });
    await runDaemon({
      ...(service ? { onReady: () => service.ready(), onState: service.state } : {}),
      onQuiet: giveBack({ stateDir, env, log }),
      onReload(act) {
        reload = act;
        return forgetHangups;
      },
      stateDir,
      ...configFile(args.config, given),
      once: args.once,
      env,
      home,
      clock: systemClock,
      log,
      signal: stop,
    });
    return undefined;
  },
});
