/** The tools of this host, by name. */
import { AegisError } from "../errors.ts";
import type { Tool, ToolDescriptor } from "./tool.ts";

export interface Registry {
  get(name: string): Tool | undefined;
  /** Sorted by name. */
  list(): readonly ToolDescriptor[];
}

export function createRegistry(tools: readonly Tool[]): Registry {
  const byName = new Map<string, Tool>();
  for (const tool of tools) {
    const { name } = tool.descriptor;
    if (byName.has(name)) throw new AegisError("internal", `two tools are named ${name}`);
    byName.set(name, tool);
  }
  const descriptors = [...byName.values()]
    .map((tool) => tool.descriptor)
    .sort((left, right) => (left.name < right.name ? -1 : 1));
  return { get: (name) => byName.get(name), list: () => descriptors };
}
