/** Reads a secret from an argument, a file, stdin or a person: bounded, and never printed. */
import { createReadStream } from "node:fs";
import { AegisError } from "../errors.ts";
import { Secret } from "../platform/log.ts";
import { resolveFrom } from "../platform/paths.ts";
import type { Surroundings } from "./command.ts";

/** Far above any token; a wrong file is noticed instead of read. */
const maxTokenBytes = 64 * 1024;

type Around = Pick<Surroundings, "home" | "terminal" | "stop">;

/**
 * Exactly one of `argument` and `file` must be given; `-` in either is stdin. Without white space around it. `what` is
 * named in messages.
 */
export async function readToken(
  what: string,
  argument: string | undefined,
  file: string | undefined,
  around: Around,
): Promise<Secret> {
  if (argument !== undefined && file !== undefined)
    throw new AegisError("usage", `${what} is given twice: as an argument and with --token-file`);
  const source = file ?? argument;
  if (source === undefined)
    throw new AegisError("usage", `${what} is missing`, { hint: "give --token-file FILE, or - to read it from stdin" });
  if (source !== "-" && file === undefined) return new Secret(source.trim());
  const text = (await read(what, source, maxTokenBytes, around)).toString("utf8").trim();
  if (text === "")
    throw new AegisError("usage", `${source === "-" ? "stdin" : source} is empty, and ${what} was expected there`);
  return new Secret(text);
}

/** The bytes of `file`, or of stdin without one; one line break at the end is not part of them. */
export async function readValue(
  what: string,
  file: string | undefined,
  maxBytes: number,
  around: Around,
): Promise<Uint8Array> {
  const bytes = await read(what, file ?? "-", maxBytes + 2, around);
  const end = bytes.at(-1) !== 10 ? bytes.length : bytes.at(-2) === 13 ? bytes.length - 2 : bytes.length - 1;
  return bytes.subarray(0, end);
}

async function read(what: string, source: string, maxBytes: number, { home, terminal, stop }: Around): Promise<Buffer> {
  if (source !== "-") {
    const path = resolveFrom(process.cwd(), source, home);
    return await readBounded(createReadStream(path), path, maxBytes);
  }
  const typed = await terminal.hidden(`${what}: `, stop);
  return typed === null ? await readBounded(process.stdin, "stdin", maxBytes) : Buffer.from(typed, "utf8");
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
