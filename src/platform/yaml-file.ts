/** Reads YAML, and the JSON that is YAML too, so that what is wrong with a file is said by its name and line. */
import { parseYAML } from "confbox/yaml";
import { AegisError } from "../errors.ts";

/** Deeper than any settings of ours; anchors are refused past this count, because a few can stand for millions of values. */
const maxDepth = 32;
const maxAliases = 64;

/** The one document in `text`. Throws `config_invalid` with file, line and column. Timestamps stay text. */
export function parseYaml(path: string, text: string): unknown {
  try {
    return parseYAML(text, { maxDepth, maxAliases });
  } catch (cause) {
    throw new AegisError("config_invalid", `${path} is not YAML: ${firstLine(cause)}`, { cause });
  }
}

const firstLine = (error: unknown): string => String((error as Error).message).split("\n", 1)[0] ?? "";
