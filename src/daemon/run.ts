/** The whole edge daemon in one process: everything is read and checked first, then one session after the other. */
import { randomUUID } from "node:crypto";
import { realpath } from "node:fs/promises";
import { hostname } from "node:os";
import type { EdgeConfig } from "../config/edge.ts";
import { loadEdgeConfig } from "../config/load.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { everyContext } from "../envelope/operator.ts";
import { fingerprint } from "../envelope/public-key.ts";
import { userVerifier } from "../envelope/user.ts";
import { AegisError } from "../errors.ts";
import { finishCommit } from "../identity/commit-files.ts";
import { knownNodeLine } from "../identity/known-nodes.ts";
import { rotationFiles } from "../identity/rotation-files.ts";
import { openSecrets } from "../identity/secrets.ts";
import { checkStateDir } from "../identity/state-dir.ts";
import type { Clock } from "../platform/clock.ts";
import { garbage } from "../platform/garbage.ts";
import { atLeast, type Log } from "../platform/log.ts";
import type { Environment } from "../platform/paths.ts";
import { noTelemetry, openTelemetry } from "../telemetry/telemetry.ts";
import type { RotateKeys } from "../tools/key-rotation.ts";
import { version } from "../version.ts";
import { callLimits } from "./call-limits.ts";
import { detect, encodeCapabilities } from "./capabilities.ts";
import { compatUsers } from "./compat-call.ts";
import { type CompatSessionOptions, runCompatSession } from "./compat-session.ts";
import { createCredentials, type NodeCredentials } from "./credentials.ts";
import { dialler } from "./dial.ts";
import { hiddenPlaces } from "./hidden-places.ts";
import { keepKeyset, loadIdentity } from "./host-identity.ts";
import { createInvocations } from "./invocations.ts";
import type { Host } from "./invoke.ts";
import type { ControllerLink } from "./link.ts";
import { acquireLock } from "./lock.ts";
import { operatorChallenges } from "./operator-challenges.ts";
import { operatorOnly } from "./operator-only.ts";
import { createOperators } from "./operators.ts";
import { createOutbox } from "./outbox.ts";
import { openOwnerLog } from "./owner-log.ts";
import { performed, untilUntouched } from "./owner-request.ts";
import { isPaused } from "./pause.ts";
import { protectedPaths } from "./protected.ts";
import type { PushedSettings, StreamSettings } from "./push-config.ts";
import { type Quietness, watchQuiet } from "./quiet.ts";
import { renewed } from "./reload.ts";
import { replayGuard } from "./replay.ts";
import { type OwnerRequest, serveRequests } from "./requests.ts";
import { hostTools } from "./run-tools.ts";
import { type HostChange, runSession } from "./session.ts";
import { processStart, type StatusReport } from "./status.ts";
import { statusWriter } from "./status-writer.ts";
import { type SessionEnd, supervise } from "./supervise.ts";

/** How long calls may go on once the daemon is told to stop, how long their end may take after that, and the delivery. */
export const drainGraceMs = 20_000;
const killGraceMs = 6_000;
const deliveryMs = 2_000;

/** A connection that lived this long was a good one: the next failure starts the schedule anew. */
const healthyAfterMs = 60_000;

export interface DaemonOptions {
  stateDir: string;
  configPath?: string;
  /** One connection: ends when it ends. */
  once?: boolean;
  env: Environment;
  home: string;
  clock: Clock;
  /** Should pass every level on: the settings decide which are written. */
  log: Log;
  /** Aborting it drains: no new calls, time to finish, then the end. */
  signal: AbortSignal;
  /** Settings, keys and policy are valid, and the first dial has begun. */
  onReady?: () => void;
  onState?: (state: StatusReport["state"]) => void;
  /** Nothing goes on: after a start, after calls, and with each heartbeat from then on. */
  onQuiet?: (after: Quietness) => void;
  /** Is given what reads the settings again, to call whenever that is wanted; answers how to end that. */
  onReload?: (reload: () => Promise<void>) => () => void;
  /** Instead of gRPC. */
  link?: ControllerLink;
}

