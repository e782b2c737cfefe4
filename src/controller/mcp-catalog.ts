/** What the tenant's connected hosts can do, as MCP tools: one for each kind of tool, with the host as an argument. */
import type { LiveNode, LiveNodes } from "./dispatch-types.ts";
import { parsedSchema } from "./host-view.ts";

export interface CatalogTool {
  /** What MCP clients call it: `cmd_run`. */
  name: string;
  /** What hosts call it: `cmd.run`. */
  tool: string;
  description: string;
  inputSchema: { type: "object"; properties: Record<string, object>; [key: string]: unknown };
  readOnly: boolean;
  destructive: boolean;
  /** Which arguments say where and under which policy it runs; the rest goes to the host. */
  targetArgument: string;
  contextArgument: string;
  /** Whether it can hand back a job instead of making its caller wait. */
  takesWait: boolean;
}

/** Names that some clients refuse when longer. */
const maxNameChars = 64;

export interface LiveHosts extends LiveNodes {
  nodeIds(): string[];
}

export const liveHosts = (nodes: LiveHosts, tenantId: string): LiveNode[] =>
  nodes.nodeIds().flatMap((nodeId) => {
    const live = nodes.get(nodeId);
    return live?.tenantId === tenantId && nodes.status(nodeId) === "connected" ? [live] : [];
  });

/** Sorted by name. Of tools that hosts describe differently, the first host's words count; it decides what it takes anyway. */
export function catalog(hosts: readonly LiveNode[]): CatalogTool[] {
  const tools = new Map<string, CatalogTool>();
  const taken = new Set<string>();
  const byId = [...hosts].sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
  for (const { tools: described } of byId)
    for (const descriptor of described.values()) {
      if (tools.has(descriptor.name)) continue;
      const name = freeName(descriptor.name, taken);
      taken.add(name);
      const schema = parsedSchema(descriptor.inputSchemaJson);
      const own = properties(schema.properties);
      const [targetArgument, contextArgument] = ["target", "context"].map((word) =>
        word in own ? `edge_${word}` : word,
      );
      if (targetArgument === undefined || contextArgument === undefined) continue;
      tools.set(descriptor.name, {
        ...{ name, tool: descriptor.name, description: descriptor.description },
        inputSchema: {
          ...schema,
          type: "object",
          properties: {
            ...own,
            [targetArgument]: {
              type: "string",
              description:
                "Where it runs: a host's name or id, or group:NAME, all, or what hosts must be, such as os=linux tags=prod. May be left out when one host is connected.",
            },
            [contextArgument]: {
              type: "string",
              description: "The security context on the host that the call runs under",
              default: "default",
            },
          },
        },
        ...{ readOnly: descriptor.readOnly, destructive: descriptor.destructive, targetArgument, contextArgument },
        takesWait: "wait_secs" in own,
      });
    }
  return [...tools.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function properties(value: unknown): Record<string, object> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return {};
  return Object.fromEntries(Object.entries(value).filter(([, one]) => typeof one === "object" && one !== null));
}

/** Letters, digits, underscores; two tools that would be called the same are told apart by a number. */
function freeName(tool: string, taken: ReadonlySet<string>): string {
  const plain = tool.replace(/[^A-Za-z0-9_]/g, "_");
  for (let count = 1; ; count++) {
    const suffix = count === 1 ? "" : `_${count}`;
    const name = `${plain.slice(0, maxNameChars - suffix.length)}${suffix}`;
    if (!taken.has(name)) return name;
  }
}
