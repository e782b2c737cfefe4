/** Every live session, one for each node: a newer one takes the place of an older, and an ending removes only itself. */

import type { Log } from "../platform/log.ts";
import { aegis } from "../wire/gen/messages.js";
import type { Bus } from "./bus.ts";
import type { LiveNodes } from "./dispatch-types.ts";
import type { KeysetStep } from "./key-changes.ts";
import type { LiveSession } from "./node-session.ts";

const { GoodbyeReason } = aegis.cluster.v1;

export interface Sessions extends LiveNodes {
  /** Takes over from any older session of the node. The returned function removes this one, and only this one. */
  add(session: LiveSession, heartbeatIntervalMs: number): () => void;
  /** Ends the node's session, if it has one, with a word why. */
  end(nodeId: string, reason: aegis.cluster.v1.GoodbyeReason, detail: string): void;
  /** Sends the node a command that has no answer; false when it has no stream. A new heartbeat interval is remembered. */
  tell(nodeId: string, command: aegis.cluster.v1.EdgeCommand.$Properties, heartbeatIntervalMs?: number): boolean;
  /** The controller's keys are these from now on: every session is told. */
  bring(step: KeysetStep): void;
  /** Nodes whose session has not confirmed this keyset. */
  behind(keysetVersion: number): string[];
  /** Every node that has a session. */
  nodeIds(): string[];
  /** Ends every session with a word why. */
  closeAll(reason: aegis.cluster.v1.GoodbyeReason, detail: string): void;
  readonly size: number;
}

/** What a host uses that does not say how often it sends one. */
export const defaultHeartbeatMs = 30_000;
/** A host is unhealthy after this long without a heartbeat, or three of its intervals. */
const minUnhealthyMs = 90_000;

/** So many replacements in so long mean that two hosts have one key, such as a cloned machine. */
const contention = { replacements: 3, withinMs: 10 * 60_000 };

export interface SessionEvents {
  /** A stream was opened; what is returned is called when it is gone. */
  onStream?: () => () => void;
  /** Two hosts use one key, as far as anybody can tell; once for each time that it begins. */
  onContended?: (nodeId: string, tenantId: string) => void;
  log?: Log;
}

export function createSessions(
  bus: Bus,
  time: () => number,
  { onStream, onContended, log }: SessionEvents = {},
): Sessions {
  const replaced = new Map<string, number[]>();

  /** Two live hosts with one key push each other out for ever: somebody must be told. */
  function noteReplacement(nodeId: string, tenantId: string): void {
    const now = time();
    const times = [...(replaced.get(nodeId) ?? []), now].filter((at) => now - at < contention.withinMs);
    replaced.set(nodeId, times);
    if (times.length === contention.replacements + 1) onContended?.(nodeId, tenantId);
    if (times.length > contention.replacements)
      log?.error("node_contended", {
        ...{ node_id: nodeId, tenant_id: tenantId, replacements: times.length },
        hint: "two hosts use one key, perhaps a cloned machine: enroll one of them anew",
      });
  }

  const sessions = new Map<string, { session: LiveSession; heartbeatIntervalMs: number }>();
  return {
    get size() {
      return sessions.size;
    },
    add(session, heartbeatIntervalMs) {
      const { nodeId } = session.live;
      const older = sessions.get(nodeId)?.session;
      const entry = { session, heartbeatIntervalMs };
      sessions.set(nodeId, entry);
      const stopServing = bus.serve(nodeId, (call, signal) => session.call(call, signal));
      const gone = onStream?.();
      if (older) noteReplacement(nodeId, session.live.tenantId);
      older?.goodbye(GoodbyeReason.GOODBYE_REASON_REPLACED, "a newer stream of this node took over");
      return () => {
        gone?.();
        stopServing();
        if (sessions.get(nodeId) === entry) sessions.delete(nodeId);
      };
    },
    get: (nodeId) => sessions.get(nodeId)?.session.live,
    status(nodeId) {
      const entry = sessions.get(nodeId);
      if (!entry) return "disconnected";
      const { live } = entry.session;
      if (live.draining) return "draining";
      const patienceMs = Math.max(minUnhealthyMs, 3 * entry.heartbeatIntervalMs);
      return time() - live.lastHeartbeatAt > patienceMs ? "unhealthy" : "connected";
    },
    end: (nodeId, reason, detail) => sessions.get(nodeId)?.session.goodbye(reason, detail),
    tell(nodeId, command, heartbeatIntervalMs) {
      const entry = sessions.get(nodeId);
      if (!entry?.session.tell(command)) return false;
      entry.heartbeatIntervalMs = heartbeatIntervalMs ?? entry.heartbeatIntervalMs;
      return true;
    },
    bring(step) {
      for (const { session } of sessions.values()) session.bring(step);
    },
    behind: (version) =>
      [...sessions]
        .filter(([, { session }]) => (session.live.keysetVersion ?? version) < version)
        .map(([nodeId]) => nodeId),
    nodeIds: () => [...sessions.keys()],
    closeAll(reason, detail) {
      for (const { session } of [...sessions.values()]) session.goodbye(reason, detail);
    },
  };
}
