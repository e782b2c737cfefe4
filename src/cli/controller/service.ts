/** `controller service install|uninstall|status`: systemd keeps the controller running. */
import { realpath, stat } from "node:fs/promises";
import { loadControllerConfig } from "../../config/controller.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import type { RunProgram } from "../../platform/run-program.ts";
import { systemProgram } from "../../platform/system-program.ts";
import { controllerStatus, installController, uninstallController } from "../../service/controller-systemd.ts";
import { controllerUnitPath } from "../../service/controller-unit.ts";
import { command } from "../command.ts";
import { statusRows } from "../edge/service-control.ts";
import { notifyAccess, stableExecutable, warnOfNotify } from "../edge/service-spec.ts";
import { controllerDir, outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";

function asRoot(words: string): RunProgram {
  if (process.platform !== "linux")
    throw new AegisError("unprocessable", "a service of the controller is a systemd unit, which only Linux has", {
      hint: "let your own supervisor keep this running: aegis controller start",
    });
  if (process.getuid?.() === 0) return systemProgram(systemClock);
  throw new AegisError("forbidden", "a unit of the whole system is root's to change", {
    hint: `sudo env AEGIS_HOME=$HOME/.aegis ${process.execPath} controller service ${words}`,
  });
}

/** Whoever owns the data runs the controller. */
async function ownerOf(dataDir: string, run: RunProgram): Promise<string> {
  const { uid } = await stat(dataDir);
  const { stdout } = await run("getent", ["passwd", String(uid)]);
  const [name = ""] = stdout.split(":");
  if (name !== "") return name;
  throw new AegisError("unprocessable", `${dataDir} belongs to the user ${uid}, whom this system does not know`, {
    hint: `chown -R USER ${dataDir}`,
  });
}

const install = command({
  example: "aegis controller service install",
  details: `As root. The unit starts the controller of ~/.aegis/controller (or AEGIS_HOME) now and at every boot, as the user who owns
that directory, in a sandbox that shows it nothing else. Waits until it serves. Twice is the same as once.`,
  args: { output: outputFlag },
  async run(given) {
    const run = asRoot("install");
    const wanted = controllerDir(undefined, given);
    await loadControllerConfig(wanted);
    const dataDir = await realpath(wanted);
    const user = await ownerOf(dataDir, run);
    const executable = await stableExecutable();
    const notify = await notifyAccess();
    warnOfNotify(notify, given.terminal);
    const { written, status } = await installController({ executable, dataDir, user, notify }, run);
    const shown = { unit: controllerUnitPath, written, state: status.state, pid: status.pid, user, data_dir: dataDir };
    await printResult(given, given.args.output, shown, () =>
      facts([
        ["unit", `${controllerUnitPath}${written ? "" : ", unchanged"}`],
        ["state", status.state],
        ["runs as", user],
        ["data", dataDir],
      ]),
    );
    if (user === "root")
      given.terminal.note(`it runs as root, though without any of root's powers; better: chown -R USER ${dataDir}`);
    return status.state === "running" ? 0 : 1;
  },
});

const uninstall = command({
  example: "aegis controller service uninstall",
  details: "As root. Stops the controller and removes the unit. Its data stays.",
  args: { output: outputFlag },
  async run(given) {
    const removed = await uninstallController(asRoot("uninstall"));
    await printResult(given, given.args.output, { removed: removed ? [controllerUnitPath] : [] }, () =>
      removed ? `removed ${controllerUnitPath}\n` : "no service of ours is installed\n",
    );
    return undefined;
  },
});

const status = command({
  example: "aegis controller service status",
  details: "Ends with 0 when the controller runs, with 1 when it does not.",
  args: { output: outputFlag },
  async run(given) {
    const found = await controllerStatus(systemProgram(systemClock));
    await printResult(given, given.args.output, found, () => facts(statusRows(found)));
    return found.state === "running" ? 0 : 1;
  },
});

/** As the command tree loads them. */
export const commands = { install, uninstall, status };
