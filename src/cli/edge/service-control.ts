/** `edge service uninstall|status|restart|logs`: what is done with a service that is there. */
import { open, readFile } from "node:fs/promises";
import { systemClock } from "../../platform/clock.ts";
import { systemProcesses } from "../../platform/process.ts";
import { type Uninstalled, uninstall as uninstallService } from "../../service/manager.ts";
import type { ServiceStatus } from "../../service/spec.ts";
import { command, type Surroundings } from "../command.ts";
import { outputFlag, printResult, wholeNumber } from "../options.ts";
import { facts } from "../terminal.ts";
import { installOptions, plainFlags, serviceSpec, systemFlag } from "./service-spec.ts";

/** Also what `edge logout --service` does. */
export async function removeOwnService(around: Surroundings, system = false): Promise<Uninstalled> {
  const spec = await serviceSpec({ ...plainFlags, system }, [], around);
  return await uninstallService(spec, installOptions(spec.stateDir, "refuse", around));
}

const uninstall = command({
  example: "aegis edge service uninstall",
  details: "Stops the service and removes the files that aegis wrote for it. Keys, settings and logs stay.",
  args: { system: systemFlag, output: outputFlag },
  async run(given) {
    const { removed, left } = await removeOwnService(given, given.args.system);
    await printResult(given, given.args.output, { removed, left }, () =>
      removed.length > 0 ? removed.map((path) => `removed ${path}\n`).join("") : "no service of ours is installed\n",
    );
    for (const path of left) given.terminal.note(`${path} stays: somebody else wrote it`);
    return undefined;
  },
});

const status = command({
  example: "aegis edge service status",
  details:
    "Ends with 0 when the service runs, with 1 when it does not. Whether it is connected says: aegis edge status.",
  args: { system: systemFlag, output: outputFlag },
  async run(given) {
    const spec = await serviceSpec({ ...plainFlags, system: given.args.system }, [], given);
    const options = installOptions(spec.stateDir, "refuse", given);
    const found = await options.manager.status(spec, options);
    await printResult(given, given.args.output, { manager: options.manager.name, ...found }, () =>
      facts([["service", options.manager.name], ...statusRows(found)]),
    );
    return found.state === "running" ? 0 : 1;
  },
});

export const statusRows = ({ state, pid, detail, restarts, enabled }: ServiceStatus): [string, string][] => [
  ["state", state],
  ["process", pid === null ? "" : String(pid)],
  ["says", detail],
  ["restarts", restarts === null ? "" : String(restarts)],
  ["at start", enabled ? "yes" : "no"],
];

const restart = command({
  example: "aegis edge service restart",
  details: "Calls that run get 20 s to finish; the daemon connects again with the same key.",
  args: { system: systemFlag },
  async run(given) {
    const spec = await serviceSpec({ ...plainFlags, system: given.args.system }, [], given);
    const options = installOptions(spec.stateDir, "refuse", given);
    await options.manager.restart(spec, options);
    const problem = await options.connected(15_000);
    given.terminal.note(problem === null ? "restarted and connected" : `restarted, and not connected yet: ${problem}`);
    return problem === null ? 0 : 5;
  },
});

const logs = command({
  example: "aegis edge service logs --follow",
  details: "The daemon's own JSON lines, as the system keeps them.",
  args: {
    system: systemFlag,
    follow: { type: "boolean", description: "go on as more is written, until Ctrl-C" },
    lines: { type: "string", valueHint: "N", default: "100", description: "how many of the last lines" },
  },
  async run(given) {
    const { args, terminal, stop, env } = given;
    const spec = await serviceSpec({ ...plainFlags, system: args.system }, [], given);
    const { manager } = installOptions(spec.stateDir, "refuse", given);
    const lines = wholeNumber("--lines", args.lines, 1, 100_000);
    const where = manager.logs(spec, { lines, follow: args.follow });
    if ("files" in where) {
      await tail(where.files, lines, args.follow ? stop : null, (text) => terminal.data(text));
      return 0;
    }
    const [name = "", ...rest] = where.command;
    const handle = systemProcesses({ clock: systemClock, launcher: null }).start({
      executable: Bun.which(name) ?? name,
      name,
      args: rest,
      cwd: "/",
      env: Object.fromEntries(
        Object.entries(env).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])),
      ),
      stdin: null,
      output: (pipe, piece) => (pipe === "stdout" ? terminal.data(piece) : terminal.passthrough(piece)),
    });
    stop.addEventListener("abort", handle.stop, { once: true });
    const end = await handle.ended;
    return end.kind === "exited" ? end.code : stop.aborted ? 0 : 1;
  },
});

/** The last lines of each file, then what is added to the first, which holds the daemon's log. */
async function tail(
  paths: readonly string[],
  lines: number,
  follow: AbortSignal | null,
  write: (text: string) => Promise<void>,
): Promise<void> {
  for (const path of paths) {
    const text = await readFile(path, "utf8").catch(() => "");
    const last = text
      .split("\n")
      .slice(-(lines + 1))
      .join("\n");
    if (last !== "") await write(last);
  }
  const [path] = paths;
  if (!follow || path === undefined) return;
  let at = await readFile(path).then(
    ({ length }) => length,
    () => 0,
  );
  while (!follow.aborted) {
    await systemClock.sleep(500, follow);
    const file = await open(path, "r").catch(() => null);
    if (!file) continue;
    try {
      const { size } = await file.stat();
      if (size < at) at = 0; // rotated
      if (size === at) continue;
      const { buffer, bytesRead } = await file.read(Buffer.alloc(size - at), 0, size - at, at);
      at += bytesRead;
      await write(buffer.toString("utf8", 0, bytesRead));
    } finally {
      await file.close();
    }
  }
}

/** As the command tree loads them. */
export const commands = { uninstall, status, restart, logs };
