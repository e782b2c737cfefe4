/** What lies in a state directory before an enrollment. Reads, and changes nothing. */
import { lstat, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { importSigningKey, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { loadControllerKeys } from "../identity/controller-keys.ts";
import { requireOwn, type StatePaths, statePaths } from "../identity/state-dir.ts";
import { resolveFrom } from "../platform/paths.ts";
import { readTextFile } from "../platform/text-file.ts";
import { parseYaml } from "../platform/yaml-file.ts";
import { type Present, presentIn } from "./enroll-config.ts";

export type Found<T> = { kind: "absent" } | { kind: "present"; value: T } | { kind: "damaged"; why: string };

export interface Facts {
  paths: StatePaths;
  /** Where the settings are, or will be: `--config` may name a place of its own. */
  configPath: string;
  keyPath: string;
  tokenPath: string;
  directory: boolean;
  config: Found<{ text: string; present: Present }>;
  key: Found<SigningKey>;
  /** The bytes, for the archive. */
  keyBytes: Uint8Array | null;
  token: boolean;
  controllerKeys: boolean;
  /** Left behind by the peer. */
  enrollmentJwt: boolean;
}

export async function gatherFacts(stateDir: string, configPath: string | undefined, home: string): Promise<Facts> {
  const paths = statePaths(stateDir);
  const file = configPath ?? paths.config;
  const directory = await kindOf(stateDir);
  if (directory === "file")
    throw new AegisError("bootstrap_conflict", `${stateDir} exists and is not a directory`, {
      hint: `move it away: mv ${stateDir} ${stateDir}.old`,
    });
  if (directory === "directory") await requireOwn(stateDir);
  const config = await readConfig(file);
  const present = config.kind === "present" ? config.value.present : null;
  const from = (path: string | null | undefined, usual: string) =>
    path ? resolveFrom(dirname(file), path, home) : usual;
  const keyPath = from(present?.keyPath, paths.key);
  const tokenPath = from(present?.tokenPath, paths.token);
  const keyBytes = await readFile(keyPath).catch(absentOr(keyPath));
  return {
    paths,
    configPath: file,
    keyPath,
    tokenPath,
    directory: directory === "directory",
    config,
    key: readKey(keyBytes),
    keyBytes,
    token: (await kindOf(tokenPath)) !== "absent",
    controllerKeys: (await kindOf(paths.controllerKeys)) !== "absent",
    enrollmentJwt: (await kindOf(paths.enrollmentJwt)) !== "absent",
  };
}

function readKey(bytes: Uint8Array | null): Facts["key"] {
  if (!bytes) return { kind: "absent" };
  if (bytes.length === 32) return { kind: "present", value: importSigningKey(bytes) };
  return { kind: "damaged", why: `it has ${bytes.length} bytes, a node key has 32` };
}

async function readConfig(path: string): Promise<Facts["config"]> {
  try {
    const text = await readTextFile(path);
    if (text === null) return { kind: "absent" };
    if (text.trim() === "") return { kind: "damaged", why: "it is empty" };
    parseYaml(path, text);
    return { kind: "present", value: { text, present: presentIn(path, text) } };
  } catch (error) {
    return { kind: "damaged", why: AegisError.from(error).message };
  }
}

/** What this host trusts already, when it is the same root; a damaged file is replaced by what the token leads to. */
export async function knownKeyset({ paths, controllerKeys }: Facts, root: string): Promise<TrustedKeyset | null> {
  return controllerKeys ? await loadControllerKeys(paths.controllerKeys, root).catch(() => null) : null;
}

async function kindOf(path: string): Promise<"absent" | "file" | "directory"> {
  const found = await lstat(path).catch(absentOr(path));
  return !found ? "absent" : found.isDirectory() ? "directory" : "file";
}

const absentOr =
  (path: string) =>
  (cause: NodeJS.ErrnoException): null => {
    if (cause.code === "ENOENT") return null;
    throw new AegisError("config_invalid", `cannot read ${path}: ${cause.message}`, { cause });
  };
