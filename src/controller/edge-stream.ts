/** One stream of a host, whatever carries it: a Hello first and in time, then only what its session is made of. */
import type { Frame } from "../envelope/frame.ts";
import { frameOf, sealedOf } from "../envelope/sealed-frame.ts";
import { AegisError, type ErrorCode, errorTable } from "../errors.ts";
import type { Log } from "../platform/log.ts";
import type { aegis } from "../wire/gen/messages.js";
import type { CompatGuest } from "./compat-door.ts";
import type { Doorman, Guest } from "./doorman.ts";

export type EdgeEvent = ReturnType<typeof aegis.cluster.v1.EdgeEvent.decode>;
export type EdgeCommand = aegis.cluster.v1.EdgeCommand.$Properties;

/** What carries the stream. */
export interface EdgeTransport {
  /** The Hello is accepted, and nothing is sent yet. */
  accept(): void;
  send(command: EdgeCommand): void;
  /** Instead of `accept`, and the last thing. `status` is gRPC's number. */
  refuse(status: number, message: string, refusal: Uint8Array | null): void;
  /** The last thing. */
  end(): void;
}

export interface EdgeStream {
  event(event: EdgeEvent): void;
  /** The host says no more, so neither do we. */
  end(): void;
  /** The transport is gone. */
  gone(): void;
}

export interface EdgeStreamOptions {
  doorman: Doorman;
  address: string;
  transport: EdgeTransport;
  log: Log;
}

export function edgeStream({ doorman, address, transport, log }: EdgeStreamOptions): EdgeStream {
  let guest: Guest | CompatGuest | null = null;
  let state: "hello" | "judging" | "open" | "over" = "hello";
  const place = doorman.enter(address, () => refuse("deadline_exceeded", "no Hello came within 10 s"));
  if (!place)
    refuse(
      "rate_limited",
      doorman.isFull()
        ? "this controller has as many hosts connected as it may open files for; its owner can raise that limit"
        : "too many connections wait to be confirmed; try again in a minute",
    );

  function gone(): void {
    state = "over";
    place?.leave();
    const leaving = guest;
    guest = null;
    leaving?.gone();
  }

  function refuse(code: ErrorCode, message: string): void {
    turnAway(errorTable[code].grpc, message);
  }

  function turnAway(status: number, message: string, refusal: Uint8Array | null = null): void {
    if (state === "over") return;
    gone();
    transport.refuse(status, message, refusal);
  }

  /** What was carried ends here and now: a peer that does not hang up keeps nothing alive. */
  function end(): void {
    if (state === "over") return;
    gone();
    transport.end();
  }

  const failed = (thrown: unknown) => log.error("edge_stream_failed", { error: AegisError.from(thrown) });
  const send = (command: EdgeCommand) => {
    if (state !== "over") transport.send(command);
  };

  // Kept as long as the stream: made in there, it would keep the Hello too.
  const write = (frame: Frame) => send({ sealed: sealedOf(frame) });

  async function hello(event: aegis.cluster.v1.HelloEvent.$Properties): Promise<void> {
    if (!place) return;
    place.helloCame();
    const answer = await doorman.hello(event, { write, send, end }, place);
    if (answer.kind === "refused") return turnAway(answer.status, answer.message, answer.refusal);
    if (state !== "judging") return answer.guest.gone();
    state = "open";
    guest = answer.guest;
    transport.accept();
    guest.welcome();
    // A strict guest leaves it when it has confirmed; here nothing more is waited for.
    if (guest.kind === "compat") place.leave();
  }

  return {
    end,
    gone,
    event(event) {
      if (state === "over") return;
      try {
        if (state === "open") {
          if (!guest || !heard(guest, event)) end();
        } else if (state === "judging" || !event.hello)
          refuse("precondition_failed", "the first event must be a Hello, and the next one waits for its answer");
        else {
          state = "judging";
          void hello(event.hello).catch((thrown: unknown) => {
            failed(thrown);
            refuse("internal", "this controller could not answer; its log says why");
          });
        }
      } catch (thrown) {
        failed(thrown);
        end();
      }
    },
  };
}

/** A strict session has frames and nothing else, a compat session none. */
function heard(guest: Guest | CompatGuest, event: EdgeEvent): boolean {
  if (guest.kind === "compat") return guest.event(event);
  const frame = sealedFrame(event);
  return frame !== null && guest.frame(frame);
}

/** The frame of an event that holds one and nothing else. */
const sealedFrame = ({ event, sealed }: EdgeEvent): Frame | null => (event === "sealed" ? frameOf(sealed) : null);
