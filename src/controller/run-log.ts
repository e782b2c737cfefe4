/**
 * The events of one run, numbered, kept for whoever reads them now or again later. The run never waits for a reader; who
 * makes the output can be told to, as long as one is there and behind.
 */
import type { CommandResult, FleetEvent, NewFleetEvent } from "../api/events.ts";

export const runLogLimits = {
  /** Characters of live output kept; the oldest goes first, and readers are told how much they missed. */
  progressChars: 8 * 1024 * 1024,
  /** Characters of live output that a reader may be behind before more is asked for. */
  behindChars: 512 * 1024,
  /** Characters of results kept; older ones are read from the store again. */
  resultChars: 4 * 1024 * 1024,
};

export interface RunLog {
  add(event: NewFleetEvent): void;
  /** Calls `go` when no reader is behind by too much: at once, later, or at the end. In the order they were asked. */
  whenRead(go: () => void): void;
  /** No more events come. */
  end(): void;
  /** Every event after number `after`: those there are at once, then as they come, until the end or an abort. */
  read(after: number, signal: AbortSignal): AsyncGenerator<FleetEvent>;
  /** Roughly what it holds, in characters. */
  readonly size: number;
}

type Result = Extract<FleetEvent, { event: "command_result" }>;
type Progress = Extract<FleetEvent, { event: "command_progress" }>;
/** A result whose text is in the store only. */
interface Put {
  id: number;
  event: "stored_result";
  commandId: string;
  /** Of the host. */
  name: string;
}

/** `recall` reads the result of a command on the host of a name from the store again. */
export function createRunLog(recall: (commandId: string, name: string) => Promise<CommandResult | null>): RunLog {
  const events = new Map<number, FleetEvent | Put>();
  const progress = evicting(runLogLimits.progressChars, (id) => {
    events.delete(id);
    reached.delete(id);
  });
  const results = evicting(runLogLimits.resultChars, (id) => {
    const event = events.get(id);
    if (event?.event === "command_result")
      events.set(id, { id, event: "stored_result", commandId: event.data.command_id, name: event.data.name });
  });
  /** Live output up to and including an event, in characters since the beginning; and all of it. */
  const reached = new Map<number, number>();
  let written = 0;
  /** How much of it each reader has read. */
  const readers = new Set<{ read: number }>();
  let held: Array<() => void> = [];
  let last = 0;
  let ended = false;
  let waiting: Array<() => void> = [];
  const wake = () => {
    const woken = waiting;
    waiting = [];
    for (const resolve of woken) resolve();
  };

  function letGo(): void {
    if (held.length === 0) return;
    const slowest = Math.min(written, ...[...readers].map(({ read }) => read));
    if (!ended && written - slowest > runLogLimits.behindChars) return;
    const going = held;
    held = [];
    for (const go of going) go();
  }

  async function present(id: number): Promise<FleetEvent | null> {
    const event = events.get(id);
    if (event?.event !== "stored_result") return event ?? null;
    const data = await recall(event.commandId, event.name);
    return data && { id, event: "command_result", data };
  }

  return {
    get size() {
      return progress.size + results.size;
    },
    add(event) {
      if (ended) return;
      const id = ++last;
      events.set(id, { id, ...event });
      if (event.event === "command_progress") {
        const size = sizeOfProgress(event);
        written += size;
        reached.set(id, written);
        progress.add(id, size);
      }
      if (event.event === "command_result") results.add(id, sizeOfResult(event));
      wake();
    },
    whenRead(go) {
      held.push(go);
      letGo();
    },
    end() {
      ended = true;
      letGo();
      reached.clear();
      wake();
    },
    async *read(after, signal) {
      const missed = gaps(after === 0);
      // Of what was let go already nothing more can be read.
      const reader = { read: reached.get(after) ?? written - progress.size };
      /** A reader that goes holds nobody up. */
      const leave = () => {
        signal.removeEventListener("abort", leave);
        if (readers.delete(reader)) letGo();
      };
      readers.add(reader);
      if (signal.aborted) leave();
      else signal.addEventListener("abort", leave);
      try {
        for (let at = after; ; ) {
          while (at < last) {
            const event = await present(++at);
            if (!event) continue;
            const upTo = reached.get(at);
            yield event.event === "command_progress" ? missed(event) : event;
            if (upTo === undefined) continue;
            // Whoever asks for the next one has taken this one.
            reader.read = Math.max(reader.read, upTo);
            letGo();
          }
          if (ended || signal.aborted) return;
          await new Promise<void>((resolve) => {
            const done = () => {
              signal.removeEventListener("abort", done);
              resolve();
            };
            signal.addEventListener("abort", done);
            waiting.push(done);
          });
        }
      } finally {
        leave();
      }
    },
  };
}

/** Lets the oldest go while the sum of sizes is above `max`, but never the newest. */
function evicting(max: number, letGo: (id: number) => void) {
  const sizes = new Map<number, number>();
  let size = 0;
  return {
    get size() {
      return size;
    },
    add(id: number, added: number) {
      sizes.set(id, added);
      size += added;
      for (const [oldest, its] of sizes) {
        if (size <= max || oldest === id) return;
        sizes.delete(oldest);
        size -= its;
        letGo(oldest);
      }
    },
  };
}

const sizeOfProgress = ({ data }: { data: Progress["data"] }): number =>
  200 + (data.data?.length ?? 0) + (data.base64?.length ?? 0);

const sizeOfResult = ({ data }: { data: Result["data"] }): number =>
  1_000 +
  [data.stdout, data.stderr].reduce((sum, { head, tail }) => sum + head.length + tail.length, 0) +
  (data.receipt_proof?.result.length ?? 0) +
  (data.receipt_proof?.command_body.length ?? 0);

/** For one reader: what lies between two pieces of a pipe that it sees was dropped, here or before; from the first on, if it is. */
function gaps(fromFirst: boolean): (event: Progress) => Progress {
  const next = new Map<string, number>();
  return (event) => {
    const { command_id: commandId, stream, offset, data, base64, skipped_bytes: skipped } = event.data;
    const pipe = `${commandId} ${stream}`;
    const length = data === undefined ? Buffer.byteLength(base64 ?? "", "base64") : Buffer.byteLength(data, "utf8");
    const expected = next.get(pipe) ?? (fromFirst ? 0 : undefined);
    next.set(pipe, offset + length);
    const missing = expected === undefined ? skipped : Math.max(skipped, offset - expected);
    return missing === skipped ? event : { ...event, data: { ...event.data, skipped_bytes: missing } };
  };
}
