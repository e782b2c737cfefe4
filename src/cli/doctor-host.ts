/** What `doctor` looks at on an enrolled host: its files, the way to its controller, its daemon. */
import { lookup } from "node:dns/promises";
import { realpath } from "node:fs/promises";
import { isIP } from "node:net";
import { formatDuration } from "../config/duration.ts";
import type { EdgeConfig } from "../config/edge.ts";
import { loadEdgeConfig } from "../config/load.ts";
import type { OtlpConfig } from "../config/otlp.ts";
import { vouchedBy } from "../daemon/dial.ts";
import { type GrpcLink, grpcLink } from "../daemon/grpc-link.ts";
import { loadIdentity } from "../daemon/host-identity.ts";
import { LinkError } from "../daemon/link.ts";
import { protectedPaths } from "../daemon/protected.ts";
import { hostTools } from "../daemon/run-tools.ts";
import { readStatus } from "../daemon/status.ts";
import { reach, startTls } from "../daemon/tunnel.ts";
import { AegisError, errorTable } from "../errors.ts";
import { openSecrets } from "../identity/secrets.ts";
import { checkStateDir } from "../identity/state-dir.ts";
import { systemClock as clock } from "../platform/clock.ts";
import { type ProxyRoute, proxyFor } from "../platform/proxy-env.ts";
import type { Surroundings } from "./command.ts";
import { examined, type Finding, failed, ok, skipped, warning } from "./doctor-findings.ts";
import { examineService } from "./doctor-service.ts";

export interface HostPlace {
  stateDir: string;
  configPath?: string;
}

/** A frame says when it was made; a command that seems older than this is refused. */
const toleratedOffsetMs = 15_000;

export async function* examineHost(place: HostPlace, around: Surroundings): AsyncGenerator<Finding> {
  const { env, home } = around;
  const state = await examined("state", async () => {
    const warnings = await checkStateDir(place.stateDir);
    const finding =
      warnings.length > 0
        ? warning("state", warnings.join("; "), "nothing: it is mended now")
        : ok("state", place.stateDir);
    return { value: true, finding };
  });
  yield state.finding;
  if (state.value === null) return;

  const settings = await examined("settings", async () => {
    const { config, warnings } = await loadEdgeConfig({ ...place, env, home });
    const finding =
      warnings.length > 0
        ? warning("settings", warnings.join("; "), `edit ${config.configPath}, then restart the daemon`)
        : ok("settings", `${config.configPath}: host ${config.name} of tenant ${config.tenantId}`);
    return { value: config, finding };
  });
  yield settings.finding;
  const config = settings.value;
  if (!config) return;

  const identity = await examined("identity", async () => {
    const { warnings, keyset } = await loadIdentity(config);
    const tls = config.controller.tls && { ...config.controller.tls, ...vouchedBy(keyset) };
    return {
      value: { ...config.controller, tls },
      finding: ok("identity", [`node ${config.nodeId}`, ...warnings].join("; ")),
    };
  });
  yield identity.finding;
  yield* examineWay(identity.value ? { ...config, controller: identity.value } : config, around);
  yield await examineDaemon(place.stateDir);
  yield* examineService(place.stateDir, around);
  yield await examineTools(config, around);
  if (config.otlp) yield await examineCollector(config.otlp, config.stateDir, around);
}

/** From the name to an answer over gRPC, one step after the other; the first that fails ends it. */
async function* examineWay(
  { controller, proxy: configured }: EdgeConfig,
  { env }: Surroundings,
): AsyncGenerator<Finding> {
  const { host, port, tls } = controller;
  const target = { host, port };
  const settings = {
    ...(configured?.httpsProxy == null ? {} : { httpsProxy: configured.httpsProxy }),
    ...(configured?.noProxy == null ? {} : { noProxy: configured.noProxy }),
  };
  const route = await examined("proxy", async () => {
    const proxy = tls ? proxyFor(target, settings, env) : null;
    return {
      value: { proxy },
      finding: ok(
        "proxy",
        proxy ? `${proxy.host} port ${proxy.port}, from ${proxy.from}` : "none: the connection is direct",
      ),
    };
  });
  yield route.finding;
  if (!route.value) return;
  const { proxy } = route.value;

  const name = await examineName((proxy ?? target).host);
  yield name;
  if (name.state === "failed") return;

  const tcp = await examined("tcp", async () => {
    const started = clock.monotonic();
    (await reach(target, proxy)).destroy();
    const took = Math.round(clock.monotonic() - started);
    const detail = `${host} port ${port} answers in ${took} ms${proxy ? " through the proxy" : ""}`;
    return { value: true, finding: ok("tcp", detail) };
  });
  // A proxy that refuses says best itself what to do.
  const remedy = proxy
    ? `check that the proxy ${proxy.host} port ${proxy.port} runs and lets this machine in, or set another one: ${proxy.from}`
    : `check that the controller runs and that nothing in between blocks ${host} port ${port}`;
  yield tcp.value ? tcp.finding : { ...tcp.finding, remedy: tcp.finding.remedy ?? remedy };
  if (!tcp.value) return;

  if (!tls) yield skipped("tls", "plaintext, which is possible on this machine only");
  else {
    const secure = await examined("tls", async () => {
      const socket = await startTls(target, { ...tls, proxy });
      socket.destroy();
      const how = tls.pins.length > 0 ? "by a pinned key" : "by the system's authorities";
      return { value: true, finding: ok("tls", `the controller is known ${how}; it speaks HTTP/2`) };
    });
    yield secure.finding;
    if (!secure.value) return;
  }
  yield* examineController(controller, proxy);
}

