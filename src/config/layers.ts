/** Several files as one document: later ones win key by key, and each value remembers the file it came from. */
import { AegisError } from "../errors.ts";
import { readTextFile } from "../platform/text-file.ts";
import { parseYaml } from "../platform/yaml-file.ts";
import { pathText, valueAt } from "./problems.ts";

export const apiVersion = "100monkeys.ai/v1";
export const kind = "NodeConfig";

export type Mapping = Record<string, unknown>;

/** One file, brought to the full shape: `metadata` and `spec`. */
export interface Layer {
  file: string;
  document: Mapping;
  /** The file's own top level is what is `spec` elsewhere. */
  bare: boolean;
  problems: string[];
}

export const isMapping = (value: unknown): value is Mapping =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Null when there is no such file. */
export async function readLayer(file: string): Promise<Layer | null> {
  const text = await readTextFile(file);
  if (text === null) return null;
  if (text.trim() === "") throw new AegisError("config_invalid", `${file} is empty`);
  return asLayer(file, parseYaml(file, text));
}

export function asLayer(file: string, parsed: unknown): Layer {
  const content = withoutNothing(parsed);
  if (!isMapping(content))
    return {
      file,
      document: {},
      bare: false,
      problems: [`${file}: expected a mapping at the top, as in kind: ${kind}`],
    };
  if (!("spec" in content) && isMapping(content.cluster)) {
    const { metadata, apiVersion: _version, kind: _kind, ...spec } = content;
    return { file, bare: true, problems: [], document: metadata === undefined ? { spec } : { metadata, spec } };
  }
  const problems = Object.entries({ apiVersion, kind }).flatMap(([key, expected]) =>
    content[key] === expected ? [] : [`${file}: ${key}: expected ${expected}, found ${JSON.stringify(content[key])}`],
  );
  const { apiVersion: _version, kind: _kind, ...document } = content;
  return { file, document, bare: false, problems };
}

/** A key with nothing behind it is as good as absent. `__proto__` is nobody's key. */
function withoutNothing(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNothing);
  if (!isMapping(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, inner]) => inner !== null && inner !== undefined && key !== "__proto__")
      // In a policy nothing is not absent: `args_allowlist:` left empty must not come to mean any argument.
      .map(([key, inner]) => [key, key === "security_contexts" ? inner : withoutNothing(inner)]),
  );
}

/** Mappings are merged, everything else is replaced. */
export function merged(layers: readonly Layer[]): Mapping {
  return layers.reduce<Mapping>((below, { document }) => mergeTwo(below, document), {});
}

function mergeTwo(below: Mapping, above: Mapping): Mapping {
  const result: Mapping = { ...below };
  for (const [key, value] of Object.entries(above)) {
    const existing = result[key];
    result[key] = isMapping(existing) && isMapping(value) ? mergeTwo(existing, value) : value;
  }
  return result;
}

/** `FILE: path`, for the file that a value was taken from; what is missing belongs into the last one. */
export function located(layers: readonly Layer[], path: readonly PropertyKey[]): string {
  const layer = layers.findLast(({ document }) => valueAt(document, path) !== undefined) ?? layers.at(-1);
  const own = layer?.bare && path[0] === "spec" ? path.slice(1) : path;
  return `${layer?.file}: ${pathText(own)}`;
}
