/**
 * The files of a change of key: the new one is there before anybody is asked for it, all that depends on the answer changes
 * as one, and the old one stays for as long as the owner wants. Whatever a crash leaves is good to go on from.
 */
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { importSigningKey, newSeed, type SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { PRIVATE_FILE, PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";
import { commitFiles, type FileChange } from "./commit-files.ts";
import { statePaths } from "./state-dir.ts";

export interface KeyFiles {
  stateDir: string;
  keyPath: string;
  tokenPath: string;
}

/** A key with the bytes it is kept as. */
export interface KeptKey {
  key: SigningKey;
  seed: Uint8Array;
}

export interface RotationFiles {
  /** The key of a rotation that is not finished, if there is one. */
  next(): Promise<KeptKey | null>;
  /** Draws a key and keeps it as the next one. One that was there already goes to the archive. */
  drawNext(nowMs: number): Promise<KeptKey>;
  /** The next key becomes the key, with its token. The old one is archived for `keepOldMs`; 0 = not at all. */
  promote(next: KeptKey, token: string, kept: { keepOldMs: number; nowMs: number }): Promise<void>;
  replaceToken(token: string): Promise<void>;
  /** Removes archived keys whose time is over; those of an enrollment have no end. Answers how many. */
  prune(nowMs: number): Promise<number>;
}

const seedBytes = 32;

export function rotationFiles({ stateDir, keyPath, tokenPath }: KeyFiles): RotationFiles {
  const paths = statePaths(stateDir);
  const archived = (seed: Uint8Array, nowMs: number, untilMs: number | null) =>
    archivedKey(paths.archive, seed, nowMs, untilMs);

  return {
    async next() {
      const seed = await readFile(paths.nextKey).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT") return null;
        throw new AegisError("config_invalid", `cannot read ${paths.nextKey}: ${cause.message}`, { cause });
      });
      if (seed === null) return null;
      if (seed.length === seedBytes) return { key: importSigningKey(seed), seed };
      throw new AegisError(
        "config_invalid",
        `${paths.nextKey} is damaged: it has ${seed.length} bytes, a key has ${seedBytes}`,
        { hint: `this host goes on with its key; begin the rotation anew: rm ${paths.nextKey}` },
      );
    },
    async drawNext(nowMs) {
      const present = await readFile(paths.nextKey).catch(() => null);
      if (present) await commitFiles(stateDir, await archived(present, nowMs, null));
      const seed = newSeed();
      await writeFileAtomic(paths.nextKey, seed);
      return { key: importSigningKey(seed), seed };
    },
    async promote({ key, seed }, token, { keepOldMs, nowMs }) {
      const old = await readFile(keyPath);
      await commitFiles(stateDir, [
        ...(keepOldMs > 0 ? await archived(old, nowMs, nowMs + keepOldMs) : []),
        { path: keyPath, content: seed, mode: PRIVATE_FILE },
        { path: `${keyPath}.pub`, content: key.raw, mode: PUBLIC_FILE },
        { path: tokenPath, content: bytes(`${token}\n`), mode: PRIVATE_FILE },
        { path: paths.nextKey, content: null, mode: PRIVATE_FILE },
      ]);
    },
    replaceToken: (token) => writeFileAtomic(tokenPath, `${token}\n`),
    async prune(nowMs) {
      let removed = 0;
      for (const name of await readdir(paths.archive).catch(() => [])) {
        if (!name.endsWith(".until")) continue;
        const path = join(paths.archive, name);
        const until = Date.parse((await readFile(path, "utf8").catch(() => "")).trim());
        if (!(nowMs > until)) continue;
        // The key first: without it the other file is only a line of text.
        await rm(path.replace(/\.until$/, ".key"), { force: true });
        await rm(path, { force: true });
        removed++;
      }
      return removed;
    },
  };
}

/** A key put away until `untilMs`; null = for good. Never over another: two changes within a second have two names. */
export async function archivedKey(
  archive: string,
  seed: Uint8Array,
  nowMs: number,
  untilMs: number | null,
): Promise<FileChange[]> {
  for (let at = nowMs; ; at += 1_000) {
    const stamp = join(archive, stampOf(at));
    if (await stat(`${stamp}.key`).catch(() => null)) continue;
    const until =
      untilMs === null ? [] : [{ path: `${stamp}.until`, content: bytes(iso(untilMs)), mode: PRIVATE_FILE }];
    return [{ path: `${stamp}.key`, content: seed, mode: PRIVATE_FILE }, ...until];
  }
}

const bytes = (text: string): Uint8Array => Buffer.from(text, "utf8");
const iso = (ms: number): string => new Date(ms).toISOString();
/** No colons, which Windows does not take. */
const stampOf = (ms: number): string => iso(ms).replace(/[-:]|\.\d+/g, "");
