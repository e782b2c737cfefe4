/**
 * Lets hosts in that know no strict session. There is no fresh nonce to answer, so a Hello counts once: it must be signed
 * by the host's key, be about now, and name a stream that this host never opened before.
 */
import { innerOf, verifyCompat } from "../envelope/compat.ts";
import { verifyJwt } from "../envelope/jwt.ts";
import { importSigningKey, newSeed, type PublicKey } from "../envelope/public-key.ts";
import { uuidBytes } from "../envelope/statement.ts";
import { AegisError, type ErrorCode, errorTable } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { NodeRow, Store } from "../store/store.ts";
import type { aegis } from "../wire/gen/messages.js";
import { noteArrival } from "./arrival.ts";
import { type CompatSession, type CompatStream, compatSession, peerCapabilities } from "./compat-session.ts";
import type { ControllerKeys } from "./keys.ts";
import { newestOnly } from "./newest-only.ts";
import { reconnectGraceMs } from "./node-token.ts";
import type { ResultLedger } from "./result-ledger.ts";
import { endWithKey, sessionKey } from "./rotation.ts";
import { defaultHeartbeatMs, type Sessions } from "./sessions.ts";

type EdgeEvent = ReturnType<typeof aegis.cluster.v1.EdgeEvent.decode>;
type HelloEvent = aegis.cluster.v1.HelloEvent.$Properties;

/**
 * Streams that a host opened lately: a recorded Hello is refused while its time is within the window, which is the
 * window's whole width for one that was stamped ahead. A host that opens more is refused until the oldest is forgotten.
 */
export const streamMemory = { perNode: 64, ms: 600_000 };

export interface CompatDoorOptions {
  store: Store;
  keys: Pick<ControllerKeys, "keyset">;
  sessions: Sessions;
  ledger: ResultLedger;
  clock: Clock;
  time: () => number;
  log: Log;
  /** Nobody is let in here. */
  requireStrict?: boolean;
  /** A host of this tenant is alive. */
  onHeartbeat?: (tenantId: string) => void;
  /** This host was heard now. */
  heard: (nodeId: string) => void;
}

/** One stream whose Hello was accepted. */
export interface CompatGuest {
  kind: "compat";
  /** Makes the session: what older one there is gives way. */
  welcome(): void;
  /** The next event. False: the stream must end. */
  event(event: EdgeEvent): boolean;
  /** The stream is gone. */
  gone(): void;
}

export type CompatAnswer =
  | { kind: "come_in"; guest: CompatGuest }
  | { kind: "refused"; status: number; message: string; refusal: null };

export interface CompatDoor {
  hello(hello: HelloEvent, stream: CompatStream): Promise<CompatAnswer>;
}

interface Known {
  kind: "known";
  row: NodeRow;
  nodeKey: PublicKey;
  keyUntilMs: number | null;
}

