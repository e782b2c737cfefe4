/** Keeps the beginning and the latest of what a pipe produced on disk, and counts all of it. */
import { constants } from "node:fs";
import { unlink } from "node:fs/promises";
import { closeDescriptor, openDescriptor, readFully, writeFully } from "../platform/descriptors.ts";
import { wholeEnd, wholeStart } from "./output-cap.ts";
import type { Captured } from "./tool.ts";

/** Bytes of the beginning that are kept, and of the end. The file of one pipe is never longer than both together. */
const spillBytes = { head: 512 * 1024, tail: 512 * 1024 } as const;

export interface Spill {
  /** Never rejects: what the disk does not take is lost, and counted. */
  add(bytes: Uint8Array): Promise<void>;
  /** What is kept from `offset` on, at most `maxBytes`, in one piece. `offset` of the answer says where that begins. */
  read(offset: number, maxBytes: number): Promise<{ bytes: Uint8Array; offset: number }>;
  /** Beginning and end, at most `maxBytes` together. */
  captured(maxBytes: number): Promise<Captured>;
  /** All that was produced. */
  readonly bytes: number;
  close(): Promise<void>;
}

/** `path` must not exist. It has no name any more once it is open, so nothing of it stays when this process is gone. */
export async function openSpill(path: string, { head, tail } = spillBytes): Promise<Spill> {
  const descriptor = await openDescriptor(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  if (process.platform !== "win32") await unlink(path);
  let bytes = 0;
  let isBroken = false;

  /** Where a byte lies in the file; what is in the head stays, the tail goes round behind it. */
  const place = (offset: number) => (offset < head ? offset : head + ((offset - head) % tail));
  /** The first byte of the tail that was not yet overwritten. */
  const tailStart = () => Math.max(head, bytes - tail);

  /** Calls `each` for every part of `length` bytes from `offset` on that lies in one piece. */
  async function inPieces(
    offset: number,
    length: number,
    each: (at: number, size: number, done: number) => Promise<void>,
  ) {
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const toEdge = at < head ? head - at : tail - ((at - head) % tail);
      const size = Math.min(length - done, toEdge);
      await each(place(at), size, done);
      done += size;
    }
  }

  /** One after the other: what is read is not overwritten meanwhile. */
  let turn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = turn.then(work);
    turn = result.catch(() => {});
    return result;
  }

  async function read(offset: number, maxBytes: number) {
    const from = offset < head ? offset : Math.max(offset, tailStart());
    const end = from < head && bytes > head + tail ? head : bytes;
    const length = Math.max(0, Math.min(maxBytes, end - from));
    const whole = Buffer.alloc(length);
    await inPieces(from, length, async (at, size, done) => {
      (await readFully(descriptor, size, at)).copy(whole, done);
    });
    return { bytes: whole, offset: from };
  }

  async function add(added: Uint8Array): Promise<void> {
    // Of more than the tail holds, all but the last would be overwritten at once.
    const skipped = bytes >= head ? Math.max(0, added.length - tail) : 0;
    try {
      if (!isBroken)
        await inPieces(bytes + skipped, added.length - skipped, (at, size, done) =>
          writeFully(descriptor, added.subarray(skipped + done, skipped + done + size), at),
        );
    } catch {
      isBroken = true; // a full disk: counting goes on
    }
    bytes += added.length;
  }

  async function captured(maxBytes: number): Promise<Captured> {
    if (bytes <= maxBytes && bytes <= head + tail)
      return { head: (await read(0, bytes)).bytes, tail: new Uint8Array(), bytes };
    const first = (await read(0, Math.min(Math.ceil(maxBytes / 2), head))).bytes;
    const wanted = bytes - Math.floor(maxBytes / 2);
    const from = bytes > head + tail ? Math.max(tailStart(), wanted) : wanted;
    const last = (await read(from, maxBytes)).bytes;
    return { head: first.subarray(0, wholeEnd(first)), tail: last.subarray(wholeStart(last)), bytes };
  }

  return {
    get bytes() {
      return bytes;
    },
    add: (added) => inTurn(() => add(added)),
    read: (offset, maxBytes) => inTurn(() => read(offset, maxBytes)),
    captured: (maxBytes) => inTurn(() => captured(maxBytes)),
    close: () =>
      inTurn(async () => {
        await closeDescriptor(descriptor);
        if (process.platform === "win32") await unlink(path);
      }),
  };
}
