/**
 * Moves the bytes of one file in either direction. They are collected beside the destination, which is replaced in one step
 * once the whole has the source's checksum; what lies there from an earlier attempt is kept as far as it is the source's.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, lstat, open, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { AegisError } from "../../errors.ts";
import { PRIVATE_FILE } from "../../platform/private-file.ts";
import { maxChunkBytes } from "../../tools/fs-read.ts";
import type { Answer, HostCalls } from "./cp-call.ts";
import { joinThere, nameOf } from "./cp-place.ts";

export interface Copied {
  /** The destination, with its name. */
  path: string;
  bytes: number;
  /** Bytes that an earlier attempt had copied. */
  resumedAt: number;
  sha256: string;
}

export type Progress = (done: number, size: number) => void;

/** What one call carries to a host: its arguments are JSON, with the bytes in base64, of at most 1 MiB in all. */
const maxSentBytes = 512 * 1024;

const partOf = (path: string): string => `${path}.aegis-part`;
const changed = (path: string) =>
  new AegisError("conflict", `${path} changed while it was copied`, { hint: "copy it again" });

export async function download(calls: HostCalls, from: string, to: string, progress: Progress): Promise<Copied> {
  const source = await calls.call("fs.stat", { path: from, checksum: "sha256" });
  const [size, sha256] = [number(source, "size_bytes"), text(source, "sha256")];
  const isFolder = (await stat(to).catch(() => null))?.isDirectory() ?? false;
  const path = isFolder ? join(to, nameOf(from)) : to;
  const part = partOf(path);
  let at = await sizeOf(part);
  if (at > size) at = 0;
  if (at > 0) {
    const there = await calls.call("fs.stat", { path: from, checksum: "sha256", checksum_bytes: at });
    if (text(there, "sha256") !== (await checksum(part))) at = 0;
  }
  const resumedAt = at;
  // In a folder of many users the name could be somebody's link.
  if (at === 0) await rm(part, { force: true });
  const file = await open(part, at === 0 ? "wx" : "r+", PRIVATE_FILE).catch((cause: Error) => {
    throw new AegisError("usage", `cannot write ${part}: ${cause.message}`, { cause });
  });
  try {
    while (at < size) {
      const answer = await calls.call("fs.read", {
        path: from,
        offset: at,
        max_bytes: maxChunkBytes,
        encoding: "base64",
      });
      const bytes = Buffer.from(text(answer, "content"), "base64");
      if (bytes.length === 0) throw changed(from);
      await file.write(bytes, 0, bytes.length, at);
      at += bytes.length;
      progress(Math.min(at, size), size);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  if ((await checksum(part)) !== sha256) {
    await rm(part, { force: true });
    throw changed(from);
  }
  await chmod(part, Number.parseInt(text(source, "mode"), 8) & 0o777 & ~process.umask());
  await rename(part, path);
  return { path, bytes: size, resumedAt, sha256 };
}

export async function upload(calls: HostCalls, from: string, to: string, progress: Progress): Promise<Copied> {
  const local = await stat(from).catch((cause: Error) => {
    throw new AegisError("usage", `cannot read ${from}: ${cause.message}`, { cause });
  });
  if (!local.isFile()) throw new AegisError("usage", `${from} is no file; one file is copied at a time`);
  const { size } = local;
  const sha256 = await checksum(from);
  const found = await calls.find("fs.stat", { path: to });
  const intoFolder = found?.file_type === "Directory" || /[/\\]$/.test(to);
  const path = intoFolder ? joinThere(to, basename(from)) : to;
  const part = partOf(path);
  let at = 0;
  const before = await calls.find("fs.stat", { path: part, follow: false, checksum: "sha256" });
  if (before) {
    const there = number(before, "size_bytes");
    if (there <= size && text(before, "sha256") === (await checksum(from, there))) at = there;
  }
  const resumedAt = at;
  const mode = (local.mode & 0o777).toString(8).padStart(4, "0");
  const file = await open(from, "r");
  try {
    // At least once, so that an empty file comes to be too.
    do {
      const bytes = Buffer.alloc(Math.min(maxSentBytes, size - at));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, at);
      if (bytesRead < bytes.length) throw changed(from);
      const last = at + bytesRead === size;
      await calls.call("fs.write", {
        ...{ path: part, content_base64: bytes.toString("base64"), offset: at, truncate: true },
        mode: last ? mode : "0600",
      });
      at += bytesRead;
      progress(at, size);
    } while (at < size);
  } finally {
    await file.close();
  }
  const arrived = await calls.call("fs.stat", { path: part, follow: false, checksum: "sha256" });
  if (text(arrived, "sha256") !== sha256) throw changed((await checksum(from)) === sha256 ? part : from);
  await calls.call("fs.move", { path: part, destination: path, overwrite: true });
  return { path, bytes: size, resumedAt, sha256 };
}

async function sizeOf(path: string): Promise<number> {
  const found = await lstat(path).catch(() => null);
  return found?.isFile() ? found.size : 0;
}

/** Of the first `bytes` of a file, or of all of it. */
async function checksum(path: string, bytes = Number.POSITIVE_INFINITY): Promise<string> {
  const hash = createHash("sha256");
  if (bytes > 0) for await (const piece of createReadStream(path, { end: bytes - 1 })) hash.update(piece as Buffer);
  return hash.digest("hex");
}

function text(answer: Answer, name: string): string {
  const value = answer[name];
  if (typeof value === "string") return value;
  throw new AegisError("internal", `the host's answer has no ${name}`);
}

function number(answer: Answer, name: string): number {
  const value = answer[name];
  if (typeof value === "number") return value;
  throw new AegisError("internal", `the host's answer has no ${name}`);
}
