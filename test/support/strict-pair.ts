/** A daemon and a controller with a link in memory between them, and two clocks that only the test moves. */
import { randomUUID } from "node:crypto";
import { type Bus, inProcessBus, type SessionCallEvent } from "../../src/controller/bus.ts";
import { controllerClock } from "../../src/controller/controller-clock.ts";
import { createDispatcher } from "../../src/controller/dispatch.ts";
import type { CallEvent, CallRequest, Dispatcher, ResultEvent } from "../../src/controller/dispatch-types.ts";
import { createDoorman, type Doorman, type DoormanOptions } from "../../src/controller/doorman.ts";
import { resultLedger } from "../../src/controller/result-ledger.ts";
import { createSessions, type Sessions } from "../../src/controller/sessions.ts";
import type { SessionEnd } from "../../src/daemon/supervise.ts";
import { openStore } from "../../src/store/open.ts";
import type { NodeRow, Store } from "../../src/store/store.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { honestRelay, memoryLink, type Relay } from "./memory-link.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";
import { settled } from "./scripted-host.ts";
import { type StrictDaemon, type StrictDaemonOptions, strictDaemon } from "./strict-daemon.ts";
import { type HostIdentity, hostIdentity, type StrictKeys, strictKeys } from "./strict-keys.ts";

export interface StrictController {
  strict: StrictKeys;
  clock: FakeClock;
  time: () => number;
  store: Store;
  bus: Bus;
  sessions: Sessions;
  doorman: Doorman;
  dispatcher: Dispatcher;
  log: RecordedLog;
  /** Makes a host known, as enrollment does. */
  enroll(identity: HostIdentity, change?: Partial<NodeRow>): Promise<void>;
  /** One call through the dispatcher, begun at once. */
  call(request: Partial<CallRequest> & Pick<CallRequest, "nodeId">): OngoingCall;
  /** One call with an EdgeCommand of the test's own making, past the dispatcher. */
  callRaw(nodeId: string, commandId: string, body: Uint8Array, window?: number): Promise<SessionCallEvent[]>;
}

/** A call as the fleet asks for it, to a tool of the test. */
export const callRequest = (given: Partial<CallRequest> & Pick<CallRequest, "nodeId">): CallRequest => ({
  ...{ commandId: randomUUID(), runId: randomUUID(), via: "cli", context: "default", tool: "test.work" },
  ...{ argsJson: "{}", deadlineMs: 0, progress: true, operator: new Uint8Array() },
  principal: { name: "tester", tenantId: "acme", scopes: [], contexts: ["default"] },
  ...given,
});

export interface OngoingCall {
  commandId: string;
  events: CallEvent[];
  abort(reason: string): void;
  /** The one result, once it has come. */
  result: Promise<ResultEvent>;
}

export interface StrictControllerOptions {
  clock: FakeClock;
  /** Stands before the real store, for the faults of a test. */
  wrapStore?: (store: Store) => Store;
  /** Keys of the test's own, which may change. */
  strict?: StrictKeys;
  keysetsSince?: DoormanOptions["keysetsSince"];
}

export async function strictController({
  clock,
  wrapStore,
  strict = strictKeys(),
  keysetsSince,
}: StrictControllerOptions): Promise<StrictController> {
  const time = controllerClock(clock);
  const real = await openStore(":memory:");
  const store = wrapStore?.(real) ?? real;
  await real.ensureTenant("acme", clock.now());
  const log = recordedLog();
  const bus = inProcessBus();
  const sessions = createSessions(bus, time);
  const ledger = resultLedger({ store, time, log });
  const { keys, controllerId } = strict;
  const doorman = createDoorman({
    ...{ store, keys, sessions, ledger, clock, time, log },
    ...(keysetsSince ? { keysetsSince } : {}),
  });
  const dispatcher = createDispatcher({ bus, store, keys, controllerId, clock, time });
  return {
    strict,
    clock,
    time,
    store,
    bus,
    sessions,
    doorman,
    dispatcher,
    log,
    async enroll({ nodeId, tenantId, nodeKey }, change = {}) {
      await real.ensureTenant(tenantId, clock.now());
      await real.putNode({
        ...{ nodeId, tenantId, publicKey: nodeKey.raw, seal: "strict", hostName: "web-1", displayName: null, tags: [] },
        ...{ capabilities: new Uint8Array(), softwareVersion: "", enrolledAt: clock.now() },
        ...{ connectedSince: null, lastHeartbeatAt: null, revokedAt: null },
        ...{ tokenJti: randomUUID(), tokenExpiresAt: clock.now() + 30 * 86_400_000 },
        ...change,
      });
    },
    call(given) {
      const stop = new AbortController();
      const events: CallEvent[] = [];
      const request = callRequest(given);
      const result = (async () => {
        let last: ResultEvent | null = null;
        for await (const event of dispatcher.call(request, stop.signal)) {
          if (event.kind === "progress") event.taken?.();
          events.push(event);
          if (event.kind === "result") last = event;
        }
        if (!last) throw new Error("the call ended without a result");
        return last;
      })();
      return { commandId: request.commandId, events, abort: (reason) => stop.abort(reason), result };
    },
    async callRaw(nodeId, commandId, body, window = 0) {
      const events: SessionCallEvent[] = [];
      for await (const event of bus.call(nodeId, { commandId, body, window }, new AbortController().signal))
        events.push(event);
      return events;
    },
  };
}

export interface StrictPair extends StrictController {
  host: FakeClock;
  identity: HostIdentity;
  daemon: StrictDaemon;
  relay: Relay;
  link: ReturnType<typeof memoryLink>;
  /** Connects, and resolves when CONFIRM has come through. */
  connected(): Promise<{ ended: Promise<SessionEnd>; stop(): void }>;
  /** Time passes on both machines alike. */
  pass(ms: number): Promise<void>;
}

export async function strictPair(
  options: Pick<StrictDaemonOptions, "heartbeatIntervalMs" | "maxConcurrent" | "trusted"> &
    Omit<StrictControllerOptions, "clock"> = {},
): Promise<StrictPair> {
  const controllerSide = fakeClock();
  const host = fakeClock();
  const { wrapStore, strict: given, keysetsSince, ...daemonOptions } = options;
  const controller = await strictController({
    clock: controllerSide,
    ...(wrapStore ? { wrapStore } : {}),
    ...(given ? { strict: given } : {}),
    ...(keysetsSince ? { keysetsSince } : {}),
  });
  const { strict, sessions } = controller;
  const relay = honestRelay();
  const link = memoryLink({ doorman: () => controller.doorman, relay, log: controller.log });
  const identity = hostIdentity(strict, controllerSide.now());
  await controller.enroll(identity);
  const daemon = strictDaemon({ link, clock: host, strict, identity, ...daemonOptions });
  return {
    ...controller,
    host,
    identity,
    daemon,
    relay,
    link,
    async connected() {
      const before = sessions.get(identity.nodeId);
      const session = daemon.connect();
      for (let turn = 0; turn < 20; turn++) {
        await settled();
        const now = sessions.get(identity.nodeId);
        if (now && now !== before) return session;
      }
      throw new Error(`no session: ${JSON.stringify([controller.log.lines, daemon.log.lines])}`);
    },
    async pass(ms) {
      const stepMs = 1_000;
      for (let left = ms; left > 0; left -= stepMs) {
        const step = Math.min(left, stepMs);
        await host.advance(step);
        await controllerSide.advance(step);
        await settled();
      }
    },
  };
}
