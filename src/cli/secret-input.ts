/** Reads a secret from an argument, a file or stdin: bounded, trimmed, and never printed. */
import { createReadStream } from "node:fs";
import { AegisError } from "../errors.ts";
import { Secret } from "../platform/log.ts";
import { resolveFrom } from "../platform/paths.ts";
import type { Surroundings } from "./command.ts";

/** Far above any token; a wrong file is noticed instead of read. */
export const maxSecretBytes = 64 * 1024;

/** Exactly one of `argument` and `file` must be given; `-` in either is stdin. `what` is named in messages. */
export async function readSecret(
  what: string,
  argument: string | undefined,
  file: string | undefined,
  { home }: Pick<Surroundings, "home">,
): Promise<Secret> {
  if (argument !== undefined && file !== undefined)
    throw new AegisError("usage", `${what} is given twice: as an argument and with --token-file`);
  const source = file ?? argument;
  if (source === undefined)
    throw new AegisError("usage", `${what} is missing`, { hint: "give it, or --token-file FILE, or - for stdin" });
  if (source !== "-" && file === undefined) return new Secret(source.trim());
  const path = source === "-" ? "stdin" : resolveFrom(process.cwd(), source, home);
  const text = await readBounded(path === "stdin" ? process.stdin : createReadStream(path), path, maxSecretBytes);
  const secret = text.toString("utf8").trim();
  if (secret === "") throw new AegisError("usage", `${path} is empty, and ${what} was expected there`);
  return new Secret(secret);
}

/** All of a stream, or a refusal that names it. */
export async function readBounded(
  stream: AsyncIterable<Uint8Array | string>,
  name: string,
  maxBytes: number,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of stream) {
      const piece = Buffer.from(chunk as Uint8Array);
      bytes += piece.length;
      if (bytes > maxBytes) throw new AegisError("too_large", `${name} has more than ${maxBytes} bytes`);
      chunks.push(piece);
    }
  } catch (cause) {
    if (cause instanceof AegisError) throw cause;
    throw new AegisError("usage", `cannot read ${name}: ${(cause as Error).message}`, { cause });
  }
  return Buffer.concat(chunks);
}
