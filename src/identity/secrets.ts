/** Secrets the owner keeps on this host for tools: one file each, closed to everybody else, and never shown. */
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { Secret } from "../platform/log.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { statePaths } from "./state-dir.ts";

export interface Secrets {
  /** Stores the bytes as they are. Answers whether there was one of this name. */
  set(name: string, value: Uint8Array): Promise<"created" | "replaced">;
  /** Names, in order. */
  list(): Promise<string[]>;
  /** False when there was none. */
  remove(name: string): Promise<boolean>;
  /** Null when there is none of this name, or no such name can be. */
  read(name: string): Promise<Secret | null>;
}

/** Longest value, in bytes: more than any environment takes in one variable. */
export const maxSecretBytes = 64 * 1024;

const form = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
/** What Windows takes for a device wherever it stands. */
const devices = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i;
const isName = (name: string): boolean => form.test(name) && !devices.test(name) && !name.endsWith(".");

export function openSecrets(stateDir: string): Secrets {
  const { secrets: dir } = statePaths(stateDir);
  const path = (name: string): string => {
    if (isName(name)) return join(dir, name);
    throw new AegisError("usage", `${JSON.stringify(name)} is no name for a secret`, {
      hint: "use up to 128 letters, digits, underscores, hyphens and dots, beginning with a letter, digit or underscore",
    });
  };
  const list = async (): Promise<string[]> => {
    const entries = await readdir(dir, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return [];
      throw new AegisError("config_invalid", `cannot read ${dir}: ${cause.message}`, { cause });
    });
    return entries
      .flatMap((entry) => (entry.isFile() && isName(entry.name) && !isDraft(entry.name) ? [entry.name] : []))
      .toSorted();
  };
  return {
    list,
    async set(name, value) {
      const file = path(name);
      if (value.length === 0) throw new AegisError("usage", `the value of ${name} is empty`);
      if (value.length > maxSecretBytes)
        throw new AegisError(
          "too_large",
          `the value of ${name} has ${value.length} bytes, at most ${maxSecretBytes} are kept`,
        );
      if (value.includes(0))
        throw new AegisError("usage", `the value of ${name} holds a zero byte, which no environment can carry`);
      const existed = (await list()).includes(name);
      await makeDirectory(dir);
      await writeFileAtomic(file, value);
      return existed ? "replaced" : "created";
    },
    async remove(name) {
      const file = path(name);
      if (!(await list()).includes(name)) return false;
      await rm(file);
      return true;
    },
    async read(name) {
      if (!isName(name)) return null;
      const file = join(dir, name);
      const bytes = await readFile(file).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT") return null;
        throw new AegisError("config_invalid", `cannot read the secret ${name}: ${cause.code}`, {
          cause,
          hint: `set it again: aegis edge secret set ${name}`,
        });
      });
      return bytes && new Secret(bytes.toString("utf8"));
    },
  };
}

/** What an interrupted write left beside a secret. */
const isDraft = (name: string): boolean => /\.[0-9a-f]{12}\.tmp$/.test(name);
