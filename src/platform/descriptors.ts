/** Files as plain descriptors: unlike a FileHandle, one that is forgotten ends no process when it is collected. */
import { close, constants, fstat, fsync, open, read, write } from "node:fs";
import { promisify } from "node:util";

export const openDescriptor = promisify(open) as (path: string, flags: number, mode?: number) => Promise<number>;
export const statDescriptor = promisify(fstat);
export const syncDescriptor = promisify(fsync);
export const closeDescriptor = promisify(close);
const readSome = promisify(read);
const writeSome = promisify(write);

/** Opens nothing for reading or writing: a handle on the name's object alone. Linux; it has no constant of its own. */
export const O_PATH = 0o10000000;

/** For reading. A pipe or a device that nobody answers at delays nothing. */
export const readFlags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

/** Reads until `length` bytes are there or the file ends. */
export async function readFully(descriptor: number, length: number, position: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await readSome(descriptor, buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

export async function writeFully(descriptor: number, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await writeSome(descriptor, bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
