/** A host as the API shows it: what is stored about it, and what its live session adds. */
import type { Host, HostDetail, HostStatus, HostTool } from "../api/types.ts";
import { fingerprint, importPublicKey } from "../envelope/public-key.ts";
import type { CommandRow, NodeRow, RotationRow } from "../store/store.ts";
import type { LiveNode, LiveNodes } from "./dispatch-types.ts";
import { type HostFacts, readCapabilities } from "./node-capabilities.ts";

export const isoTime = (ms: number): string => new Date(ms).toISOString();
export const isoOrNull = (ms: number | null | undefined): string | null =>
  typeof ms === "number" ? isoTime(ms) : null;

/** A stored host with what it last said about itself. */
export interface KnownHost {
  row: NodeRow;
  facts: HostFacts;
  tools: LiveNode["tools"];
  /** What operators call it, else what it calls itself, else the start of its id. */
  name: string;
}

export function knownHost(row: NodeRow): KnownHost {
  const { facts, tools } = readCapabilities(row.capabilities);
  return {
    row,
    facts,
    tools,
    name: row.displayName || facts.hostName || row.hostName || `edge-${row.nodeId.slice(0, 8)}`,
  };
}

export const hostStatus = (row: NodeRow, nodes: LiveNodes): HostStatus =>
  row.revokedAt === null ? nodes.status(row.nodeId) : "revoked";

export function hostView({ row, facts, name }: KnownHost, nodes: LiveNodes): Host {
  const live = nodes.get(row.nodeId);
  const key = importPublicKey(row.publicKey);
  return {
    node_id: row.nodeId,
    name,
    tenant_id: row.tenantId,
    status: hostStatus(row, nodes),
    seal: row.seal,
    connected_since: isoOrNull(live?.connectedSince),
    last_heartbeat_at: isoOrNull(live?.lastHeartbeatAt ?? row.lastHeartbeatAt),
    enrolled_at: isoTime(row.enrolledAt),
    tags: [...row.tags],
    capabilities: {
      os: facts.os,
      arch: facts.arch,
      local_tools: [...facts.localTools],
      mount_points: [...facts.mountPoints],
      labels: { ...facts.labels },
    },
    software_version: row.softwareVersion,
    key_fingerprint: key ? fingerprint(key) : "",
    token_expires_at: isoTime(row.tokenExpiresAt),
    active_calls: live?.activeCalls ?? 0,
    queued_calls: live?.queuedCalls ?? 0,
  };
}

/** The newest of them. */
const keyChangesShown = 50;
const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

export function hostDetail(
  host: KnownHost,
  nodes: LiveNodes,
  recent: readonly CommandRow[],
  rotations: readonly RotationRow[],
): HostDetail {
  return {
    ...hostView(host, nodes),
    tools: [...host.tools.values()].map((tool) => ({
      name: tool.name,
      description: tool.description,
      input_schema: parsedSchema(tool.inputSchemaJson),
      read_only: tool.readOnly,
      destructive: tool.destructive,
      fleet_capable: tool.fleetCapable,
    })),
    recent_commands: recent.map((command) => ({
      command_id: command.commandId,
      tool: command.tool,
      context: command.context,
      principal: command.principal,
      dispatched_at: isoTime(command.dispatchedAt),
      outcome: command.outcome,
      duration_ms: command.endedAt === null ? null : command.endedAt - command.dispatchedAt,
    })),
    key_changes: rotations
      .filter(({ oldKey, newKey }) => !Buffer.from(oldKey).equals(newKey))
      .slice(0, keyChangesShown)
      .map((one) => ({
        ...{ request: base64url(one.request), old_signature: base64url(one.oldSignature) },
        new_signature: base64url(one.newSignature),
      }))
      .reverse(),
  };
}

/** The host's own words: what is no JSON object there is shown as an empty one. */
export function parsedSchema(text: string): HostTool["input_schema"] {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  } catch {
    return {};
  }
}