/** Resolves after the drain when `signal` aborts, or when an authenticated controller shut this daemon down. */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const { stateDir } = options;
  const openings = await checkStateDir(stateDir);
  const lock = await acquireLock(stateDir);
  try {
    await untilUntouched(stateDir, options.clock, options.signal);
    if (await finishCommit(stateDir)) options.log.warn("interrupted_change_finished", { state_dir: stateDir });
    await serve(options, openings);
  } finally {
    await lock.release();
  }
}

async function serve(options: DaemonOptions, openings: readonly string[]): Promise<void> {
  const { stateDir, clock, env } = options;
  const loaded = await loadEdgeConfig(options);
  let { config } = loaded;
  const { nodeId, tenantId, seal, heartbeatIntervalMs } = config;
  /** What the controller has set for as long as its stream lasts. */
  let pushed: PushedSettings = {};
  const level = () => pushed.logLevel ?? config.logLevel;
  const known = { node_id: nodeId, tenant_id: tenantId };
  const secrets = openSecrets(stateDir);
  const secret = (name: string) => secrets.read(name);
  const telemetry = await openTelemetry({
    ...{ config: config.otlp, env, clock, secret, log: options.log.with(known) },
    resource: {
      ...{ "service.name": "aegis-edge", "service.version": version, "service.instance.id": nodeId },
      ...{ "host.name": hostname(), "aegis.host": config.name, "aegis.node_id": nodeId, "aegis.tenant_id": tenantId },
    },
  });
  const log = atLeast(level, telemetry.watch(options.log, "debug")).with(known);
  /** Aborts when the controller asks this daemon to end. */
  const asked = new AbortController();
  const signal = AbortSignal.any([options.signal, asked.signal]);
  const identity = await loadIdentity(config);
  for (const message of [...openings, ...loaded.warnings, ...identity.warnings]) log.warn("settings", { message });
  let { keyset } = identity;
  const link = options.link ?? dialler(config, env, () => keyset);
  const saveKeyset = async (newer: TrustedKeyset) => {
    await keepKeyset(config, newer);
    keyset = newer;
    host = { ...host, users: users() };
    log.info("controller_keys_updated", { version: newer.version });
  };
  const { keyPath, tokenPath } = config;
  const credentials = createCredentials({
    ...{ ...identity, nodeId, tenantId, keyset: () => keyset, saveKeyset, clock, log },
    files: rotationFiles({ stateDir, keyPath, tokenPath }),
    rotate: link.rotate,
    onChange(what) {
      if (what !== "key") return;
      status.update(keyFacts());
      tell("identity");
    },
  });
  const nodeKey = () => credentials.current.nodeKey;
  const listeners = new Set<(change: HostChange) => void>();
  const tell = (change: HostChange) => {
    for (const listener of listeners) listener(change);
  };
  const home = await realpath(options.home).catch(() => options.home);
  const closed = await protectedPaths(config, options);
  const { mcpServers } = config;
  const rotateKeys: RotateKeys = ({ keepOldMs }) => credentials.rotate({ keepOldMs, force: false });
  const onToolsChanged = () => tell("capabilities");
  const about = { stateDir, protectedPaths: closed, clock, env, home };
  const tools = await hostTools({ ...about, mcpServers, log, secret, onToolsChanged, rotateKeys });
  void tools.learn();
  if (!tools.identity.protected) log.warn("identity_readable_by_tools", { why: tools.identity.detail.join("; ") });

  const users = () => (keyset ? userVerifier({ ...keyset, tenantId }) : compatUsers);
  const operators = createOperators({
    ...{ nodeId, tenantId, hostName: config.name, nodeKey, now: clock.now },
    policy: () => ({ trusted: config.trustedOperators, contexts: signedContexts(config) }),
    challenges: operatorChallenges(),
  });
  let host: Host = {
    ...{ nodeId, tenantId, home, contexts: config.contexts, tools: tools.registry },
    requireOperatorSignature: config.requireOperatorSignature,
    operators,
    users: users(),
    replay: replayGuard(clock),
    limits: callLimits(clock),
    paused: () => isPaused(stateDir),
    secret,
    protectedPaths: [...closed.closed, ...closed.readOnly],
    hidden: await hiddenPlaces(env, home),
  };
  const outbox = createOutbox({ nodeId, nodeKey, clock, log, garbage: garbage(clock) });
  const { maxConcurrent } = config;
  const ownerLog = openOwnerLog(stateDir, { clock, log, version });
  const invocations = createInvocations({
    ...{ host: () => host, outbox, clock, log, ownerLog, maxConcurrent },
    tracer: telemetry.tracer,
  });
  let detected = await detect(env.PATH ?? "");
  const capabilities = () =>
    encodeCapabilities({
      ...detected,
      ...config.capabilities,
      customLabels: { ...config.capabilities.customLabels, ...pushed.customLabels },
      hostName: config.name,
      heartbeatIntervalMs,
      tools: tools.registry.list(),
    });
  const settings: StreamSettings = {
    get maxConcurrent() {
      return config.maxConcurrent;
    },
    apply(next) {
      pushed = { ...pushed, ...next };
      invocations.limit(pushed.maxConcurrent ?? null);
    },
    reset() {
      pushed = {};
      invocations.limit(null);
    },
  };

  const iso = (ms: number) => new Date(ms).toISOString();
  const keyFacts = () => ({
    knownNode: knownNodeLine({ nodeId, key: nodeKey(), tenant: tenantId, name: config.name }),
    keyFingerprint: fingerprint(nodeKey()),
  });
  const status = statusWriter(
    stateDir,
    {
      ...{ nodeId, tenantId, seal, version, state: "connecting", controller: config.controller.url },
      ...{ pid: process.pid, started: (await processStart(process.pid)) ?? "unknown" },
      ...{ connectedSince: null, lastError: null, retryAt: null, identity: tools.identity },
      otlp: telemetry === noTelemetry ? null : (config.otlp?.url ?? null),
      operatorOnly: operatorOnly(config, tools.registry),
      ...keyFacts(),
      ...{ paused: isPaused(stateDir), draining: false, activeCalls: 0, queuedCalls: 0 },
      ...{ undeliveredResults: 0, at: iso(clock.now()) },
    },
    () => iso(clock.now()),
    log,
  );
  let state: StatusReport["state"] | null = null;
  const calls = () => ({
    activeCalls: invocations.active,
    queuedCalls: invocations.queued,
    undeliveredResults: outbox.waiting,
    draining: invocations.draining,
    paused: isPaused(stateDir),
  });
  const enter = (next: StatusReport["state"], change: Parameters<typeof status.update>[0] = {}) => {
    state = next;
    status.update({ state: next, connectedSince: null, retryAt: null, ...calls(), ...change });
    options.onState?.(next);
  };

  /** Calls that run go on under the policy they began with. Settings that are no good change nothing. */
  async function reload(): Promise<void> {
    try {
      const { config: fresh, warnings } = await loadEdgeConfig(options);
      const { config: next, afterRestart } = renewed(config, fresh);
      detected = await detect(env.PATH ?? "");
      config = next;
      const { contexts, requireOperatorSignature } = config;
      host = { ...host, contexts, requireOperatorSignature };
      status.update({ operatorOnly: operatorOnly(config, tools.registry) });
      invocations.allow(config.maxConcurrent);
      tell("capabilities");
      // The next challenge says which contexts need an operator's signature now.
      tell("identity");
      for (const message of warnings) log.warn("settings", { message });
      log.info("settings_reloaded", afterRestart.length > 0 ? { after_restart: afterRestart } : {});
    } catch (thrown) {
      log.error("settings_not_reloaded", { error: AegisError.from(thrown) });
    }
  }

  const stopSessions = new AbortController();
  const quiet = watchQuiet({
    ...{ clock, signal: stopSessions.signal, calls: () => invocations },
    onQuiet: (after) => options.onQuiet?.(after),
  });
  let begun = false;
  const shared: Omit<CompatSessionOptions, keyof NodeCredentials> = {
    ...{ link, clock, log, nodeId, outbox, invocations, keepToken: credentials.keepToken },
    heartbeatIntervalMs,
    capabilities,
    newStreamId: randomUUID,
    onState(next) {
      if (next.kind === "heartbeat") {
        quiet.look();
        return status.update(calls());
      }
      if (next.kind === "connected") {
        quiet.connected();
        void credentials.finish();
        return enter("connected", { connectedSince: iso(next.sinceMs), lastError: null });
      }
      enter("connecting");
      if (!begun) options.onReady?.();
      begun = true;
    },
  };
  const session = (stop: AbortSignal): Promise<SessionEnd> => {
    const trusted = keyset;
    // Null only where the settings say compat: nothing that happens later leads here.
    if (!trusted) return runCompatSession({ ...shared, ...credentials.current }, stop);
    return runSession(
      {
        ...{ ...shared, ...credentials.current, operators, settings, saveKeyset, renew: credentials.renew },
        keyset: () => keyset ?? trusted,
        onShutdown: () => asked.abort(),
        watch(listener) {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      },
      stop,
    );
  };

  const drained = drainOn(signal, async () => {
    log.info("stopping", { active: invocations.active, queued: invocations.queued });
    const patience = new AbortController();
    const late = clock.sleep(drainGraceMs + killGraceMs, patience.signal);
    status.update({ draining: true });
    await Promise.race([invocations.stop(drainGraceMs).then(() => tools.close()), late]);
    patience.abort();
    // A result counts as delivered once the controller has said that it is stored.
    const until = clock.monotonic() + deliveryMs;
    while (state === "connected" && outbox.waiting > 0 && clock.monotonic() < until)
      await clock.sleep(20, stopSessions.signal);
    if (outbox.waiting > 0) log.warn("results_undelivered", { count: outbox.waiting });
    stopSessions.abort();
  });
  void credentials.keepArchive(stopSessions.signal);
  let lastReload: Promise<void> = Promise.resolve();
  const forgetReloads = options.onReload?.(() => {
    lastReload = lastReload.then(reload);
    return lastReload;
  });
  const handle = async (request: OwnerRequest) => {
    if (request.kind !== "tell_status") return await performed(credentials, request);
    status.update(calls());
    await status.flush();
    return null;
  };
  const requests = serveRequests({ stateDir, handle, clock, log, signal: stopSessions.signal });
  try {
    if (options.once) await onlyOne(session, stopSessions.signal, () => state);
    else
      await supervise(session, {
        clock,
        backoff: { scheduleMs: config.backoffScheduleMs, random: Math.random },
        healthyAfterMs,
        signal: stopSessions.signal,
        onRetry({ failures, delayMs, cause }) {
          const { message } = AegisError.from(cause);
          log.warn("disconnected", { reason: message, failures, retry_in_ms: delayMs });
          enter("waiting", { lastError: message, retryAt: iso(clock.now() + delayMs) });
        },
      });
    if (signal.aborted) await drained.done;
    else await tools.close();
  } finally {
    forgetReloads?.();
    drained.forget();
    stopSessions.abort();
    await requests;
    link.close();
    enter("stopped");
    await status.flush();
    log.info("stopped");
    await telemetry.close();
  }
}

async function onlyOne(
  session: (stop: AbortSignal) => Promise<SessionEnd>,
  stop: AbortSignal,
  state: () => StatusReport["state"] | null,
): Promise<void> {
  const end = await session(stop).catch((cause: unknown): SessionEnd => ({ kind: "lost", cause }));
  if (end.kind === "lost" && state() !== "connected") throw AegisError.from(end.cause);
}

/** Runs `drain` when `signal` aborts. */
function drainOn(signal: AbortSignal, drain: () => Promise<void>) {
  const done = Promise.withResolvers<void>();
  const begin = () => void drain().then(done.resolve, done.reject);
  if (signal.aborted) begin();
  else signal.addEventListener("abort", begin, { once: true });
  return { done: done.promise, forget: () => signal.removeEventListener("abort", begin) };
}

/** The contexts that run only what an operator signed, as the host tells operators. */
const signedContexts = ({ requireOperatorSignature, contexts }: EdgeConfig): string[] =>
  requireOperatorSignature
    ? [everyContext]
    : [...contexts.values()].filter((one) => one.requireOperatorSignature).map(({ name }) => name);