async function examineName(host: string): Promise<Finding> {
  if (isIP(host)) return skipped("dns", `${host} is an address`);
  const found = await examined(
    "dns",
    async () => {
      const addresses = await lookup(host, { all: true });
      return { value: true, finding: ok("dns", `${host} is ${addresses.map(({ address }) => address).join(", ")}`) };
    },
    `check the name, and that this machine can resolve it: getent hosts ${host}`,
  );
  return found.finding;
}

/** An announcement that names no host is refused, changes nothing, and comes back with the controller's time. */
async function* examineController(
  { host, port, tls }: EdgeConfig["controller"],
  proxy: ProxyRoute | null,
): AsyncGenerator<Finding> {
  const link = grpcLink({ host, port, tls: tls && { ...tls, proxy } });
  const sentAt = clock.now();
  try {
    const told = await link.attest({}).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    const refusal = told instanceof LinkError ? told : null;
    const isReached = told === null || (refusal !== null && refusal.code !== "unavailable");
    // Whoever knows the call refuses it with a reason of its own: anybody else only speaks HTTP/2.
    const isOther =
      refusal !== null && (refusal.cause as { code?: number } | undefined)?.code !== errorTable.unavailable.grpc;
    yield isReached ? ok("grpc", "the controller answers") : failed("grpc", told, isOther ? notController : undefined);
    if (refusal?.peerTimeMs != null) yield clockFinding((sentAt + clock.now()) / 2 - refusal.peerTimeMs);
    if (isReached) yield await examineHealth(link);
  } finally {
    link.close();
  }
}

const notController = "check that this address and port are the controller's gRPC, and what stands in front of it";

function clockFinding(aheadMs: number): Finding {
  // It tells whole seconds; half of one is the best guess.
  const offsetMs = aheadMs - 500;
  const unitMs = Math.abs(offsetMs) < 600_000 ? 1000 : 60_000;
  const apart = formatDuration(Math.round(Math.abs(offsetMs) / unitMs) * unitMs);
  return Math.abs(offsetMs) < toleratedOffsetMs
    ? ok("clock", "it agrees with the controller's")
    : warning(
        "clock",
        `this machine's clock is ${apart} ${offsetMs < 0 ? "behind" : "ahead of"} the controller's`,
        "set it: timedatectl set-ntp true",
      );
}

async function examineHealth(link: GrpcLink): Promise<Finding> {
  const { finding } = await examined("health", async () => {
    const health = await link.health();
    if (health === "serving") return { value: true, finding: ok("health", "the controller says that it serves") };
    if (health === null)
      return { value: true, finding: skipped("health", "this controller has no health service to ask") };
    return {
      value: null,
      finding: failed(
        "health",
        new AegisError("unavailable", "the controller says that it does not serve"),
        "it is about to stop; look at it there: aegis controller start says why",
      ),
    };
  });
  return finding;
}

async function examineDaemon(stateDir: string): Promise<Finding> {
  const status = await readStatus(stateDir);
  if (!status?.alive) return failed("daemon", "no daemon runs here", "aegis edge run");
  if (status.paused)
    return warning("daemon", `process ${status.pid} refuses every call: it is paused`, "aegis edge resume");
  if (status.state === "connected")
    return ok("daemon", `process ${status.pid} is connected since ${status.connectedSince}`);
  return failed(
    "daemon",
    `process ${status.pid} is ${status.state}${status.lastError ? `: ${status.lastError}` : ""}`,
    "what is wrong above is the reason; it tries again by itself",
  );
}

/** The work goes on without one: whatever is wrong with it is a warning. */
async function examineCollector(otlp: OtlpConfig, stateDir: string, { env }: Surroundings): Promise<Finding> {
  const { probeCollector } = await import("../telemetry/probe.ts");
  const secret = (name: string) => openSecrets(stateDir).read(name);
  const trouble = await probeCollector(otlp, { env, clock, secret }).catch(
    (thrown: unknown) => AegisError.from(thrown).message,
  );
  return trouble === null
    ? ok("otlp", `${otlp.url} takes traces and logs`)
    : warning("otlp", `${otlp.url}: ${trouble}`, "correct spec.observability.otlp, then restart the daemon");
}

async function examineTools(config: EdgeConfig, { env, home }: Surroundings): Promise<Finding> {
  const { finding } = await examined("tools", async () => {
    const closed = await protectedPaths(config, { env, home });
    const real = await realpath(home).catch(() => home);
    const { identity } = await hostTools({ stateDir: config.stateDir, protectedPaths: closed, clock, env, home: real });
    const detail = identity.detail.join("; ");
    return {
      value: true,
      finding: identity.protected
        ? ok("tools", `they cannot reach this host's identity${detail ? `; open stays: ${detail}` : ""}`)
        : warning(
            "tools",
            `they can read this host's identity: ${detail}`,
            "allow only commands that you would let read node.key",
          ),
    };
  });
  return finding;
}
