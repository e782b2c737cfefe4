/**
 * Lets hosts in: judges a Hello, answers it, and makes a session of it once CONFIRM has proved that it is no recording.
 * Until then nothing changes: no older session is replaced, no inventory touched.
 */

import { type Frame, maxBodyBytes } from "../envelope/frame.ts";
import { answerHello, type HeardHello, hearHello } from "../envelope/handshake.ts";
import { verifyJwt } from "../envelope/jwt.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { importPublicKey, importSigningKey, newSeed, type PublicKey } from "../envelope/public-key.ts";
import { signRefusal } from "../envelope/refusal.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { NodeRow, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";
import { type CompatAnswer, createCompatDoor } from "./compat-door.ts";
import type { CompatStream } from "./compat-session.ts";
import type { ControllerKeys } from "./keys.ts";
import { creditWindowBytes, type NodeSession, nodeSession, type SessionStream } from "./node-session.ts";
import type { ResultLedger } from "./result-ledger.ts";
import { defaultHeartbeatMs, type Sessions } from "./sessions.ts";

const { GoodbyeReason, SealRefusal, EdgeCapabilities } = aegis.cluster.v1;
type HelloEvent = aegis.cluster.v1.HelloEvent.$Properties;

/** Streams that have said Hello and not yet CONFIRM. */
export const doorLimits = { waiting: 1_024, perAddress: 64, confirmMs: 10_000 };

/** gRPC status numbers, which this file names so that it need not know a gRPC library. */
const unauthenticated = 16;
const permissionDenied = 7;
const failedPrecondition = 9;
const resourceExhausted = 8;

export interface DoormanOptions {
  store: Store;
  keys: ControllerKeys;
  keyset: TrustedKeyset;
  sessions: Sessions;
  ledger: ResultLedger;
  clock: Clock;
  time: () => number;
  log: Log;
}

/** One stream whose Hello was accepted. */
export interface Guest {
  kind: "strict";
  /** Sends ACCEPT and starts the wait for CONFIRM. */
  welcome(): void;
  /** The next frame. False: the stream must end. */
  frame(frame: Frame): boolean;
  /** The stream is gone. */
  gone(): void;
}

export type Answer =
  | { kind: "come_in"; guest: Guest }
  | CompatAnswer
  | { kind: "refused"; status: number; message: string; refusal: Uint8Array | null };

export interface Doorman {
  hello(hello: HelloEvent, address: string, stream: SessionStream & CompatStream): Promise<Answer>;
}

