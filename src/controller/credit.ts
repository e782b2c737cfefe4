/** How much live output the calls of one session may send ahead of whoever takes it. */
import { limits } from "../platform/limits.ts";

export interface CallCredit {
  /** Bytes allowed since the call began. */
  readonly granted: number;
  /** So much arrived. False: more than was granted. */
  arrived(bytes: number): boolean;
  /** So much of it was taken. Answers what is granted from now on, once that is worth telling. */
  taken(bytes: number): number | null;
  /** No more comes. */
  end(): void;
}

/** What all calls of a session may be ahead is shared out as they need it; what each begins with is its own. */
export function creditBook(): { open(first: number): CallCredit } {
  /** Granted and not taken yet, of all calls. */
  let ahead = 0;
  return {
    open(first) {
      let granted = first;
      let received = 0;
      let consumed = 0;
      let over = false;
      ahead += first;
      return {
        get granted() {
          return granted;
        },
        arrived(bytes) {
          received += bytes;
          return received <= granted;
        },
        taken(bytes) {
          consumed += bytes;
          if (over) return null;
          ahead -= bytes;
          const ofOthers = ahead - (granted - consumed);
          const room = limits.creditPerSessionBytes - ofOthers;
          const window = Math.min(limits.creditPerCommandBytes, Math.max(limits.firstCreditBytes, room));
          const next = consumed + window;
          if (next - granted < window / 4) return null;
          ahead += next - granted;
          granted = next;
          return granted;
        },
        end() {
          if (!over) ahead -= granted - consumed;
          over = true;
        },
      };
    },
  };
}
