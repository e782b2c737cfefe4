/** The tools of this host, by name. */
import { AegisError } from "../errors.ts";
import type { Tool, ToolDescriptor } from "./tool.ts";

export interface Registry {
  get(name: string): Tool | undefined;
  /** Sorted by name. */
  list(): readonly ToolDescriptor[];
}

/** Where tools come from that may change while the daemon runs. */
export type ToolSource = Registry;

/** A tool of its own goes before one of the same name from a source. */
export function createRegistry(tools: readonly Tool[], sources: readonly ToolSource[] = []): Registry {
  const byName = new Map<string, Tool>();
  for (const tool of tools) {
    const { name } = tool.descriptor;
    if (byName.has(name)) throw new AegisError("internal", `two tools are named ${name}`);
    byName.set(name, tool);
  }
  const own = [...byName.values()].map((tool) => tool.descriptor);
  return {
    get: (name) => byName.get(name) ?? first(sources, name),
    list() {
      const others = sources.flatMap((source) => source.list()).filter(({ name }) => !byName.has(name));
      return [...own, ...others].sort((left, right) => (left.name < right.name ? -1 : 1));
    },
  };
}

function first(sources: readonly ToolSource[], name: string): Tool | undefined {
  for (const source of sources) {
    const tool = source.get(name);
    if (tool) return tool;
  }
  return undefined;
}
