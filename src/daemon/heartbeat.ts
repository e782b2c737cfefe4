/** Says regularly that this host is there, and hands out a new challenge for operators as often as one is due. */
import type { EventFrameKind } from "../envelope/frame.ts";
import type { Clock } from "../platform/clock.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";
import { challengeLimits } from "./operator-challenges.ts";
import type { Operators } from "./operators.ts";

const { HeartbeatEvent, OperatorChallenge } = aegis.cluster.v1;

export interface HeartbeatOptions {
  clock: Clock;
  intervalMs: number;
  send(kind: EventFrameKind, body: Uint8Array): void;
  state(): { active: number; queued: number; keysetVersion: number };
  operators: Pick<Operators, "renew">;
  onBeat(): void;
  /** Ends it. */
  signal: AbortSignal;
}

export interface Heartbeat {
  /** From now on at this pace; the next one comes at once. */
  pace(intervalMs: number): void;
  /** One more, at once. */
  now(): void;
  /** One more, at once, with a new challenge for operators: the key that signs it is another one. */
  challenge(): void;
}

export function heartbeat({ clock, send, state, operators, onBeat, signal, ...given }: HeartbeatOptions): Heartbeat {
  let { intervalMs } = given;
  let hurry = new AbortController();

  function beat(challenge?: Uint8Array): void {
    const { active, queued, keysetVersion } = state();
    const event = { activeInvocations: active, queued, keysetVersion: toLong(keysetVersion) };
    const changed = challenge ? { challenge: OperatorChallenge.decode(challenge) } : {};
    send("heartbeat", HeartbeatEvent.encode({ ...event, ...changed }).finish());
    onBeat();
  }

  async function keepBeating(): Promise<void> {
    for (;;) {
      await clock.sleep(intervalMs, AbortSignal.any([signal, hurry.signal]));
      if (signal.aborted) return;
      beat();
    }
  }

  /** A challenge that is not told is of no use, so it does not wait for the next heartbeat, which may be an hour away. */
  async function keepChallenging(): Promise<void> {
    for (;;) {
      await clock.sleep(challengeLimits.renewMs, signal);
      if (signal.aborted) return;
      beat(operators.renew());
    }
  }

  void keepBeating();
  void keepChallenging();
  return {
    pace(next) {
      intervalMs = next;
      const woken = hurry;
      hurry = new AbortController();
      woken.abort();
    },
    now: () => beat(),
    challenge: () => beat(operators.renew()),
  };
}
