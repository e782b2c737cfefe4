import type { Clock } from "../../src/platform/clock.ts";

export interface FakeClock extends Clock {
  /** Time passes, and sleepers whose time has come wake in order. */
  advance(ms: number): Promise<void>;
  /** The machine sleeps: wall and boot clocks move, the monotonic one does not. */
  suspend(ms: number): void;
  /** Somebody sets the wall clock. */
  step(ms: number): void;
  /** How many sleepers wait. */
  readonly sleeping: number;
}

/** A clock that moves only when told to. With `auto`, sleeping moves it by exactly the time slept. */
export function fakeClock({ startMs = 1_767_225_600_000, auto = false } = {}): FakeClock {
  let wall = startMs;
  let monotonic = 0;
  let boot = 0;
  const sleepers = new Set<{ at: number; wake: () => void }>();
  const move = (ms: number) => {
    wall += ms;
    monotonic += ms;
    boot += ms;
  };
  return {
    now: () => wall,
    monotonic: () => monotonic,
    sinceBoot: () => boot,
    get sleeping() {
      return sleepers.size;
    },
    suspend(ms) {
      wall += ms;
      boot += ms;
    },
    step(ms) {
      wall += ms;
    },
    async advance(ms) {
      const end = monotonic + ms;
      for (;;) {
        const next = [...sleepers].filter((s) => s.at <= end).sort((a, b) => a.at - b.at)[0];
        if (!next) break;
        move(Math.max(0, next.at - monotonic));
        sleepers.delete(next);
        next.wake();
        // Let what was woken run, and perhaps sleep again, before time goes on.
        for (let turn = 0; turn < 10; turn++) await Promise.resolve();
      }
      move(end - monotonic);
    },
    sleep(ms, signal) {
      if (signal.aborted) return Promise.resolve();
      if (auto) {
        move(ms);
        return Promise.resolve();
      }
      return new Promise((resolve) => {
        const sleeper = {
          at: monotonic + ms,
          wake: () => {
            signal.removeEventListener("abort", sleeper.wake);
            sleepers.delete(sleeper);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal.addEventListener("abort", sleeper.wake);
      });
    },
  };
}
