/** Where a release comes from: a folder on this machine, or an address that serves the same files. */
import { createHash } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { type Artefact, archiveFor, maxSumsBytes, readSums, signatureName, sumsName } from "./sums.ts";

export const defaultBaseUrl = "https://get.100monkeys.ai";

/** Longest archive that is fetched, in bytes. */
const maxArchiveBytes = 256 * 1024 * 1024;

export interface ReleaseSource {
  /** As errors and people are told. */
  where: string;
  /** The whole of a small file, in bytes. */
  small(name: string, maxBytes: number): Promise<Uint8Array>;
  /** Writes `name` to `path`, going on where a `path.part` of an earlier try ended. */
  download(name: string, path: string, onBytes: (have: number, total: number | null) => void): Promise<void>;
}

/**
 * `version` null = the latest. `base` is an https URL, or http on loopback for tests and mirrors on this machine; anything
 * else is `usage`.
 */
export function webSource(base: string, version: string | null, signal: AbortSignal): ReleaseSource {
  const { protocol, hostname } = URL.parse(base) ?? {};
  if (protocol !== "https:" && !(protocol === "http:" && ["127.0.0.1", "[::1]", "localhost"].includes(hostname ?? "")))
    throw new AegisError("usage", `${base} is not an https address`, {
      hint: "set AEGIS_BASE_URL to one, or unset it",
    });
  const root = `${base.replace(/\/+$/, "")}/releases/${version === null ? "latest" : `v${version}`}`;
  const get = async (name: string, headers: Record<string, string> = {}): Promise<Response> => {
    const url = `${root}/${name}`;
    const response = await fetch(url, { headers, signal, redirect: "follow" }).catch((cause: Error) => {
      if (signal.aborted)
        throw new AegisError("cancelled", `the download of ${url} was cancelled; run it again to go on`);
      throw new AegisError("unavailable", `cannot fetch ${url}: ${cause.message}`, { cause, hint: proxyHint });
    });
    if (response.ok || response.status === rangeNotSatisfiable) return response;
    await response.body?.cancel();
    const code = response.status === 404 ? "not_found" : "unavailable";
    throw new AegisError(code, `${url} answered ${response.status} ${response.statusText}`.trim());
  };
  async function* bodyOf(response: Response, url: string): AsyncGenerator<Uint8Array> {
    if (response.status === rangeNotSatisfiable) throw new AegisError("unavailable", `${url} answered 416`);
    try {
      yield* response.body ?? [];
    } catch (cause) {
      if (signal.aborted)
        throw new AegisError("cancelled", `the download of ${url} was cancelled; run it again to go on`);
      throw new AegisError("unavailable", `${url} broke off: ${(cause as Error).message}`, { cause, hint: goesOn });
    }
  }
  return {
    where: root,
    async small(name, maxBytes) {
      const pieces: Uint8Array[] = [];
      let have = 0;
      for await (const piece of bodyOf(await get(name), `${root}/${name}`)) {
        have += piece.length;
        if (have > maxBytes) throw new AegisError("too_large", `${root}/${name} is longer than ${maxBytes} bytes`);
        pieces.push(piece);
      }
      return Buffer.concat(pieces);
    },
    async download(name, path, onBytes) {
      const part = `${path}.part`;
      let have = await stat(part).then(
        ({ size }) => size,
        () => 0,
      );
      let response = await get(name, have > 0 ? { range: `bytes=${have}-` } : {});
      if (response.status === rangeNotSatisfiable) {
        // What is there is no beginning of this file.
        await response.body?.cancel();
        response = await get(name);
      }
      if (response.status !== 206) have = 0;
      const length = Number(response.headers.get("content-length") ?? Number.NaN);
      const total = Number.isSafeInteger(length) ? have + length : null;
      const file = await open(part, have > 0 ? "a" : "w", 0o600);
      try {
        for await (const chunk of bodyOf(response, `${root}/${name}`)) {
          have += chunk.length;
          if (have > maxArchiveBytes)
            throw new AegisError("too_large", `${name} is longer than ${maxArchiveBytes} bytes`);
          await file.writeFile(chunk);
          onBytes(have, total);
        }
        await file.sync();
      } finally {
        await file.close();
      }
      if (total !== null && have !== total)
        throw new AegisError("unavailable", `${root}/${name} ended after ${have} of ${total} bytes`, {
          hint: goesOn,
        });
      await rename(part, path);
    },
  };
}

const goesOn = "run it again: it goes on where it stopped";
const rangeNotSatisfiable = 416;
const proxyHint = "check the network; behind a proxy set HTTPS_PROXY";

export function folderSource(folder: string): ReleaseSource {
  const read = (name: string) =>
    readFile(join(folder, name)).catch((cause: Error) => {
      throw new AegisError("not_found", `cannot read ${join(folder, name)}: ${cause.message}`, { cause });
    });
  return {
    where: folder,
    small: (name) => read(name),
    async download(name, path, onBytes) {
      const bytes = await read(name);
      await Bun.write(path, bytes);
      onBytes(bytes.length, bytes.length);
    },
  };
}

/** What `source` offers for `target`; its list is verified first. */
export async function offered(source: ReleaseSource, target: string, publicPem: string): Promise<Artefact> {
  const sums = await source.small(sumsName, maxSumsBytes);
  const signature = await source.small(signatureName, 128);
  return archiveFor(readSums(sums, signature, publicPem, source.where), target, source.where);
}

/** Downloads into `folder` and answers the path of an archive whose digest is the signed one. */
export async function fetchArchive(
  source: ReleaseSource,
  artefact: Artefact,
  folder: string,
  onBytes: (have: number, total: number | null) => void = () => {},
): Promise<string> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, artefact.name);
  await source.download(artefact.name, path, onBytes);
  const digest = createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
  if (digest === artefact.sha256) return path;
  await rm(path, { force: true });
  throw new AegisError(
    "unprocessable",
    `${source.where}/${artefact.name} is not what its release signed: SHA-256 ${digest}, signed ${artefact.sha256}`,
    {
      hint: "nothing was changed; try again, and if it stays so, tell the project",
    },
  );
}
