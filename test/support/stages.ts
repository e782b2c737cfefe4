/** One end of a session as it is in life, facing an end that the test plays by hand. */
import { callers } from "../../src/controller/callers.ts";
import type { CallRequest } from "../../src/controller/dispatch-types.ts";
import type { SessionEnd } from "../../src/daemon/supervise.ts";
import type { TrustedKeyset } from "../../src/envelope/keyset.ts";
import type { SigningKey } from "../../src/envelope/public-key.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { honestRelay, memoryLink } from "./memory-link.ts";
import { type RogueController, type RogueDaemon, rogueController, rogueDaemon, sealed } from "./rogue.ts";
import { settled } from "./scripted-host.ts";
import { type StrictDaemon, type StrictDaemonOptions, strictDaemon } from "./strict-daemon.ts";
import { type HostIdentity, hostIdentity, type StrictKeys, strictKeys } from "./strict-keys.ts";
import { callRequest, type StrictController, strictController } from "./strict-pair.ts";

/** An EdgeCommand as this controller's dispatcher writes it. */
export function invokeBody(
  { keys, controllerId }: StrictKeys,
  { nodeId, tenantId }: HostIdentity,
  time: () => number,
  given: Partial<CallRequest> = {},
): Uint8Array {
  const principal = { name: "tester", tenantId, scopes: [], contexts: ["default"] };
  return callers({ keys, controllerId, time })(callRequest({ nodeId, principal, ...given }), "strict");
}

export interface DaemonStage {
  clock: FakeClock;
  strict: StrictKeys;
  identity: HostIdentity;
  daemon: StrictDaemon;
  rogue: RogueController;
  time: () => number;
  /** A new session; with `accepted` up to and including CONFIRM. */
  begin(accepted?: boolean): Promise<{ ended: Promise<SessionEnd>; stop(): void }>;
  invoke(given?: Partial<CallRequest>): Uint8Array;
}

export function daemonStage({
  command,
  strict = strictKeys(command ? { command } : {}),
  identity: given,
  ...options
}: {
  saveKeyset?: (keyset: TrustedKeyset) => Promise<void>;
  command?: SigningKey;
  /** Those of another stage, for the next process of its host. */
  strict?: StrictKeys;
  identity?: HostIdentity;
  keyset?: TrustedKeyset;
  /** More of each session's options. */
  session?: NonNullable<StrictDaemonOptions["session"]>;
} = {}): DaemonStage {
  const clock = fakeClock();
  const identity = given ?? hostIdentity(strict, clock.now());
  const time = () => clock.now();
  const rogue = rogueController(strict, identity, time);
  const daemon = strictDaemon({ link: rogue.link, clock, strict, identity, ...options });
  return {
    ...{ clock, strict, identity, daemon, rogue, time },
    async begin(accepted = true) {
      const session = daemon.connect();
      await settled();
      if (!accepted) return session;
      rogue.send(sealed(rogue.accept()));
      await settled();
      if (daemon.states.at(-1) !== "connected") throw new Error(`not connected: ${JSON.stringify(daemon.log.lines)}`);
      return session;
    },
    invoke: (given) => invokeBody(strict, identity, time, given),
  };
}

export interface ControllerStage extends StrictController {
  identity: HostIdentity;
  rogue: RogueDaemon;
  /** A new stream; with `confirmed` up to a live session. */
  begin(confirmed?: boolean): Promise<void>;
}

export async function controllerStage(given: { nodeKey?: SigningKey } = {}): Promise<ControllerStage> {
  const clock = fakeClock();
  const controller = await strictController({ clock });
  const identity = hostIdentity(controller.strict, clock.now(), given);
  await controller.enroll(identity);
  const { log } = controller;
  const link = memoryLink({ doorman: () => controller.doorman, relay: honestRelay(), log });
  const rogue = rogueDaemon(link, controller.strict, identity, controller.time);
  return {
    ...controller,
    identity,
    rogue,
    async begin(confirmed = true) {
      await rogue.dial();
      rogue.send(rogue.hello());
      await settled();
      if (!confirmed) return;
      rogue.send(sealed(rogue.frame("confirm", aegis.cluster.v1.SealConfirm.encode({}).finish())));
      await settled();
      if (!controller.sessions.get(identity.nodeId)) throw new Error(`no session: ${JSON.stringify(log.lines)}`);
    },
  };
}
