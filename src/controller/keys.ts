/** The controller's own keys: command and token on disk, the callers' key in memory, and the keyset that publishes them. */
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type TrustedKeyset, trustFirst } from "../envelope/keyset.ts";
import { importPublicKey, importSigningKey, newSeed, type PublicKey, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import type { Queries } from "../store/store.ts";
import { signKeyset } from "./keyset-content.ts";

/** As they are now: what is read from here again may be another key. */
export interface ControllerKeys {
  /** The newest that is in use. */
  readonly keyset: TrustedKeyset;
  /** Signs what goes to hosts: the keyset's active command key. */
  readonly command: SigningKey;
  /** Signs tokens: its active token key. */
  readonly token: SigningKey;
  /** Signs for callers who have no key of their own; lives in memory, for a day at most. */
  caller(nowMs: number): SigningKey;
}

export interface ControllerKeyring extends ControllerKeys {
  /** Goes on with a newer keyset. Throws, and nothing changes, when its keys are not here. */
  use(keyset: TrustedKeyset): Promise<void>;
}

const callerKeyLifeMs = 24 * 60 * 60 * 1000;

const keysDir = (dataDir: string): string => join(dataDir, "keys");
const keyPath = (dataDir: string, name: string) => join(keysDir(dataDir), `${name}.key`);
/** The first of each use, and those that came later, named after their id. */
const privateKeyName = /^(?:root|command|token)(?:-[0-9a-f]{16})?\.key$/;

export interface NewKeys {
  root: SigningKey;
  /** A serialised SignedKeySet, version 1. */
  signedKeyset: Uint8Array;
}

/** Draws all keys and writes them 0600; the first keyset lists `tlsPins`. With `offlineRoot` the root key goes to that file and stays off this machine's data. */
export async function createControllerKeys(
  dataDir: string,
  controllerId: string,
  createdMs: number,
  offlineRoot?: string,
  tlsPins: readonly string[] = [],
): Promise<NewKeys> {
  await makeDirectory(keysDir(dataDir));
  const seeds = { root: newSeed(), command: newSeed(), token: newSeed() };
  await writeFileAtomic(offlineRoot ?? keyPath(dataDir, "root"), seeds.root);
  for (const name of ["command", "token"] as const) await writeFileAtomic(keyPath(dataDir, name), seeds[name]);
  const root = importSigningKey(seeds.root);
  const keys = (["command", "token"] as const).map((use) => ({
    ...{ key: importSigningKey(seeds[use]), use, state: "active" as const },
  }));
  const content = { controllerId, version: 1, rootKey: root, keys, tlsPins, createdMs };
  return { root, signedKeyset: signKeyset(content, root) };
}

/** One more key of a use, written 0600 under its own name. */
export async function addPrivateKey(dataDir: string, use: "root" | "command" | "token"): Promise<SigningKey> {
  const seed = newSeed();
  const key = importSigningKey(seed);
  await writeFileAtomic(keyPath(dataDir, `${use}-${Buffer.from(key.keyId).toString("hex", 0, 8)}`), seed);
  return key;
}

/** Every private key in keys/, by its id. */
export async function privateKeys(dataDir: string): Promise<Map<string, SigningKey>> {
  const folder = keysDir(dataDir);
  const names = await readdir(folder).catch((cause: Error) => {
    throw unreadable(folder, cause);
  });
  const found = new Map<string, SigningKey>();
  for (const name of names.filter((one) => privateKeyName.test(one))) {
    const key = await loadKey(join(folder, name));
    found.set(key.kid, key);
  }
  return found;
}

/** Its file goes, if there is one. */
export async function removePrivateKey(dataDir: string, { kid }: PublicKey): Promise<void> {
  const folder = keysDir(dataDir);
  for (const name of (await readdir(folder)).filter((one) => privateKeyName.test(one)))
    if ((await loadKey(join(folder, name))).kid === kid) await rm(join(folder, name));
}

export async function loadKey(path: string): Promise<SigningKey> {
  const seed = await readFile(path).catch((cause: Error) => {
    throw unreadable(path, cause);
  });
  if (seed.length === 32) return importSigningKey(seed);
  throw new AegisError("config_invalid", `${path} is damaged: it has ${seed.length} bytes, a key has 32`, {
    hint: "restore it from a backup",
  });
}

const unreadable = (path: string, cause: Error): AegisError =>
  new AegisError("config_invalid", `cannot read the controller key ${path}: ${cause.message}`, {
    cause,
    hint: "restore it from a backup; without it every host must enroll again",
  });

/** The keys of `keyset`, from the files in keys/: a mixture of two controllers' files is refused. */
export async function loadControllerKeys(dataDir: string, keyset: TrustedKeyset): Promise<ControllerKeyring> {
  let current = await activeKeys(dataDir, keyset);
  let caller: { key: SigningKey; since: number } | null = null;
  return {
    get keyset() {
      return current.keyset;
    },
    get command() {
      return current.command;
    },
    get token() {
      return current.token;
    },
    caller(nowMs) {
      if (!caller || nowMs - caller.since > callerKeyLifeMs)
        caller = { key: importSigningKey(newSeed()), since: nowMs };
      return caller.key;
    },
    async use(newer) {
      current = await activeKeys(dataDir, newer);
    },
  };
}

async function activeKeys(dataDir: string, keyset: TrustedKeyset) {
  const own = await privateKeys(dataDir);
  const active = (use: "command" | "token") =>
    own.get(keyset.keys.find((one) => one.use === use && one.state === "active")?.key.kid ?? "");
  const [command, token] = [active("command"), active("token")];
  if (command && token) return { keyset, command, token };
  throw new AegisError("config_invalid", "the keys in keys/ are not those of the keyset in the database", {
    hint: "restore keys/ and the database from the same backup",
  });
}

/** The newest keyset of the database, by its own root: the files beside it are compared with it. */
export async function newestKeyset(queries: Queries): Promise<TrustedKeyset> {
  const newest = await queries.newestKeyset();
  const root = newest && importPublicKey(newest.rootKey);
  const outcome = newest && root ? trustFirst(root.keyId, [newest.signed]) : null;
  if (outcome?.kind === "trusted") return outcome.keyset;
  throw new AegisError(
    "config_invalid",
    outcome ? `the newest keyset in the database does not verify: ${outcome.reason}` : "the database holds no keyset",
    { hint: "restore keys/ and the database from the same backup" },
  );
}
