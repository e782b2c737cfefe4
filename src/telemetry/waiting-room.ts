/** How many records may wait for the collector, and the count of those that it never gets. */
import type { Log } from "../platform/log.ts";

/** Of each kind: spans, lines of the log. */
export const maxWaiting = 2_048;

export interface WaitingRoom {
  /** False when it is full: the record is lost, and counted. */
  enter(): boolean;
  /** So many have left it, of which so many were not taken by the collector. */
  leave(count: number, lost: number): void;
  /** Records that wait or are on their way. */
  readonly waiting: number;
}

/** What the rooms of one collector have in common: trouble is told once, and once that it is over. */
export interface Losses {
  trouble(why: string): void;
  delivered(): void;
  lose(count: number): void;
  /** At the end: what nobody was told of yet. */
  tellRest(): void;
}

export function countLosses(log: Log, endpoint: string): Losses {
  let lost = 0;
  let troubled = false;
  return {
    trouble(error) {
      if (!troubled) log.warn("otlp_trouble", { endpoint, error });
      troubled = true;
    },
    delivered() {
      if (!troubled) return;
      log.info("otlp_delivers_again", { endpoint, lost });
      troubled = false;
      lost = 0;
    },
    lose(count) {
      lost += count;
    },
    tellRest() {
      if (lost > 0) log.warn("otlp_lost", { endpoint, lost });
      lost = 0;
    },
  };
}

export function waitingRoom(losses: Losses, max = maxWaiting): WaitingRoom {
  let waiting = 0;
  return {
    get waiting() {
      return waiting;
    },
    enter() {
      if (waiting < max) {
        waiting++;
        return true;
      }
      losses.trouble(`${max} records wait already`);
      losses.lose(1);
      return false;
    },
    leave(count, lost) {
      waiting -= count;
      if (lost > 0) losses.lose(lost);
    },
  };
}
