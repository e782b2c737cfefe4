/** A daemon's session with everything real but its tool, its clock and its link. */
import { randomUUID } from "node:crypto";
import { createInvocations, type Invocations } from "../../src/daemon/invocations.ts";
import type { ControllerLink } from "../../src/daemon/link.ts";
import { createOutbox, type Outbox } from "../../src/daemon/outbox.ts";
import { runSession, type SessionState } from "../../src/daemon/session.ts";
import type { SessionEnd } from "../../src/daemon/supervise.ts";
import type { TrustedKeyset } from "../../src/envelope/keyset.ts";
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
}

export const capabilitiesBytes = (hostName: string): Uint8Array =>
  aegis.cluster.v1.EdgeCapabilities.encode({ os: "linux", arch: "x86_64", localTools: ["shell"], hostName }).finish();

export function strictDaemon(options: StrictDaemonOptions): StrictDaemon {
  const { link, clock, strict, identity, maxConcurrent = 16, heartbeatIntervalMs = 30_000 } = options;
  const { nodeId, nodeKey, tenantId } = identity;
  const tool = scriptedTool();
  const log = recordedLog();
  let keyset = strict.keyset;
  const users = userVerifier({ tokenKeys: keyset.tokenKeys, controllerId: strict.controllerId, tenantId });
  const host = scriptedHost({ clock, tools: [tool.tool], nodeId, tenantId, users });
  const outbox = createOutbox({ nodeId, nodeKey, clock, log });
  const invocations = createInvocations({ host: () => host, outbox, clock, log, maxConcurrent });
  const states: SessionState["kind"][] = [];
  return {
    tool,
    log,
    outbox,
    invocations,
    states,
    keyset: () => keyset,
    connect() {
      const stop = new AbortController();
      const session = runSession(
        {
          ...{ link, clock, log, nodeId, nodeKey, outbox, invocations, heartbeatIntervalMs },
          nodeToken: identity.nodeToken,
          keyset: () => keyset,
          async saveKeyset(newer) {
            await options.saveKeyset?.(newer);
            keyset = newer;
          },
          capabilities: () => capabilitiesBytes("web-1"),
          newStreamId: randomUUID,
          onState: (state) => states.push(state.kind),
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
