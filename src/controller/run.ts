/** A whole controller in one process: opens its data, lets hosts and operators in, and closes everything in order. */
import { X509Certificate } from "node:crypto";
import { hostname, networkInterfaces } from "node:os";
import { loadControllerConfig } from "../config/controller.ts";
import { otlpFromEnvironment } from "../config/otlp.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { garbage } from "../platform/garbage.ts";
import type { Log } from "../platform/log.ts";
import { openFilesLimit } from "../platform/open-files.ts";
import type { Environment } from "../platform/paths.ts";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/store.ts";
import { openTelemetry } from "../telemetry/telemetry.ts";
import { version } from "../version.ts";
import { aegis } from "../wire/gen/messages.js";
import { createAuditSeal, recordAudit, sealedHeadPath } from "./audit.ts";
import { inProcessBus } from "./bus.ts";
import { createChallenges } from "./challenges.ts";
import { collecting } from "./collecting.ts";
import { controllerClock } from "./controller-clock.ts";
import { databasePath } from "./database.ts";
import { createDispatcher } from "./dispatch.ts";
import { createDoorman } from "./doorman.ts";
import { type Endpoint, readEndpoint } from "./endpoint.ts";
import { createEnrollment } from "./enrollment.ts";
import { createFleet } from "./fleet.ts";
import { startGrpc } from "./grpc.ts";
import { createApp } from "./http/app.ts";
import { createAuthenticator } from "./http/auth.ts";
import { createMcpHub } from "./http/mcp.ts";
import { createOidc, knownScopes } from "./http/oidc.ts";
import { serveHttp } from "./http/serve.ts";
import { createInventory } from "./inventory.ts";
import { createKeyChanges } from "./key-changes.ts";
import { loadControllerKeys, newestKeyset } from "./keys.ts";
import { createMetrics } from "./metrics.ts";
import { resultLedger } from "./result-ledger.ts";
import { createRevocations } from "./revocations.ts";
import { createRotations } from "./rotation.ts";
import { createSessions } from "./sessions.ts";
import { createTargets } from "./targets.ts";
import { createTenantAdmin } from "./tenants.ts";
import { expiresAt, loadTls, type TlsIdentity } from "./tls.ts";
import { publishPins } from "./tls-pins.ts";
import { certificateKeeper } from "./tls-renewal.ts";
import { broughtSource, frontSource, ownSource } from "./tls-source.ts";

const { GoodbyeReason } = aegis.cluster.v1;

export interface ControllerOptions {
  dataDir: string;
  /** 0 picks a free port. Default: the public endpoint's. */
  grpcPort?: number;
  httpPort?: number;
  /**
   * PEM files of a certificate the operator brings, instead of the controller's own. Without the key, and with
   * `insecureHttp`, it is that of a front end which ends TLS: hosts and REST are then served plain, on loopback.
   */
  tlsCert?: string;
  tlsKey?: string;
  /** No host without strict sessions is enrolled or let in. */
  requireStrict?: boolean;
  /** REST without TLS, on this machine's loopback address only, whatever the public endpoint is. */
  insecureHttp?: boolean;
  /** Where OpenTelemetry's variables are looked for, if controller.yaml names no collector. Default: nowhere. */
  env?: Environment;
  clock: Clock;
  log: Log;
}

export interface RunningController {
  grpcPort: number;
  httpPort: number;
  /** Where the REST API is reached. */
  httpUrl: string;
  /** What its clients and hosts must trust; null when a public authority issued the certificate. */
  caPem: string | null;
  controllerId: string;
  /** Resolves once everything is closed. */
  stopped: Promise<void>;
  close(): Promise<void>;
}

const defaultHttpPort = 8088;
/** How long runs may go on once the controller is told to stop, and then requests. */
const runGraceMs = 5_000;
const requestGraceMs = 2_000;
const housekeepingMs = 10 * 60_000;
const dayMs = 24 * 60 * 60_000;

