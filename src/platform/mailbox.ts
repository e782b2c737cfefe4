/** A queue between what happens and who waits for it: put now, take in order, end once. */
export interface Mailbox<T> extends AsyncIterable<T> {
  put(item: T): void;
  /** Nothing more comes; what is in it can still be taken. */
  end(): void;
}

/** One reader. */
export function mailbox<T>(): Mailbox<T> {
  let items: T[] = [];
  let wake: (() => void) | null = null;
  let ended = false;
  const ring = () => {
    wake?.();
    wake = null;
  };
  return {
    put(item) {
      if (ended) return;
      items.push(item);
      ring();
    },
    end() {
      ended = true;
      ring();
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        const batch = items;
        items = [];
        yield* batch;
        if (items.length > 0) continue;
        if (ended) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}
