/** What a host says it is and can do, as the rest of the controller reads it. */
import { sha256 } from "../envelope/statement.ts";
import { aegis } from "../wire/gen/messages.js";
import type { LiveNode } from "./dispatch-types.ts";

export interface HostFacts {
  /** What the host calls itself; empty when it does not say. */
  hostName: string;
  os: string;
  arch: string;
  localTools: readonly string[];
  mountPoints: readonly string[];
  labels: Readonly<Record<string, string>>;
}

/** Hosts of one version describe the same tools at length; thousands of them share one description. */
const maxToolSets = 256;
const toolSets = new Map<string, LiveNode["tools"]>();

function shared(tools: LiveNode["tools"]): LiveNode["tools"] {
  const key = JSON.stringify([...tools.values()]);
  const known = toolSets.get(key);
  if (known) return known;
  if (toolSets.size >= maxToolSets) toolSets.delete(toolSets.keys().next().value ?? "");
  toolSets.set(key, tools);
  return tools;
}

/** The longest that a host's owner can set, in seconds. */
const maxHeartbeatSecs = 3_600;

/** How often the host sends a heartbeat by its own settings, in milliseconds; null when it does not say. */
export function heartbeatMsOf(capabilities: Uint8Array): number | null {
  const { heartbeatSecs } = aegis.cluster.v1.EdgeCapabilities.decode(capabilities);
  return heartbeatSecs > 0 ? Math.min(heartbeatSecs, maxHeartbeatSecs) * 1000 : null;
}

type Capabilities = Pick<LiveNode, "paused" | "tools"> & { facts: HostFacts };

/** The hosts in use say the same with every call; reading all of it again takes longer than finding that out. */
const maxKept = 256;
const kept = new Map<string, Capabilities>();

/** Throws on bytes that are no EdgeCapabilities. */
export function readCapabilities(bytes: Uint8Array): Capabilities {
  const key = Buffer.from(sha256(bytes)).toString("base64");
  const known = kept.get(key) ?? decoded(bytes);
  // The one that was asked for longest ago goes first.
  kept.delete(key);
  if (kept.size >= maxKept) kept.delete(kept.keys().next().value ?? "");
  kept.set(key, known);
  return known;
}

function decoded(bytes: Uint8Array): Capabilities {
  const { paused, tools, os, arch, localTools, mountPoints, customLabels, hostName } =
    aegis.cluster.v1.EdgeCapabilities.decode(bytes);
  const described = tools.map((tool) => {
    const name = tool.name ?? "";
    const descriptor = {
      name,
      description: tool.description ?? "",
      inputSchemaJson: Buffer.from(tool.inputSchemaJson ?? []).toString("utf8"),
      readOnly: tool.readOnly ?? false,
      destructive: tool.destructive ?? false,
      fleetCapable: tool.fleetCapable ?? false,
    };
    return [name, descriptor] as const;
  });
  const facts = { hostName, os, arch, localTools, mountPoints, labels: { ...customLabels } };
  return { paused, tools: shared(new Map(described)), facts };
}
