/** Holds what arrives on a stream until the session can look at it, one thing at a time and in order. */
import type { EdgeCommand, StreamEnd } from "./link.ts";

export type Incoming = { kind: "command"; command: EdgeCommand } | { kind: "end"; end: StreamEnd };

/** How much may arrive while the session does not look: until CONFIRM an honest controller sends one frame. */
const maxHeld = 64;
const tooMuch: Incoming = {
  kind: "end",
  end: { status: 8, message: `more than ${maxHeld} messages came while none was looked at`, refusal: null },
};

export type Inbox = ReturnType<typeof createInbox>;

/** Holds what arrives until the session can look at it. Too much, held, is an end like any other. */
export function createInbox() {
  const held: Incoming[] = [];
  let take: ((next: Incoming) => void) | null = null;
  let handler: ((next: Incoming) => void) | null = null;
  let full = false;
  let closed = false;
  const put = (next: Incoming) => {
    if (closed || full) return;
    if (take) return take(next);
    full = held.length === maxHeld;
    held.push(full ? tooMuch : next);
  };
  const look = () => {
    while (take && take === handler && !closed) {
      const next = held.shift();
      if (!next) return;
      take(next);
    }
  };
  return {
    push: (command: EdgeCommand) => put({ kind: "command", command }),
    end: (end: StreamEnd) => put({ kind: "end", end }),
    /** The first thing to come, unless `timeout` comes before it. */
    first(timeout: Promise<void>): Promise<Incoming | { kind: "timeout" }> {
      return new Promise((resolve) => {
        const only = (next: Incoming) => {
          take = null;
          resolve(next);
        };
        take = only;
        const [next] = held.splice(0, 1);
        if (next) only(next);
        void timeout.then(() => {
          // By then somebody else may be reading.
          if (take === only) take = null;
          resolve({ kind: "timeout" });
        });
      });
    },
    drain(given: (next: Incoming) => void) {
      handler = given;
      take = given;
      look();
    },
    /** Until `release` nothing more is handed on. */
    hold() {
      take = null;
    },
    release() {
      take = handler;
      look();
    },
    close() {
      closed = true;
    },
  };
}
