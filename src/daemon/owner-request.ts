/** What this host's owner wants done with its key and token: by the daemon that runs, or here and now where none does. */
import { z } from "zod";
import { loadEdgeConfig } from "../config/load.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { AegisError } from "../errors.ts";
import { finishCommit } from "../identity/commit-files.ts";
import { rotationFiles } from "../identity/rotation-files.ts";
import { checkStateDir } from "../identity/state-dir.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import { type Credentials, createCredentials } from "./credentials.ts";
import { dialler } from "./dial.ts";
import { keepKeyset, loadIdentity } from "./host-identity.ts";
import type { ControllerLink } from "./link.ts";
import { acquireLock, lockHolder } from "./lock.ts";
import { askDaemon, type OwnerRequest } from "./requests.ts";

const resultSchemas = {
  rotate_keys: z.object({
    fingerprint: z.string(),
    formerFingerprint: z.string(),
    tokenExpiresAtMs: z.number().nullable(),
    resumed: z.boolean(),
  }),
  refresh_token: z.object({ tokenExpiresAtMs: z.number().nullable(), renewed: z.boolean() }),
} as const;

/** What is done with key and token. */
export type KeyRequest = Exclude<OwnerRequest, { kind: "tell_status" }>;
export type OwnerResult<K extends KeyRequest["kind"]> = z.infer<(typeof resultSchemas)[K]>;

export interface OwnerOptions {
  stateDir: string;
  configPath?: string;
  env: Environment;
  home: string;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
  /** Instead of gRPC, where no daemon runs. */
  link?: ControllerLink;
}

/** What the daemon does with a request; the same is done where none runs. */
export const performed = (credentials: Credentials, request: KeyRequest): Promise<OwnerResult<KeyRequest["kind"]>> =>
  request.kind === "rotate_keys" ? credentials.rotate(request) : credentials.refresh(request);

export async function askOwnHost<R extends KeyRequest>(
  request: R,
  options: OwnerOptions,
): Promise<OwnerResult<R["kind"]>> {
  const { stateDir, signal } = options;
  while (!signal.aborted) {
    const daemon = await lockHolder(stateDir);
    if (daemon) {
      const alive = async () => (await lockHolder(stateDir))?.pid === daemon.pid;
      const answer = await askDaemon(request, { ...options, alive });
      return resultSchemas[request.kind].parse(answer) as OwnerResult<R["kind"]>;
    }
    // In this order: a daemon that starts now takes its own lock first and then looks for this one.
    const lock = await acquireLock(stateDir, "command");
    try {
      if (!(await lockHolder(stateDir))) return (await actAlone(request, options)) as OwnerResult<R["kind"]>;
    } finally {
      await lock.release();
    }
  }
  throw new AegisError("cancelled", "nothing was changed");
}

async function actAlone(request: KeyRequest, options: OwnerOptions): Promise<OwnerResult<KeyRequest["kind"]>> {
  const { stateDir, clock, env, log } = options;
  for (const message of await checkStateDir(stateDir)) log.warn("settings", { message });
  await finishCommit(stateDir);
  const { config } = await loadEdgeConfig(options);
  const identity = await loadIdentity(config);
  let { keyset } = identity;
  const link = options.link ?? dialler(config, env, () => keyset);
  const { nodeId, tenantId, keyPath, tokenPath } = config;
  const credentials = createCredentials({
    ...{ ...identity, nodeId, tenantId, rotate: link.rotate, clock, log },
    files: rotationFiles({ stateDir, keyPath, tokenPath }),
    keyset: () => keyset,
    async saveKeyset(newer: TrustedKeyset) {
      await keepKeyset(config, newer);
      keyset = newer;
    },
  });
  try {
    return await performed(credentials, request);
  } finally {
    link.close();
  }
}

/** How long a starting daemon waits for a command that changes its directory. */
const commandWithinMs = 60_000;

/** Resolves once no command has the directory. */
export async function untilUntouched(stateDir: string, clock: Clock, signal: AbortSignal): Promise<void> {
  const until = clock.monotonic() + commandWithinMs;
  for (;;) {
    const holder = await lockHolder(stateDir, "command");
    if (!holder || signal.aborted) return;
    if (clock.monotonic() > until)
      throw new AegisError("conflict", `process ${holder.pid} still changes ${stateDir}`, {
        hint: "it is an aegis command; end it, or wait for it",
      });
    await clock.sleep(100, signal);
  }
}