export async function startController(options: ControllerOptions): Promise<RunningController> {
  const { dataDir, clock, requireStrict = false, insecureHttp = false } = options;
  const { env = {} } = options;
  const metrics = createMetrics();
  const config = await loadControllerConfig(dataDir);
  const telemetry = await openTelemetry({
    ...{ config: config.otlp ?? otlpFromEnvironment(env), env, clock, log: options.log },
    resource: {
      ...{ "service.name": "aegis-controller", "service.version": version, "host.name": hostname() },
      ...{ "service.instance.id": config.controllerId, "aegis.controller_id": config.controllerId },
    },
  });
  const log = metrics.watchLog(telemetry.watch(options.log, "info"));
  const { limits: most } = config;
  const endpoint = readEndpoint(config.publicEndpoint);
  const brought = broughtCertificate(options);
  const isBehindFront = brought !== undefined && !brought.keyPath;
  let tls = await loadTls(dataDir, brought);
  const store = await openStore(databasePath(dataDir));
  /** What was opened, to be closed the other way round. */
  const opened: Array<() => Promise<void> | void> = [() => store.close()];
  const closeAll = async () => {
    for (const close of opened.splice(0).reverse()) await close();
  };
  try {
    const keyset = await newestKeyset(store);
    const keys = await loadControllerKeys(dataDir, keyset);
    if (keyset.controllerId !== config.controllerId)
      throw new AegisError("config_invalid", "controller.yaml and the database are of different controllers", {
        hint: "restore the data directory from one backup",
      });
    const time = controllerClock(clock);
    const interrupted = await store.interruptOpenRuns(time());
    if (interrupted > 0) log.warn("runs_interrupted", { count: interrupted });

    await recordAudit(store, {
      ...{ at: time(), kind: "controller_started" },
      detail: {
        version,
        public_endpoint: endpoint.text,
        keyset_version: keyset.version,
        interrupted_runs: interrupted,
      },
    });
    const audit = createAuditSeal({
      ...{ store, keys, controllerId: config.controllerId, clock, time, log },
      headPath: sealedHeadPath(dataDir),
    });
    await audit.seal().catch((error: unknown) => log.error("audit_not_sealed", { error: AegisError.from(error) }));

    const bus = inProcessBus();
    const sessions = createSessions(bus, time, {
      ...{ onStream: () => metrics.streamOpened(), log },
      onContended: (nodeId, tenantId) =>
        void recordAudit(store, { at: time(), kind: "host_contended", tenantId, nodeId, detail: {} }).catch(
          (error: unknown) => log.error("audit_not_written", { error: AegisError.from(error) }),
        ),
    });
    metrics.attach({
      ...{ store, sessions, time },
      get certificateExpiresAt() {
        return expiresAt(tls);
      },
    });
    const ledger = resultLedger({ store, time, log });
    const keyChanges = createKeyChanges({
      ...{ store, keys, sessions, clock, time, log },
      // A key that follows may have been published, or the one in use revoked.
      onForeign: () => certificates.wake(),
    });
    const doorman = createDoorman({
      ...{ store, keys, sessions, ledger, clock, time, log, requireStrict, maxStreams: streamsFor(openFilesLimit()) },
      keysetsSince: (version) => keyChanges.since(version),
      onHeartbeat: (tenantId) => metrics.heartbeat(tenantId),
    });
    const enrollment = createEnrollment({
      ...{ store, keys, publicEndpoint: endpoint.text },
      get pins() {
        return tls.pins;
      },
      ...{ challenges: createChallenges(clock, most.enrollmentAttemptsPerMinute), clock, time, log, requireStrict },
      maxHosts: most.hosts,
      onAdmitted: (nodeId) =>
        sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REPLACED, "this host was enrolled again"),
    });
    const rotations = createRotations({
      ...{ store, keys, sessions, publicEndpoint: endpoint.text, clock, time, log },
    });
    opened.push(() => rotations.close());
    const targets = createTargets({ store, nodes: sessions });
    const dispatcher = collecting(
      metrics.watchDispatcher(createDispatcher({ bus, store, keys, controllerId: config.controllerId, clock, time })),
      garbage(clock),
    );
    const fleet = createFleet({
      ...{ store, nodes: sessions, targets, dispatcher, clock, time, log, tracer: telemetry.tracer },
      onRun: (outcome, skippedFor) => metrics.runEnded(outcome, skippedFor),
    });

    const inventory = createInventory({ store, sessions, targets, time, log });
    const revocations = createRevocations({ store, sessions, clock, log });
    const tenants = createTenantAdmin({ store, revocations, time, log });

    const renewals: Array<(next: TlsIdentity) => void> = [];
    const certificates = certificateKeeper({
      source: brought?.keyPath
        ? broughtSource({
            dataDir,
            files: { certPath: brought.certPath, keyPath: brought.keyPath },
            store,
            sessions,
            clock,
          })
        : brought
          ? frontSource(dataDir, brought.certPath)
          : ownSource({ dataDir, host: endpoint.host, store, clock }),
      current: () => tls,
      renew(next) {
        for (const renew of renewals) renew(next);
        tls = next;
      },
      keyset: () => keys.keyset,
      async publish(pins, change) {
        await publishPins({ dataDir, store, clock }, pins, change);
        await keyChanges.look();
      },
      ...{ clock, log },
    });
    // Before anybody is let in: a key that was revoked meanwhile is never shown again.
    await certificates.look();

    let state: "open" | "closing" = "open";
    const grpc = await startGrpc({
      host: isBehindFront ? loopbackAddress(endpoint) : listenAddress(endpoint),
      port: options.grpcPort ?? endpoint.port,
      ...{ tls: isBehindFront ? null : tls, doorman, enrollment, rotations, log },
    });
    renewals.push((next) => grpc.renew(next));
    opened.push(() => grpc.close());

    const mcp = createMcpHub({ fleet, nodes: sessions, store, clock, log });
    const oidc = config.oidc && createOidc({ config: knownScopes(config.oidc), store, clock, time, log });
    const app = createApp({
      authenticator: createAuthenticator({ store, time, log, oidc }),
      ...{ store, nodes: sessions, targets, enrollment, fleet, inventory, tenants, metrics, mcp, clock, time, log },
      get hostNames() {
        return [endpoint.host, ...certificateNames(tls.certPem)];
      },
      enrollmentTokensPerMinute: most.enrollmentTokensPerMinute,
      ready: async () => state === "open" && (await store.newestKeyset().catch(() => null)) !== null,
    });
    const plain = endpoint.loopback || insecureHttp;
    const host = plain ? loopbackAddress(endpoint) : listenAddress(endpoint);
    const http = serveHttp({ app, host, port: options.httpPort ?? defaultHttpPort, tls: plain ? null : tls });
    const httpUrl = plain
      ? `http://${endpoint.loopback ? endpoint.authority(http.port) : `127.0.0.1:${http.port}`}`
      : `https://${endpoint.authority(http.port)}`;

    const housekeeping = new AbortController();
    void mcp.watch(housekeeping.signal);
    if (!plain) renewals.push((next) => http.renew(next));
    void certificates.watch(housekeeping.signal);
    void audit.keepSealed(housekeeping.signal);
    void revocations.watch(housekeeping.signal);
    void keyChanges.watch(housekeeping.signal);
    void keepHouse({ store, time, clock, log, runRetentionDays: most.runRetentionDays }, housekeeping.signal);

    let closed: Promise<void> | null = null;
    let stop: () => void = () => {};
    const stopped = new Promise<void>((resolve) => {
      stop = resolve;
    });
    const close = async () => {
      state = "closing";
      log.info("controller_stopping");
      grpc.stopServing();
      housekeeping.abort();
      await fleet.close(runGraceMs);
      sessions.closeAll(GoodbyeReason.GOODBYE_REASON_MAINTENANCE, "the controller stops");
      const patience = new AbortController();
      await Promise.race([http.close(false), clock.sleep(requestGraceMs, patience.signal)]);
      patience.abort();
      await http.close(true);
      await recordAudit(store, { at: time(), kind: "controller_stopped", detail: {} });
      await audit.seal().catch((error: unknown) => log.error("audit_not_sealed", { error: AegisError.from(error) }));
      await closeAll();
      log.info("controller_stopped");
      await telemetry.close();
      stop();
    };
    log.info("controller_started", {
      ...{ controller_id: config.controllerId, grpc_port: grpc.port, http_url: httpUrl },
      ...{ public_endpoint: endpoint.text, require_strict: requireStrict },
    });
    return {
      grpcPort: grpc.port,
      httpPort: http.port,
      httpUrl,
      get caPem() {
        return tls.caPem;
      },
      controllerId: config.controllerId,
      stopped,
      close: () => {
        closed ??= close();
        return closed;
      },
    };
  } catch (thrown) {
    await closeAll();
    await telemetry.close();
    throw thrown;
  }
}

