/** `edge service install` and `reinstall`: the daemon as a service that is proved to have started. */
import { access, readFile } from "node:fs/promises";
import { withFolders } from "../../daemon/enroll-config.ts";
import { AegisError } from "../../errors.ts";
import { PUBLIC_FILE, writeFileAtomic } from "../../platform/private-file.ts";
import { serviceManager } from "../../service/detect.ts";
import { install as installService, uninstall } from "../../service/manager.ts";
import type { ServiceSpec } from "../../service/spec.ts";
import { command, type Given, type Surroundings } from "../command.ts";
import { outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";
import { installFlags, installOptions, plainFlags, serviceSpec, warnOfNotify } from "./service-spec.ts";

const args = { ...installFlags, output: outputFlag };

const install = command({
  example: "aegis edge service install --allow ~/projects",
  details: `Writes the unit for this system, starts it now and at every boot, and waits until it is ready and connected. The same flags
twice change nothing; other flags change what is there. The sandbox hides your files from tools: --allow shows a folder to
them and allows reading in it.`,
  args,
  run: (given) => perform(given, false),
});

const reinstall = command({
  example: "aegis edge service reinstall",
  details: "Removes what is installed, then installs it anew with the flags given now.",
  args,
  run: (given) => perform(given, true),
});

async function perform(given: Given<typeof args>, anew: boolean): Promise<number> {
  const { terminal } = given;
  if (given.args.force && given.args["keep-existing"])
    throw new AegisError("usage", "--force and --keep-existing are opposites: give one of them");
  if (given.args.platform !== undefined && !given.args.print)
    throw new AegisError("usage", "--platform goes with --print");
  const spec = await serviceSpec(given.args, given.every("allow"), given);
  if (given.args.print) {
    await terminal.data(serviceManager(given.args.platform).print(spec));
    return 0;
  }
  await access(spec.configPath).catch((cause: Error) => {
    throw new AegisError("not_enrolled", `this host is not enrolled: ${spec.configPath} does not exist`, {
      cause,
      hint: "aegis edge enroll TOKEN",
    });
  });
  return await installAndTell(spec, given, anew);
}

interface Wanted {
  system: boolean;
  allow: readonly string[];
  unsandboxed: boolean;
  force: boolean;
}

/** What `edge enroll` ends with: the host is enrolled whatever becomes of this. */
export async function installAfterEnrollment(
  { system, allow, unsandboxed, force }: Wanted,
  around: Surroundings,
): Promise<number> {
  const flags = { ...plainFlags, system, "allow-unsandboxed": unsandboxed };
  try {
    const spec = await serviceSpec(flags, allow, around);
    warnOfNotify(spec.notify, around.terminal);
    const options = installOptions(spec.stateDir, force ? "force" : "refuse", around);
    const { status, notConnected } = await installService(spec, options);
    const connection = notConnected === null ? "connected" : `not connected yet: ${notConnected}`;
    around.terminal.note(`the service ${options.manager.name} keeps it ${status.state}; it is ${connection}`);
    return notConnected === null ? 0 : 5;
  } catch (thrown) {
    const { code, message, hint } = AegisError.from(thrown);
    throw new AegisError(code, `this host is enrolled, and no service was installed: ${message}`, {
      cause: thrown,
      hint: `${hint ? `${hint}; then: ` : ""}aegis edge service install`,
    });
  }
}

async function installAndTell(spec: ServiceSpec, given: Given<typeof args>, anew: boolean): Promise<number> {
  const { terminal } = given;
  const conflicts = given.args.force ? "force" : given.args["keep-existing"] ? "keep" : "refuse";
  const options = installOptions(spec.stateDir, conflicts, given);
  warnOfNotify(spec.notify, terminal);
  if (anew) await uninstall(spec, options);
  await allowInPolicy(spec);
  const { written, status, notConnected } = await installService(spec, options);
  const shown = {
    service: options.manager.name,
    state: status.state,
    pid: status.pid,
    connected: notConnected === null,
    written,
  };
  await printResult(given, given.args.output, shown, () =>
    facts([
      ["service", `${options.manager.name}, ${status.state}`],
      ["changed", written.length > 0 ? written.join(" ") : "nothing"],
      ["connected", notConnected === null ? "yes" : `not yet: ${notConnected}`],
    ]),
  );
  if (notConnected !== null) terminal.note("it goes on trying; aegis edge status says when it is connected");
  return notConnected === null ? 0 : 5;
}

/** One flag, both halves: what the sandbox shows is also what the policy allows to read. */
async function allowInPolicy({ allow, configPath }: ServiceSpec): Promise<void> {
  if (allow.length === 0) return;
  const text = await readFile(configPath, "utf8");
  const changed = withFolders(
    configPath,
    text,
    allow.map(({ path }) => path),
  );
  if (changed === null) return;
  await writeFileAtomic(`${configPath}.bak`, text);
  await writeFileAtomic(configPath, changed, PUBLIC_FILE);
}

/** As the command tree loads them. */
export const commands = { install, reinstall };
