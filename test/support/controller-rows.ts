/** Hosts for tests of the controller: rows as the store keeps them, and sessions as the controller sees them. */
import { createHash } from "node:crypto";
import type { LiveNode, LiveNodes } from "../../src/controller/dispatch-types.ts";
import { readCapabilities } from "../../src/controller/node-capabilities.ts";
import type { Sessions } from "../../src/controller/sessions.ts";
import { importSigningKey } from "../../src/envelope/public-key.ts";
import type { NodeRow, Store } from "../../src/store/store.ts";
import { aegis } from "../../src/wire/gen/messages.js";

export const startOfTime = 1_767_225_600_000;

const hash = (text: string) => createHash("sha256").update(text).digest();

/** The same UUID for the same name. */
export function uuidOf(name: string): string {
  const hex = hash(name).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

export interface HostSpec {
  tenantId?: string;
  tags?: readonly string[];
  labels?: Record<string, string>;
  os?: string;
  arch?: string;
  localTools?: string[];
  tools?: aegis.cluster.v1.ToolDescriptor.$Properties[];
  paused?: boolean;
  status?: "connected" | "unhealthy" | "draining" | "disconnected";
  revokedAt?: number;
  enrolledAt?: number;
}

export const cmdRunDescriptor = {
  name: "cmd.run",
  description: "runs a command",
  inputSchemaJson: Buffer.from('{"type":"object"}'),
  readOnly: false,
  destructive: true,
  fleetCapable: true,
};
export const hostInfoDescriptor = { ...cmdRunDescriptor, name: "host.info", readOnly: true, destructive: false };

export interface TestNodes extends LiveNodes, Pick<Sessions, "end" | "tell" | "nodeIds"> {
  /** What was told to nodes, and which sessions were ended and why. */
  readonly told: ReadonlyArray<{ nodeId: string; command: aegis.cluster.v1.EdgeCommand.$Properties }>;
  readonly ended: ReadonlyArray<{ nodeId: string; reason: aegis.cluster.v1.GoodbyeReason }>;
  /** Puts a host of this name into the store, and a session of it where its status says so. */
  add(store: Store, name: string, spec?: HostSpec): Promise<NodeRow>;
  set(nodeId: string, status: NonNullable<HostSpec["status"]>): void;
}

export function testNodes(): TestNodes {
  const live = new Map<string, LiveNode>();
  const statuses = new Map<string, NonNullable<HostSpec["status"]>>();
  const told: Array<{ nodeId: string; command: aegis.cluster.v1.EdgeCommand.$Properties }> = [];
  const ended: Array<{ nodeId: string; reason: aegis.cluster.v1.GoodbyeReason }> = [];
  return {
    told,
    ended,
    nodeIds: () => [...live.keys()],
    end(nodeId, reason) {
      if (!live.delete(nodeId)) return;
      statuses.delete(nodeId);
      ended.push({ nodeId, reason });
    },
    tell(nodeId, command) {
      if (!live.has(nodeId)) return false;
      told.push({ nodeId, command });
      return true;
    },
    get: (nodeId) => live.get(nodeId),
    status: (nodeId) => statuses.get(nodeId) ?? "disconnected",
    set(nodeId, status) {
      statuses.set(nodeId, status);
    },
    async add(store, name, spec = {}) {
      const { tenantId = "acme", status = "connected", enrolledAt = startOfTime } = spec;
      const nodeId = uuidOf(`${tenantId} ${name}`);
      const capabilities = aegis.cluster.v1.EdgeCapabilities.encode({
        os: spec.os ?? "linux",
        arch: spec.arch ?? "x86_64",
        localTools: spec.localTools ?? ["shell"],
        mountPoints: ["/"],
        customLabels: spec.labels ?? {},
        tools: spec.tools ?? [cmdRunDescriptor, hostInfoDescriptor],
        paused: spec.paused ?? false,
        hostName: name,
      }).finish();
      const row: NodeRow = {
        nodeId,
        tenantId,
        publicKey: importSigningKey(hash(`key of ${nodeId}`)).raw,
        seal: "strict",
        hostName: name,
        displayName: null,
        tags: spec.tags ?? [],
        capabilities,
        softwareVersion: "0.1.0",
        enrolledAt,
        connectedSince: null,
        lastHeartbeatAt: null,
        tokenJti: "jti",
        tokenExpiresAt: startOfTime + 30 * 86_400_000,
        revokedAt: spec.revokedAt ?? null,
      };
      await store.ensureTenant(tenantId, startOfTime);
      await store.putNode(row);
      statuses.set(nodeId, status);
      if (status !== "disconnected")
        live.set(nodeId, {
          ...{ nodeId, tenantId, connectedSince: startOfTime, lastHeartbeatAt: startOfTime },
          ...{ activeCalls: 0, queuedCalls: 0, draining: status === "draining" },
          ...readCapabilities(capabilities),
        });
      return row;
    },
  };
}