function broughtCertificate(options: ControllerOptions): { certPath: string; keyPath?: string } | undefined {
  const { tlsCert, tlsKey, insecureHttp } = options;
  if (tlsCert && tlsKey) return { certPath: tlsCert, keyPath: tlsKey };
  if (!tlsCert && !tlsKey) return undefined;
  if (tlsCert && insecureHttp) return { certPath: tlsCert };
  throw new AegisError("usage", "--tls-cert and --tls-key belong together: one of them is missing", {
    hint: "where a front end has the key and ends TLS: --insecure-http and --tls-cert alone",
  });
}

/** Files that hosts leave to operators' connections, the database and its like: without them nobody could ask why. */
const filesForTheRest = 128;

/** Each host takes a connection, and with it a file. */
const streamsFor = (files: number | null): number =>
  files === null ? Number.POSITIVE_INFINITY : Math.max(1, files - filesForTheRest);

/** Only this machine for a loopback endpoint; else every address there is. */
function listenAddress(endpoint: Endpoint): string {
  if (endpoint.loopback) return loopbackAddress(endpoint);
  const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some(({ family }) => family === "IPv6"),
  );
  return hasIpv6 ? "::" : "0.0.0.0";
}

const loopbackAddress = ({ host, loopback }: Endpoint): string =>
  loopback && host !== "localhost" ? host : "127.0.0.1";

