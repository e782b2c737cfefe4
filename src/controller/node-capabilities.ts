/** What a host says it can do, as the rest of the controller reads it. */
import { aegis } from "../wire/gen/messages.js";
import type { LiveNode } from "./dispatch-types.ts";

/** Throws on bytes that are no EdgeCapabilities. */
export function readCapabilities(bytes: Uint8Array): Pick<LiveNode, "paused" | "tools"> {
  const { paused, tools } = aegis.cluster.v1.EdgeCapabilities.decode(bytes);
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
  return { paused, tools: new Map(described) };
}
