/**
 * Has garbage collected by what passed through, for streams that make more of it than they keep: buffers are small objects
 * with large memory behind them, of which the runtime by itself lets a hundred megabytes lie about.
 */

export interface Garbage {
  /** So many bytes passed through. */
  passed(bytes: number): void;
}

/** Passed bytes until the next collection: each makes two to six of garbage on its way. */
export const collectEveryBytes = 32 * 1024 * 1024;
/** A collection takes longer the more a process holds; this part of the time goes to them at most. */
const shareOfTime = 0.1;

export interface GarbageOptions {
  /** Milliseconds. */
  monotonic(): number;
  collect?: () => void;
}

export function garbage({ monotonic, collect = () => Bun.gc(true) }: GarbageOptions): Garbage {
  let since = 0;
  let notBefore = Number.NEGATIVE_INFINITY;
  return {
    passed(bytes) {
      since += bytes;
      if (since < collectEveryBytes) return;
      const begun = monotonic();
      if (begun < notBefore) return;
      since = 0;
      collect();
      const ended = monotonic();
      notBefore = ended + (ended - begun) * (1 / shareOfTime - 1);
    },
  };
}
