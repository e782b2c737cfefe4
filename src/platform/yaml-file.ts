/** Reads YAML, and the JSON that is YAML too, so that what is wrong with a file is said by its name and line. */
import { readFile } from "node:fs/promises";
import { parseYAML } from "confbox/yaml";
import { AegisError } from "../errors.ts";

/** No settings of ours come near this, in bytes. */
const maxYamlBytes = 1024 * 1024;

/** Deeper than any settings of ours; anchors are refused past this count, because a few can stand for millions of values. */
const maxDepth = 32;
const maxAliases = 64;

/** The file's text, or null when there is none. */
export async function readTextFile(path: string): Promise<string | null> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > maxYamlBytes)
      throw new AegisError("config_invalid", `${path} has ${bytes.length} bytes, more than ${maxYamlBytes}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    if (cause instanceof AegisError) throw cause;
    const what = cause instanceof TypeError ? "is not UTF-8 text" : `cannot be read: ${(cause as Error).message}`;
    throw new AegisError("config_invalid", `${path} ${what}`, { cause });
  }
}

/** The one document in `text`. Throws `config_invalid` with file, line and column. Timestamps stay text. */
export function parseYaml(path: string, text: string): unknown {
  try {
    return parseYAML(text, { maxDepth, maxAliases });
  } catch (cause) {
    throw new AegisError("config_invalid", `${path} is not YAML: ${firstLine(cause)}`, { cause });
  }
}

const firstLine = (error: unknown): string => String((error as Error).message).split("\n", 1)[0] ?? "";