export function createCompatDoor(options: CompatDoorOptions): CompatDoor {
  const { store, keys, sessions, clock, time, log } = options;
  const opened = new Map<string, Map<string, number>>();
  const nobody: PublicKey = importSigningKey(newSeed());

  const refused = (code: ErrorCode, message: string): CompatAnswer => ({
    kind: "refused",
    status: errorTable[code].grpc,
    message,
    refusal: null,
  });

  async function judge(event: HelloEvent): Promise<CompatAnswer | Known> {
    const stranger = refused(
      "unauthenticated",
      "the host could not be authenticated; enroll it again if it should be known here",
    );
    const { envelope } = event;
    const streamId = event.streamId ?? "";
    const token = verifyJwt("node", envelope?.nodeSecurityToken ?? "", {
      keys: keys.keyset.tokenKeys,
      issuer: keys.keyset.controllerId,
    });
    if (token.kind === "refused" || !uuidBytes(streamId)) return stranger;
    const { claims } = token;
    const nodeId = claims.sub;
    const row = await store.node(nodeId);
    const key = row && (await sessionKey(store, row, claims, time()));
    const nodeKey = key?.key ?? nobody;
    const said = { kind: "hello", nodeId, streamId, inner: innerOf.hello() } as const;
    const signed = {
      payload: envelope?.payload ?? new Uint8Array(),
      signature: envelope?.signature ?? new Uint8Array(),
    };
    const now = time();
    const genuine = verifyCompat(nodeKey, said, signed, now);
    if (genuine.kind === "refused") {
      log.warn("hello_refused", { node_id: nodeId, seal: "compat", reason: genuine.reason });
      // Only what the host's own key signed gets as far as its time, so that may be told.
      return genuine.reason === "time"
        ? refused(
            "unauthenticated",
            `the host's clock is too far from this controller's, ${new Date(now).toISOString()}`,
          )
        : stranger;
    }
    if (!row || !key || claims.tid !== row.tenantId) return stranger;
    if (row.revokedAt !== null) return refused("forbidden", "this host was revoked");
    if (options.requireStrict)
      return refused(
        "precondition_failed",
        "this controller takes strict sessions only; enroll the host again for them",
      );
    if (row.seal === "strict") {
      log.error("downgrade_refused", { node_id: nodeId, tenant_id: row.tenantId });
      return refused(
        "precondition_failed",
        "this host is enrolled for strict sessions, and this Hello carries no seal_hello; only a new enrollment changes that",
      );
    }
    // The peer's daemon never renews its token by itself; the key proves the host.
    if (now > claims.exp * 1000 + reconnectGraceMs)
      return refused("unauthenticated", "the node token expired more than a year ago; enroll the host again");
    if (now > claims.exp * 1000) log.warn("node_token_expired", { node_id: nodeId, hint: "aegis edge token refresh" });
    return remember(nodeId, streamId) ?? { kind: "known", row, nodeKey, keyUntilMs: key.untilMs };
  }

  /** Takes note of a stream; a refusal when it cannot be told from a recording. */
  function remember(nodeId: string, streamId: string): CompatAnswer | null {
    const now = clock.monotonic();
    const streams = opened.get(nodeId) ?? new Map<string, number>();
    for (const [id, at] of streams) if (now - at > streamMemory.ms) streams.delete(id);
    if (streams.has(streamId)) {
      log.warn("hello_refused", { node_id: nodeId, seal: "compat", reason: "stream_id seen before" });
      return refused("unauthenticated", "this stream_id was used before");
    }
    if (streams.size >= streamMemory.perNode)
      return refused(
        "rate_limited",
        `this host opened ${streamMemory.perNode} streams within ${streamMemory.ms / 60_000} minutes, which is the limit`,
      );
    streams.set(streamId, now);
    opened.set(nodeId, streams);
    return null;
  }

  return {
    async hello(event, stream) {
      const known = await judge(event);
      if (known.kind !== "known") return known;
      return { kind: "come_in", guest: guest(event, known, stream) };
    },
  };

  function guest(hello: HelloEvent, { row, nodeKey, keyUntilMs }: Known, stream: CompatStream) {
    const { nodeId, tenantId } = row;
    const capabilities = peerCapabilities(hello.capabilities);
    const left = new AbortController();
    const noted = (change: Promise<void>): Promise<void> =>
      change.catch((error: unknown) => log.error("store_failed", { node_id: nodeId, error: AegisError.from(error) }));
    let session: CompatSession | null = null;
    let remove: (() => void) | null = null;
    return {
      kind: "compat",
      welcome() {
        session = compatSession({
          ...options,
          nodeId,
          tenantId,
          nodeKey,
          streamId: hello.streamId ?? "",
          nodeToken: hello.envelope?.nodeSecurityToken ?? "",
          stream,
          capabilities,
          onHeartbeat() {
            options.onHeartbeat?.(tenantId);
            options.heard(nodeId);
          },
          onCapabilities: newestOnly((bytes) => noted(store.nodeCapabilities(nodeId, bytes))),
        });
        remove = sessions.add(session, defaultHeartbeatMs);
        const { goodbye } = session;
        void noted(noteArrival({ row, capabilities, softwareVersion: "", goodbye }, options));
        void endWithKey(session, keyUntilMs, { store, clock, time, signal: left.signal });
        log.warn("node_connected", { node_id: nodeId, tenant_id: tenantId, seal: "compat" });
      },
      event: (event) => session?.event(event) ?? false,
      gone() {
        left.abort();
        remove?.();
        session?.closed();
        if (session && !sessions.get(nodeId)) {
          void noted(store.nodeDisconnected(nodeId));
          log.info("node_disconnected", { node_id: nodeId, tenant_id: tenantId });
        }
        session = null;
        remove = null;
      },
    } satisfies CompatGuest;
  }
}
