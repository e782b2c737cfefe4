/** Reads a file of settings as text, so that what is wrong with it is said by its name. */
import { readFile } from "node:fs/promises";
import { AegisError } from "../errors.ts";

/** No settings of ours come near this, in bytes. */
const maxTextBytes = 1024 * 1024;

/** The file's text, or null when there is none. */
export async function readTextFile(path: string): Promise<string | null> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > maxTextBytes)
      throw new AegisError("config_invalid", `${path} has ${bytes.length} bytes, more than ${maxTextBytes}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    if (cause instanceof AegisError) throw cause;
    const what = cause instanceof TypeError ? "is not UTF-8 text" : `cannot be read: ${(cause as Error).message}`;
    throw new AegisError("config_invalid", `${path} ${what}`, { cause });
  }
}
