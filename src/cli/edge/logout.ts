/** `edge logout`: this machine is no host any more: its daemon stops, its key and token are gone. */
import { rm } from "node:fs/promises";
import { loadEdgeConfig } from "../../config/load.ts";
import { lockHolder } from "../../daemon/lock.ts";
import { AegisError } from "../../errors.ts";
import { statePaths } from "../../identity/state-dir.ts";
import { systemClock as clock } from "../../platform/clock.ts";
import { command, type Surroundings } from "../command.ts";
import { edgeDir, stateDirFlag } from "../options.ts";
import { enrolledDir } from "./enrolled.ts";
import { removeOwnService } from "./service-control.ts";

/** A daemon that is told to stop gives its calls 20 s, and what they leave a few more. */
const stopWithinMs = 35_000;

export default command({
  example: "aegis edge logout",
  details: `Stops the daemon and deletes node.key and node.token; settings, secrets and the node id stay for the next enrollment.
The controller goes on knowing the host, as disconnected, until an operator runs aegis edge keys revoke-remote.`,
  args: {
    revoke: {
      type: "boolean",
      description: "also revoke this host at the controller, with the operator's profile here",
    },
    service: { type: "boolean", description: "also remove the service" },
    purge: { type: "boolean", description: "delete the whole state directory" },
    force: { type: "boolean", description: "end a daemon that does not stop by itself" },
    "state-dir": stateDirFlag,
  },
  async run(given) {
    const { args, terminal } = given;
    const stateDir = await enrolledDir(edgeDir(args["state-dir"], given));
    const { nodeId, files } = await identityOf(stateDir, given);
    // First, because it is the step that others may refuse.
    if (args.revoke) await revoke(nodeId, stateDir, given);
    await stopDaemon(stateDir, args.force, given);
    if (args.service) await removeService(given);
    if (args.purge) await rm(stateDir, { recursive: true, force: true });
    for (const path of files) await rm(path, { force: true });
    terminal.note(args.purge ? `${stateDir} is gone` : "this host's key and token are gone");
    if (args.revoke) terminal.note("the controller denies it for good");
    else if (nodeId !== null)
      terminal.note(
        `the controller still lists it as disconnected; to revoke it: aegis edge keys revoke-remote ${nodeId}`,
      );
    return undefined;
  },
});

async function removeService(around: Surroundings): Promise<void> {
  const { removed, left } = await removeOwnService(around);
  for (const path of removed) around.terminal.note(`removed ${path}`);
  for (const path of left) around.terminal.note(`${path} stays: somebody else wrote it`);
}

/** Also of a host whose settings are damaged, as far as the usual places go. */
async function identityOf(
  stateDir: string,
  { env, home }: Surroundings,
): Promise<{ nodeId: string | null; files: readonly string[] }> {
  const usual = statePaths(stateDir);
  const always = [usual.nextKey, usual.enrollmentJwt];
  try {
    const { config } = await loadEdgeConfig({ stateDir, env, home });
    return { nodeId: config.nodeId, files: [config.keyPath, `${config.keyPath}.pub`, config.tokenPath, ...always] };
  } catch {
    return { nodeId: null, files: [usual.key, usual.publicKey, usual.token, ...always] };
  }
}

async function revoke(nodeId: string | null, stateDir: string, given: Surroundings): Promise<void> {
  if (nodeId === null)
    throw new AegisError(
      "config_invalid",
      `the settings in ${stateDir} do not tell which host this is; nothing was changed`,
      {
        hint: "leave --revoke out, and revoke it by name: aegis edge keys revoke-remote NODE",
      },
    );
  const { connect } = await import("../connection.ts");
  await (await connect(given)).revokeHost(nodeId);
}

async function stopDaemon(stateDir: string, force: boolean, { terminal, stop }: Surroundings): Promise<void> {
  const holder = await lockHolder(stateDir);
  if (!holder) return;
  terminal.note(`stopping the daemon (process ${holder.pid})`);
  process.kill(holder.pid, "SIGTERM");
  const until = clock.monotonic() + stopWithinMs;
  while ((await lockHolder(stateDir))?.pid === holder.pid) {
    if (stop.aborted) throw new AegisError("cancelled", "stopped waiting for the daemon; nothing was deleted");
    if (clock.monotonic() > until) {
      if (!force)
        throw new AegisError("conflict", `the daemon (process ${holder.pid}) does not stop; nothing was deleted`, {
          hint: "aegis edge logout --force ends it",
        });
      process.kill(holder.pid, "SIGKILL");
    }
    await clock.sleep(50, stop);
  }
}