/** The names of the leaf, by which this controller may also be called. */
function certificateNames(pem: string): string[] {
  const names = new X509Certificate(pem).subjectAltName ?? "";
  return [...names.matchAll(/DNS:([^\s,"]+)/g)].map((match) => match[1] ?? "");
}

interface House {
  store: Pick<Store, "pruneRedemptions" | "pruneIdempotencyKeys" | "pruneRuns">;
  time: () => number;
  clock: Clock;
  log: Log;
  runRetentionDays: number;
}

/** Runs that are forgotten in one step: others use the database meanwhile. */
const runsAtOnce = 200;

/** Forgets what has no more use, now and from time to time. */
export async function keepHouse(house: House, signal: AbortSignal): Promise<void> {
  const { store, time, clock, log, runRetentionDays } = house;
  const tidy = async () => {
    const yesterday = time() - dayMs;
    await Promise.all([store.pruneRedemptions(yesterday), store.pruneIdempotencyKeys(yesterday)]);
    let forgotten = 0;
    for (let some = runsAtOnce; some === runsAtOnce && !signal.aborted; forgotten += some)
      some = await store.pruneRuns(time() - runRetentionDays * dayMs, runsAtOnce);
    if (forgotten > 0) log.info("runs_forgotten", { count: forgotten, older_than_days: runRetentionDays });
  };
  while (!signal.aborted) {
    await tidy().catch((error: unknown) => log.error("housekeeping_failed", { error: AegisError.from(error) }));
    await clock.sleep(housekeepingMs, signal);
  }
}
