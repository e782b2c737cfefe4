/** A daemon's session with everything real but its tool, its clock and its link. */
import { randomUUID } from "node:crypto";
import type { TrustedOperator } from "../../src/config/edge.ts";
import { createInvocations, type Invocations } from "../../src/daemon/invocations.ts";
import type { ControllerLink } from "../../src/daemon/link.ts";
import { operatorChallenges } from "../../src/daemon/operator-challenges.ts";
import { createOperators } from "../../src/daemon/operators.ts";
import { createOutbox, type Outbox } from "../../src/daemon/outbox.ts";
import type { PushedSettings, StreamSettings } from "../../src/daemon/push-config.ts";
import { runSession, type SessionOptions, type SessionState } from "../../src/daemon/session.ts";
import type { SessionEnd } from "../../src/daemon/supervise.ts";
import type { TrustedKeyset } from "../../src/envelope/keyset.ts";
import type { SigningKey } from "../../src/envelope/public-key.ts";
import { userVerifier } from "../../src/envelope/user.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import type { FakeClock } from "./fake-clock.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";
import { type ScriptedTool, scriptedHost, scriptedTool } from "./scripted-host.ts";
import type { HostIdentity, StrictKeys } from "./strict-keys.ts";

export interface StrictDaemon {
  tool: ScriptedTool;
  log: RecordedLog;
  outbox: Outbox;
  invocations: Invocations;
  /** Every state of every session, in order. */
  states: SessionState["kind"][];
  /** What a controller has pushed and still holds. */
  pushed: PushedSettings[];
  keyset(): TrustedKeyset;
  /** Begins one session. The promise is of its end, as text when it threw. */
  connect(): { ended: Promise<SessionEnd>; stop(): void };
}

export interface StrictDaemonOptions {
  link: ControllerLink;
  clock: FakeClock;
  strict: StrictKeys;
  identity: HostIdentity;
  maxConcurrent?: number;
  heartbeatIntervalMs?: number;
  saveKeyset?: (keyset: TrustedKeyset) => Promise<void>;
  /** What it trusts when it begins, when that is not the first. */
  keyset?: TrustedKeyset;
  /** Operators whose signature the context `signed` takes. */
  trusted?: readonly TrustedOperator[];
  log?: RecordedLog;
  /** The key of now, where it may change. */
  nodeKey?: () => SigningKey;
  /** More of each session's options, asked for as it begins. */
  session?: () => Partial<SessionOptions>;
}

export const capabilitiesBytes = (hostName: string, heartbeatSecs = 0): Uint8Array =>
  aegis.cluster.v1.EdgeCapabilities.encode({
    ...{ os: "linux", arch: "x86_64", localTools: ["shell"], hostName, heartbeatSecs },
  }).finish();

export function strictDaemon(options: StrictDaemonOptions): StrictDaemon {
  const { link, clock, strict, identity, maxConcurrent = 16, heartbeatIntervalMs = 30_000 } = options;
  const { nodeId, tenantId } = identity;
  const nodeKey = options.nodeKey ?? (() => identity.nodeKey);
  const tool = scriptedTool();
  const log = options.log ?? recordedLog();
  let keyset = options.keyset ?? strict.keyset;
  const users = () => userVerifier({ ...keyset, tenantId });
  const operators = createOperators({
    ...{ nodeId, tenantId, hostName: "web-1", nodeKey, now: clock.now },
    policy: () => ({ trusted: options.trusted ?? [], contexts: ["signed"] }),
    challenges: operatorChallenges(),
  });
  let host = { ...scriptedHost({ clock, tools: [tool.tool], nodeId, tenantId, users: users() }), operators };
  const outbox = createOutbox({ nodeId, nodeKey, clock, log });
  const invocations = createInvocations({ host: () => host, outbox, clock, log, maxConcurrent });
  const states: SessionState["kind"][] = [];
  const pushed: PushedSettings[] = [];
  const settings: StreamSettings = {
    maxConcurrent,
    apply: (next) => void pushed.push(next),
    reset: () => void pushed.splice(0),
  };
  return {
    tool,
    log,
    outbox,
    invocations,
    states,
    pushed,
    keyset: () => keyset,
    connect() {
      const stop = new AbortController();
      const session = runSession(
        {
          ...{
            link,
            clock,
            log,
            nodeId,
            nodeKey: nodeKey(),
            outbox,
            invocations,
            heartbeatIntervalMs,
            operators,
            settings,
          },
          nodeToken: identity.nodeToken,
          keyset: () => keyset,
          async saveKeyset(newer) {
            await options.saveKeyset?.(newer);
            keyset = newer;
            host = { ...host, users: users() };
          },
          capabilities: () => capabilitiesBytes("web-1", heartbeatIntervalMs / 1000),
          newStreamId: randomUUID,
          onState: (state) => states.push(state.kind),
          onShutdown: () => {},
          ...options.session?.(),
        },
        stop.signal,
      );
      const ended = session.catch((cause: unknown): SessionEnd => ({ kind: "lost", cause }));
      return { ended, stop: () => stop.abort() };
    },
  };
}

/** Why a session was lost, in its own words. */
export const causeOf = (end: SessionEnd): string =>
  end.kind === "lost" ? (end.cause as Error).message : `ended by ${end.kind}`;
