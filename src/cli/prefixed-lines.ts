/** Turns the output of many hosts into whole lines, each with its host's name in front. */

/** A line that does not end is shown in pieces of this many bytes. */
const maxHeldBytes = 64 * 1024;

const newline = 10;

export interface PrefixedLines {
  push(chunk: Uint8Array): Promise<void>;
  /** What stands after the last newline, as a line of its own. */
  end(): Promise<void>;
}

/** `write` gets whole lines, so that two hosts never share one. */
export function prefixedLines(prefix: string, write: (lines: Uint8Array) => Promise<void>): PrefixedLines {
  const head = Buffer.from(prefix);
  let held: Uint8Array[] = [];
  let heldBytes = 0;

  async function flush(): Promise<void> {
    if (heldBytes === 0) return;
    const line = Buffer.concat([head, ...held, Buffer.from([newline])]);
    held = [];
    heldBytes = 0;
    await write(line);
  }

  return {
    async push(chunk) {
      const ready: Uint8Array[] = [];
      let rest = chunk;
      for (let at = rest.indexOf(newline); at >= 0; at = rest.indexOf(newline)) {
        ready.push(head, ...held, rest.subarray(0, at + 1));
        held = [];
        heldBytes = 0;
        rest = rest.subarray(at + 1);
      }
      if (ready.length > 0) await write(Buffer.concat(ready));
      if (rest.length === 0) return;
      held.push(rest);
      heldBytes += rest.length;
      if (heldBytes >= maxHeldBytes) await flush();
    },
    end: flush,
  };
}
