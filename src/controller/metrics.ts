/** What this controller counts, in the format that Prometheus reads. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Log, LogFields } from "../platform/log.ts";
import type { Store } from "../store/store.ts";
import type { Dispatcher } from "./dispatch-types.ts";
import { hostStatus } from "./host-view.ts";
import type { Sessions } from "./sessions.ts";

/** Events of the log that are attacks, or look like one. */
const securityEvents = [
  "compat_event",
  "downgrade_refused",
  "node_contended",
  "progress_chain_mismatch",
  "receipt_conflict",
  "receipt_invalid",
  "seal_frame",
] as const;
/** And those where somebody did not prove who they are. */
const refusals: Readonly<Record<string, string>> = {
  hello_refused: "hello",
  enrollment_refused: "enrollment",
  rotation_refused: "rotation",
  api_refused: "rest",
};
/** What a host's own rules said no to. */
const denials = new Set([
  "envelope_invalid",
  "security_context_not_found",
  "policy_violation",
  "operator_signature_required",
  "operator_signature_stale",
]);
/** Names of tools come from callers; what is beyond this many counts as `other`. */
const maxToolNames = 200;

export interface MetricsOptions {
  store: Store;
  sessions: Sessions;
  /** End of the certificate, epoch milliseconds. */
  certificateExpiresAt: number;
  /** Controller time in milliseconds. */
  time: () => number;
}

export interface Metrics {
  /** A log whose events of interest are counted. */
  watchLog(log: Log): Log;
  watchDispatcher(dispatcher: Dispatcher): Dispatcher;
  heartbeat(tenantId: string): void;
  runEnded(outcome: string, skippedFor: readonly string[]): void;
  streamOpened(): () => void;
  /** Everything, or what names a tenant of this one only. */
  text(tenantId?: string): Promise<string>;
  contentType: string;
}

export function createMetrics(): Metrics & { attach(options: MetricsOptions): void } {
  const registry = new Registry();
  const registers = [registry];
  let source: MetricsOptions | null = null;

  const heartbeats = new Counter({
    ...{ name: "aegis_edge_heartbeats_total", help: "Heartbeats received", labelNames: ["tenant"], registers },
  });
  const dispatched = new Counter({
    ...{ name: "aegis_edge_commands_dispatched_total", help: "Calls sent to hosts, by how they ended", registers },
    labelNames: ["tool", "outcome"],
  });
  const durations = new Histogram({
    ...{
      name: "aegis_edge_command_duration_seconds",
      help: "Time from dispatch to result",
      labelNames: ["tool"],
      registers,
    },
    buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1_800],
  });
  const runs = new Counter({
    ...{ name: "aegis_edge_fleet_runs_total", help: "Runs that ended", labelNames: ["outcome"], registers },
  });
  const skipped = new Counter({
    ...{
      name: "aegis_edge_fleet_targets_skipped_total",
      help: "Hosts that runs passed over",
      labelNames: ["reason"],
      registers,
    },
  });
  const denied = new Counter({
    ...{
      name: "aegis_edge_denials_total",
      help: "Calls that hosts refused by their own rules",
      labelNames: ["kind"],
      registers,
    },
  });
  const replays = new Counter({
    ...{ name: "aegis_edge_replays_total", help: "Calls that hosts refused because they had seen them", registers },
  });
  const authFailures = new Counter({
    ...{ name: "aegis_auth_failures_total", help: "Who did not prove who they are", labelNames: ["where"], registers },
  });
  const security = new Counter({
    ...{ name: "aegis_security_events_total", help: "What should never happen", labelNames: ["event"], registers },
  });

  const open = new Set<{ since: number }>();
  let closedSeconds = 0;
  new Counter({
    ...{ name: "aegis_edge_stream_seconds_total", help: "Time that streams of hosts were open, together", registers },
    collect() {
      const now = performance.now();
      let seconds = closedSeconds;
      for (const { since } of open) seconds += (now - since) / 1000;
      this.reset();
      this.inc(seconds);
    },
  });
  new Gauge({
    ...{
      name: "aegis_edge_daemons_total",
      help: "Hosts, revoked ones included",
      labelNames: ["status", "tenant"],
      registers,
    },
    async collect() {
      if (!source) return;
      this.reset();
      for (const { tenantId } of await source.store.tenants())
        for (const row of await source.store.nodes(tenantId))
          this.inc({ status: hostStatus(row, source.sessions), tenant: tenantId });
    },
  });
  new Gauge({
    name: "aegis_edge_node_token_expires_timestamp_seconds",
    ...{ help: "When the first of the tenant's node tokens expires", labelNames: ["tenant"], registers },
    async collect() {
      if (!source) return;
      this.reset();
      for (const { tenantId } of await source.store.tenants()) {
        const rows = (await source.store.nodes(tenantId)).filter(({ revokedAt }) => revokedAt === null);
        if (rows.length > 0)
          this.set({ tenant: tenantId }, Math.min(...rows.map(({ tokenExpiresAt }) => tokenExpiresAt)) / 1000);
      }
    },
  });
  new Gauge({
    ...{ name: "aegis_certificate_expires_timestamp_seconds", help: "When the TLS certificate expires", registers },
    collect() {
      if (source) this.set(source.certificateExpiresAt / 1000);
    },
  });

  const toolNames = new Set<string>();
  const toolLabel = (tool: string): string => {
    if (toolNames.size < maxToolNames) toolNames.add(tool);
    return toolNames.has(tool) ? tool : "other";
  };

  function watchLog(log: Log): Log {
    const counted =
      (level: "debug" | "info" | "warn" | "error") =>
      (event: string, fields?: LogFields): void => {
        const where = refusals[event];
        if (where !== undefined) authFailures.inc({ where });
        if (securityEvents.some((known) => known === event)) security.inc({ event });
        log[level](event, fields);
      };
    return {
      ...{ debug: counted("debug"), info: counted("info"), warn: counted("warn"), error: counted("error") },
      with: (fields) => watchLog(log.with(fields)),
    };
  }

  return {
    attach(options) {
      source = options;
    },
    watchLog,
    watchDispatcher: (dispatcher) => ({
      async *call(request, signal) {
        const since = performance.now();
        const tool = toolLabel(request.tool);
        for await (const event of dispatcher.call(request, signal)) {
          if (event.kind === "result") {
            dispatched.inc({ tool, outcome: event.outcome });
            durations.observe({ tool }, (performance.now() - since) / 1000);
            if (event.errorKind && denials.has(event.errorKind)) denied.inc({ kind: event.errorKind });
            if (event.errorKind === "replayed") replays.inc();
          }
          yield event;
        }
      },
    }),
    heartbeat: (tenant) => heartbeats.inc({ tenant }),
    runEnded(outcome, skippedFor) {
      runs.inc({ outcome });
      for (const reason of skippedFor) skipped.inc({ reason });
    },
    streamOpened() {
      const stream = { since: performance.now() };
      open.add(stream);
      return () => {
        if (open.delete(stream)) closedSeconds += (performance.now() - stream.since) / 1000;
      };
    },
    async text(tenantId) {
      const text = await registry.metrics();
      return tenantId === undefined ? text : ofTenant(text, tenantId);
    },
    contentType: registry.contentType,
  };
}

/** Without the lines that name another tenant. */
function ofTenant(text: string, tenantId: string): string {
  const others = (line: string) => {
    const [, tenant] = /[{,]tenant="([^"]*)"/.exec(line) ?? [];
    return tenant !== undefined && tenant !== tenantId;
  };
  return text
    .split("\n")
    .filter((line) => line.startsWith("#") || !others(line))
    .join("\n");
}
