/** The events of one run, numbered, kept for whoever reads them now or again later. The run never waits for a reader. */
import type { CommandResult, FleetEvent, NewFleetEvent } from "../api/events.ts";

export const runLogLimits = {
  /** Characters of live output kept; the oldest goes first, and readers are told how much they missed. */
  progressChars: 4 * 1024 * 1024,
  /** Characters of results kept; older ones are read from the store again. */
  resultChars: 16 * 1024 * 1024,
};

export interface RunLog {
  add(event: NewFleetEvent): void;
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
}

/** `recall` reads a result from the store again. */
export function createRunLog(recall: (commandId: string) => Promise<CommandResult | null>): RunLog {
  const events = new Map<number, FleetEvent | Put>();
  const progress = evicting(runLogLimits.progressChars, (id) => events.delete(id));
  const results = evicting(runLogLimits.resultChars, (id) => {
    const event = events.get(id);
    if (event?.event === "command_result")
      events.set(id, { id, event: "stored_result", commandId: event.data.command_id });
  });
  let last = 0;
  let ended = false;
  let waiting: Array<() => void> = [];
  const wake = () => {
    const woken = waiting;
    waiting = [];
    for (const resolve of woken) resolve();
  };

  async function present(id: number): Promise<FleetEvent | null> {
    const event = events.get(id);
    if (event?.event !== "stored_result") return event ?? null;
    const data = await recall(event.commandId);
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
      if (event.event === "command_progress") progress.add(id, sizeOfProgress(event));
      if (event.event === "command_result") results.add(id, sizeOfResult(event));
      wake();
    },
    end() {
      ended = true;
      wake();
    },
    async *read(after, signal) {
      const missed = gaps();
      for (let at = after; ; ) {
        while (at < last) {
          const event = await present(++at);
          if (event) yield event.event === "command_progress" ? missed(event) : event;
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

/** For one reader: what lies between two pieces of a pipe that it sees was dropped, here or before. */
function gaps(): (event: Progress) => Progress {
  const next = new Map<string, number>();
  return (event) => {
    const { command_id: commandId, stream, offset, data, base64, skipped_bytes: skipped } = event.data;
    const pipe = `${commandId} ${stream}`;
    const length = data === undefined ? Buffer.byteLength(base64 ?? "", "base64") : Buffer.byteLength(data, "utf8");
    const expected = next.get(pipe);
    next.set(pipe, offset + length);
    const missing = expected === undefined ? skipped : Math.max(skipped, offset - expected);
    return missing === skipped ? event : { ...event, data: { ...event.data, skipped_bytes: missing } };
  };
}
