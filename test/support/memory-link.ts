/** A ControllerLink without a network: every message passes as bytes, and through whoever sits in between. */
import type { Doorman } from "../../src/controller/doorman.ts";
import { edgeStream } from "../../src/controller/edge-stream.ts";
import { type Rotations, rotationAnswer } from "../../src/controller/rotation.ts";
import type { ControllerLink, EdgeCommand, EdgeEvent, StreamEnd } from "../../src/daemon/link.ts";
import type { Log } from "../../src/platform/log.ts";
import { aegis } from "../../src/wire/gen/messages.js";

const wire = aegis.cluster.v1;

export type HeardEvent = ReturnType<typeof wire.EdgeEvent.decode>;

/** Gets each message and passes on what it likes, when it likes, as often as it likes. */
export interface Relay {
  up(event: HeardEvent, forward: (event: EdgeEvent) => void): void;
  down(command: EdgeCommand, forward: (command: EdgeCommand) => void): void;
}

/** One that does nothing, to begin with. */
export const honestRelay = (): Relay => ({
  up: (event, forward) => forward(event),
  down: (command, forward) => forward(command),
});

export interface MemoryLinkOptions {
  doorman: () => Doorman;
  relay: Relay;
  log: Log;
  address?: string;
  /** Answers RotateEdgeKey. */
  rotations?: Pick<Rotations, "rotate">;
}

export function memoryLink({
  doorman,
  relay,
  log,
  address = "192.0.2.1",
  rotations,
}: MemoryLinkOptions): ControllerLink {
  const hangUps = new Set<() => void>();
  const notHere = () => Promise.reject(new Error("enrollment is not part of this link"));
  return {
    async open({ onCommand, onEnd }) {
      let over = false;
      const finish = (end: StreamEnd) =>
        queueMicrotask(() => {
          if (over) return;
          over = true;
          onEnd(end);
        });
      const deliver = (command: EdgeCommand) => {
        const bytes = wire.EdgeCommand.encode(command).finish();
        queueMicrotask(() => over || onCommand(wire.EdgeCommand.decode(bytes)));
      };
      const stream = edgeStream({
        doorman: doorman(),
        address,
        log,
        transport: {
          accept() {},
          send: (command) => relay.down(wire.EdgeCommand.decode(wire.EdgeCommand.encode(command).finish()), deliver),
          refuse: (status, message, refusal) => finish({ status, message, refusal }),
          end: () => finish({ status: 0, message: "", refusal: null }),
        },
      });
      const hangUp = () => {
        over = true;
        hangUps.delete(hangUp);
        queueMicrotask(stream.gone);
      };
      hangUps.add(hangUp);
      return {
        send(event) {
          if (over) return false;
          relay.up(wire.EdgeEvent.decode(wire.EdgeEvent.encode(event).finish()), (passed) => {
            const bytes = wire.EdgeEvent.encode(passed).finish();
            queueMicrotask(() => stream.event(wire.EdgeEvent.decode(bytes)));
          });
          return true;
        },
        drained: () => Promise.resolve(),
        close: hangUp,
      };
    },
    attest: notHere,
    challenge: notHere,
    async rotate(request) {
      if (!rotations) return await notHere();
      const heard = wire.RotateEdgeKeyRequest.decode(wire.RotateEdgeKeyRequest.encode(request).finish());
      const answer = rotationAnswer(await rotations.rotate(heard));
      return wire.RotateEdgeKeyResponse.decode(wire.RotateEdgeKeyResponse.encode(answer).finish());
    },
    close() {
      for (const hangUp of [...hangUps]) hangUp();
    },
  };
}