export function createDoorman(options: DoormanOptions): Doorman {
  const { store, keys, keyset, sessions, clock, time, log } = options;
  const compatDoor = createCompatDoor(options);
  const waiting = new Map<string, number>();
  let waitingInAll = 0;
  // Verified instead of a node's key when there is no such node, so that an answer takes as long either way.
  const nobody: PublicKey = importSigningKey(newSeed());

  const refused = (status: number, message: string, refusal: Uint8Array | null = null): Answer => ({
    kind: "refused",
    status,
    message,
    refusal,
  });

  /** A refusal that this daemon can believe, because it names the Hello it answers. */
  function signed(
    nodeId: string,
    sealHello: Uint8Array,
    reason: aegis.cluster.v1.GoodbyeReason,
    message: string,
    retryAfterMs = 0,
  ): Answer {
    const signature = signRefusal(keys.command, { nodeId, sealHello, reason, retryAfterMs });
    const trailer = SealRefusal.encode({ reason, retryAfterMs: toLong(retryAfterMs), signature }).finish();
    return refused(
      reason === GoodbyeReason.GOODBYE_REASON_REVOKED ? permissionDenied : unauthenticated,
      message,
      trailer,
    );
  }

  async function judge(
    event: HelloEvent,
  ): Promise<Answer | { kind: "known"; hello: HeardHello; row: NodeRow; mustRefresh: boolean }> {
    const stranger = refused(
      unauthenticated,
      "the host could not be authenticated; enroll it again if it should be known here",
    );
    const sealHello = event.sealHello ?? new Uint8Array();
    const token = verifyJwt("node", event.envelope?.nodeSecurityToken ?? "", {
      keys: keyset.tokenKeys,
      issuer: keyset.controllerId,
    });
    if (token.kind === "refused") return stranger;
    const { claims } = token;
    const row = await store.node(claims.sub);
    const nodeKey = (row && importPublicKey(row.publicKey)) ?? nobody;
    const signature = event.sealHelloSignature ?? new Uint8Array();
    const heard = hearHello({ nodeId: claims.sub, streamId: event.streamId ?? "", sealHello, signature, nodeKey });
    if (heard.kind === "refused") {
      log.warn("hello_refused", { node_id: claims.sub, reason: heard.reason });
      return stranger;
    }
    const { hello } = heard;
    if (!row || claims.tid !== row.tenantId || hello.controllerId !== keyset.controllerId) return stranger;
    if (claims.cnf.jwk.x !== Buffer.from(row.publicKey).toString("base64url")) return stranger;
    if (row.seal !== "strict")
      return refused(failedPrecondition, "this host is enrolled for compat sessions; enroll it again for strict ones");
    if (row.revokedAt !== null)
      return signed(row.nodeId, sealHello, GoodbyeReason.GOODBYE_REASON_REVOKED, "this host was revoked");
    if (time() > claims.exp * 1000)
      return signed(
        row.nodeId,
        sealHello,
        GoodbyeReason.GOODBYE_REASON_TOKEN_EXPIRED,
        "the node token has expired; enroll again",
      );
    try {
      EdgeCapabilities.decode(hello.capabilities);
    } catch {
      return signed(row.nodeId, sealHello, GoodbyeReason.GOODBYE_REASON_PROTOCOL, "the capabilities cannot be read");
    }
    return { kind: "known", hello, row, mustRefresh: time() > (claims.iat + claims.exp) * 500 };
  }

  return {
    async hello(event, address, stream) {
      if (waitingInAll >= doorLimits.waiting || (waiting.get(address) ?? 0) >= doorLimits.perAddress) {
        return refused(
          resourceExhausted,
          `too many connections wait to be confirmed (${doorLimits.perAddress} an address, ${doorLimits.waiting} in all)`,
        );
      }
      const leave = enter(address);
      try {
        if (!event.sealHello?.length) return await compatDoor.hello(event, stream);
        const known = await judge(event);
        if (known.kind !== "known") return known;
        const answer = answerHello(known.hello, {
          commandKey: keys.command,
          keysetChain: await chainSince(known.hello.keysetVersion),
          keysetVersion: keyset.version,
          serverTimeMs: time(),
          limits: { maxBody: maxBodyBytes, maxWindow: creditWindowBytes, heartbeatSecs: 0 },
          mustRefresh: known.mustRefresh,
        });
        if (!answer) return refused(unauthenticated, "the Hello's key share is unusable");
        return { kind: "come_in", guest: guest({ ...known, ...answer, stream, leave: leave.keep() }) };
      } finally {
        leave.unlessKept();
      }
    },
  };

  /** Takes one of the places before the door, and gives it back once. */
  function enter(address: string) {
    waitingInAll++;
    waiting.set(address, (waiting.get(address) ?? 0) + 1);
    let inside = true;
    let kept = false;
    const leave = () => {
      if (!inside) return;
      inside = false;
      waitingInAll--;
      const left = (waiting.get(address) ?? 1) - 1;
      if (left > 0) waiting.set(address, left);
      else waiting.delete(address);
    };
    return {
      keep: () => {
        kept = true;
        return leave;
      },
      unlessKept: () => {
        if (!kept) leave();
      },
    };
  }

  /** Every change of root since the daemon's version, then the newest keyset. */
  async function chainSince(version: number): Promise<Uint8Array[]> {
    const rows = await store.keysetsAfter(version);
    const changes = rows.filter(
      (row, index) => index > 0 && !Buffer.from(row.rootKey).equals(rows[index - 1]?.rootKey ?? new Uint8Array()),
    );
    return [...new Set([...changes.map((row) => row.signed), keyset.signed])];
  }

  interface Arrival extends NonNullable<ReturnType<typeof answerHello>> {
    hello: HeardHello;
    row: NodeRow;
    stream: SessionStream;
    leave: () => void;
  }

  function guest({ hello, row, stream, channel, accept, leave }: Arrival): Guest {
    const patience = new AbortController();
    let session: NodeSession | null = null;
    let remove: (() => void) | null = null;
    const note = (change: Promise<void>) =>
      void change.catch((error: unknown) =>
        log.error("store_failed", { node_id: row.nodeId, error: AegisError.from(error) }),
      );

    function confirm(frame: Frame): boolean {
      const opened = channel.open(frame);
      if (opened.kind === "refused" || opened.frame !== "confirm") {
        log.warn("seal_frame", {
          node_id: row.nodeId,
          reason: opened.kind === "refused" ? opened.reason : "confirm_expected",
        });
        return false;
      }
      patience.abort();
      leave();
      const { nodeId, tenantId } = row;
      session = nodeSession({
        ...options,
        nodeId,
        tenantId,
        nodeKey: hello.nodeKey,
        channel,
        stream,
        capabilities: hello.capabilities,
        onHeartbeat: () => note(store.nodeHeartbeat(nodeId, time())),
        onCapabilities: (capabilities) => note(store.nodeCapabilities(nodeId, capabilities)),
      });
      remove = sessions.add(session, defaultHeartbeatMs);
      const arrived = session;
      note(
        store.nodeConnected(nodeId, time(), hello.capabilities, hello.softwareVersion).then((welcome) => {
          // Revoked between Hello and CONFIRM, when there was no session to end.
          if (!welcome) arrived.goodbye(GoodbyeReason.GOODBYE_REASON_REVOKED, "this host was revoked");
        }),
      );
      log.info("node_connected", { node_id: nodeId, tenant_id: tenantId, software_version: hello.softwareVersion });
      return true;
    }

    return {
      kind: "strict",
      welcome() {
        stream.write(accept);
        void clock.sleep(doorLimits.confirmMs, patience.signal).then(() => {
          if (patience.signal.aborted) return;
          log.warn("hello_unconfirmed", { node_id: row.nodeId });
          stream.end();
        });
      },
      frame: (frame) => (session ? session.receive(frame) : confirm(frame)),
      gone() {
        patience.abort();
        leave();
        remove?.();
        session?.closed();
        if (session && !sessions.get(row.nodeId)) {
          note(store.nodeDisconnected(row.nodeId));
          log.info("node_disconnected", { node_id: row.nodeId, tenant_id: row.tenantId });
        }
        session = null;
        remove = null;
      },
    };
  }
}
