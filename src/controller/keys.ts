/** The controller's own keys: root, command and token on disk, the callers' key in memory, and the keyset that publishes them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type TrustedKeyset, trustFirst } from "../envelope/keyset.ts";
import { importSigningKey, newSeed, type PublicKey, type SigningKey } from "../envelope/public-key.ts";
import { statement, uuidBytes } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";

const { ControllerKeySet, KeyAlg, KeyState, KeyUse, SignedKeySet } = aegis.cluster.v1;

export interface ControllerKeys {
  command: SigningKey;
  token: SigningKey;
  /** Signs for callers who have no key of their own; lives in memory, for a day at most. */
  caller(nowMs: number): SigningKey;
}

const callerKeyLifeMs = 24 * 60 * 60 * 1000;

const names = ["command", "token"] as const;
const keyPath = (dataDir: string, name: string) => join(dataDir, "keys", `${name}.key`);

export interface NewKeys {
  root: SigningKey;
  /** A serialised SignedKeySet, version 1. */
  signedKeyset: Uint8Array;
}

/** Draws all keys and writes them 0600. With `offlineRoot` the root key goes to that file and stays off this machine's data. */
export async function createControllerKeys(
  dataDir: string,
  controllerId: string,
  createdMs: number,
  offlineRoot?: string,
): Promise<NewKeys> {
  await makeDirectory(join(dataDir, "keys"));
  const seeds = { root: newSeed(), command: newSeed(), token: newSeed() };
  await writeFileAtomic(offlineRoot ?? keyPath(dataDir, "root"), seeds.root);
  for (const name of names) await writeFileAtomic(keyPath(dataDir, name), seeds[name]);
  const root = importSigningKey(seeds.root);
  const command = importSigningKey(seeds.command);
  const token = importSigningKey(seeds.token);
  return { root, signedKeyset: signKeyset({ controllerId, version: 1, root, command, token, createdMs }) };
}

export async function loadControllerKeys(dataDir: string): Promise<ControllerKeys> {
  const [command, token] = await Promise.all(names.map((name) => loadKey(keyPath(dataDir, name))));
  if (!command || !token) throw new AegisError("internal", "keys could not be loaded");
  let caller: { key: SigningKey; since: number } | null = null;
  return {
    command,
    token,
    caller(nowMs) {
      if (!caller || nowMs - caller.since > callerKeyLifeMs)
        caller = { key: importSigningKey(newSeed()), since: nowMs };
      return caller.key;
    },
  };
}

async function loadKey(path: string): Promise<SigningKey> {
  const seed = await readFile(path).catch((cause: Error) => {
    throw new AegisError("config_invalid", `cannot read the controller key ${path}: ${cause.message}`, {
      cause,
      hint: "restore it from a backup; without it every host must enroll again",
    });
  });
  if (seed.length === 32) return importSigningKey(seed);
  throw new AegisError("config_invalid", `${path} is damaged: it has ${seed.length} bytes, a key has 32`, {
    hint: "restore it from a backup",
  });
}

interface KeysetInput {
  controllerId: string;
  version: number;
  root: SigningKey;
  command: PublicKey;
  token: PublicKey;
  createdMs: number;
}

function signKeyset({ controllerId, version, root, command, token, createdMs }: KeysetInput): Uint8Array {
  const id = uuidBytes(controllerId);
  if (!id) throw new RangeError(`${controllerId} is not a UUID`);
  const entry = (key: PublicKey, use: aegis.cluster.v1.KeyUse) => ({
    keyId: key.keyId,
    use,
    alg: KeyAlg.KEY_ALG_ED25519,
    public: key.raw,
    state: KeyState.KEY_STATE_ACTIVE,
  });
  const keyset = ControllerKeySet.encode({
    controllerId: id,
    version: toLong(version),
    rootKey: root.raw,
    keys: [entry(command, KeyUse.KEY_USE_COMMAND), entry(token, KeyUse.KEY_USE_TOKEN)],
    createdMs: toLong(createdMs),
  }).finish();
  return SignedKeySet.encode({
    keyset,
    signature: root.sign(statement("keyset", { controllerId, version, keyset })),
  }).finish();
}

/** The keyset this controller publishes, checked against its own keys: a mixture of two controllers' files is refused. */
export function ownKeyset(signed: Uint8Array, rootKeyId: Uint8Array, keys: ControllerKeys): TrustedKeyset {
  const outcome = trustFirst(rootKeyId, [signed]);
  const fits =
    outcome.kind === "trusted" &&
    outcome.keyset.commandKey.kid === keys.command.kid &&
    outcome.keyset.tokenKeys.has(keys.token.kid);
  if (outcome.kind === "trusted" && fits) return outcome.keyset;
  throw new AegisError("config_invalid", "the keys in keys/ are not those of the keyset in the database", {
    hint: "restore keys/ and the database from the same backup",
  });
}
