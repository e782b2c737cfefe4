/** What of its settings a running daemon takes over when they are read again, and what waits for a restart. */
import type { EdgeConfig } from "../config/edge.ts";

/** Asked each time they matter; everything else is built into what runs. */
const live = [
  "contexts",
  "trustedOperators",
  "requireOperatorSignature",
  "capabilities",
  "logLevel",
  "maxConcurrent",
] as const;
type Live = (typeof live)[number];

/** How the file calls what needs a restart. */
const names: Readonly<Record<Exclude<keyof EdgeConfig, Live>, string>> = {
  stateDir: "the state directory",
  configPath: "the settings' place",
  name: "metadata.name",
  nodeId: "spec.node.id",
  tenantId: "spec.cluster.edge.tenant_id",
  controller: "spec.cluster.controller",
  keyPath: "spec.cluster.node_keypair_path",
  tokenPath: "spec.cluster.edge.node_security_token_path",
  controllerKeysPath: "the place of controller.keys",
  heartbeatIntervalMs: "spec.cluster.heartbeat_interval_secs",
  backoffScheduleMs: "spec.cluster.edge.stream_reconnect_backoff_secs",
  seal: "spec.cluster.edge.seal",
  sealRoot: "spec.cluster.edge.seal_root",
  mcpServers: "spec.mcp_servers",
  proxy: "spec.cluster.edge.proxy",
  otlp: "spec.observability.otlp",
};

export interface Renewed {
  config: EdgeConfig;
  /** What has changed as well and is not obeyed before a restart, as the file calls it. */
  afterRestart: string[];
}

export function renewed(current: EdgeConfig, fresh: EdgeConfig): Renewed {
  const { contexts, trustedOperators, requireOperatorSignature, capabilities, logLevel, maxConcurrent } = fresh;
  const taken = { contexts, trustedOperators, requireOperatorSignature, capabilities, logLevel, maxConcurrent };
  const config = { ...current, ...taken };
  const fixed = Object.keys(names) as (keyof typeof names)[];
  const changed = fixed.filter((key) => !Bun.deepEquals(current[key], fresh[key], true));
  return { config, afterRestart: changed.map((key) => names[key]) };
}
