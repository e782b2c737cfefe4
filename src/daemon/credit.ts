/** How much live output one command may still send: a cumulative limit that the controller raises and nobody lowers. */
export interface Credit {
  /** Bytes that may be sent now. */
  readonly available: number;
  /** No more will come. */
  readonly closed: boolean;
  spend(bytes: number): void;
  /** Absolute bytes allowed since the command began; a lower figure than before changes nothing. */
  raise(limit: number): void;
  /** Resolves once something is available or the credit is closed. */
  wait(): Promise<void>;
  /** No more will come: whoever waits goes on. */
  close(): void;
}

export function createCredit(initial: number): Credit {
  let limit = initial;
  let spent = 0;
  let closed = false;
  let waiting: Array<() => void> = [];
  const wake = () => {
    for (const resolve of waiting) resolve();
    waiting = [];
  };
  return {
    get available() {
      return limit - spent;
    },
    get closed() {
      return closed;
    },
    spend(bytes) {
      spent += bytes;
    },
    raise(next) {
      if (next <= limit) return;
      limit = next;
      wake();
    },
    wait: () => (closed || limit > spent ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    close() {
      closed = true;
      wake();
    },
  };
}
