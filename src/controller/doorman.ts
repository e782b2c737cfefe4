/**
 * Lets hosts in: judges a Hello, answers it, and makes a session of it once CONFIRM has proved that it is no recording.
 * Until then nothing changes: no older session is replaced, no inventory touched.
 */

import { type Frame, maxBodyBytes } from "../envelope/frame.ts";
import { answerHello, type HeardHello, type HelloName, hearHello } from "../envelope/handshake.ts";
import { readUnverified, verifyJwt } from "../envelope/jwt.ts";
import { importSigningKey, newSeed, type PublicKey } from "../envelope/public-key.ts";
import { signRefusal } from "../envelope/refusal.ts";
import { versionSkew } from "../envelope/versions.ts";
import { AegisError, type ErrorCode, errorTable } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { NodeRow, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { withRawFields } from "../wire/raw-field.ts";
import { toLong, whole } from "../wire/whole.ts";
import { noteArrival } from "./arrival.ts";
import { type CompatAnswer, createCompatDoor } from "./compat-door.ts";
import type { CompatStream } from "./compat-session.ts";
import { createHeartbeats } from "./heartbeats.ts";
import type { KeysetStep } from "./key-changes.ts";
import type { ControllerKeys } from "./keys.ts";
import { keysetsSince } from "./keysets.ts";
import { newestOnly } from "./newest-only.ts";
import { heartbeatMsOf } from "./node-capabilities.ts";
import { creditWindowBytes, type NodeSession, nodeSession, type SessionStream } from "./node-session.ts";
import type { ResultLedger } from "./result-ledger.ts";
import { endWithKey, resultKey, sessionKey } from "./rotation.ts";
import { endWithAge } from "./session-age.ts";
import { defaultHeartbeatMs, type Sessions } from "./sessions.ts";

const { EdgeCapabilities, GoodbyeReason, SealConfirm, SealRefusal } = aegis.cluster.v1;
type HelloEvent = aegis.cluster.v1.HelloEvent.$Properties;

/** Streams that are not confirmed, and how long each may take to say Hello, and again to confirm. */
export const doorLimits = { waiting: 1_024, perAddress: 64, helloMs: 10_000, confirmMs: 10_000 };

/** Least time between two words in the log that no more streams are let in. */
const fullAgainMs = 60_000;

export interface DoormanOptions {
  store: Store;
  keys: ControllerKeys;
  /** Keysets that came into use since this version, for a session that was begun with it. */
  keysetsSince?: (version: number) => readonly KeysetStep[];
  sessions: Sessions;
  ledger: ResultLedger;
  clock: Clock;
  time: () => number;
  log: Log;
  /** No host is let in without a strict session. */
  requireStrict?: boolean;
  /** Streams at a time, those that wait included. Default: any number. */
  maxStreams?: number;
  /** A host of this tenant is alive. */
  onHeartbeat?: (tenantId: string) => void;
}

/** SealRefusal.keyset_chain. */
const refusalChainField = 4;
/** Trailers have to fit the 8 KiB that clients read, in base64. A host that lacks the chain finds it with a new token. */
const maxTrailerBytes = 4 * 1024;

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

/** Where a stream waits until it is confirmed. */
export interface Place {
  /** Ends the wait for Hello. */
  helloCame(): void;
  /** Gives the place to the next; twice is the same as once. */
  leave(): void;
}

export interface Doorman {
  /** Whether this controller holds as many streams as it may; then its log says so, once a minute. */
  isFull(): boolean;
  /** Null when every place is taken. `tooLate` is called when no Hello comes. */
  enter(address: string, tooLate: () => void): Place | null;
  hello(hello: HelloEvent, stream: SessionStream & CompatStream, place: Place): Promise<Answer>;
}

/** What a refusal is among gRPC's, beside what it says itself. */
const refusalCodes: Partial<Record<aegis.cluster.v1.GoodbyeReason, ErrorCode>> = {
  [GoodbyeReason.GOODBYE_REASON_REVOKED]: "forbidden",
  [GoodbyeReason.GOODBYE_REASON_UPGRADE_REQUIRED]: "precondition_failed",
};

export function createDoorman(options: DoormanOptions): Doorman {
  const { store, keys, sessions, clock, time, log } = options;
  const heard = createHeartbeats(options);
  const compatDoor = createCompatDoor({ ...options, heard });
  const waiting = new Map<string, number>();
  let waitingInAll = 0;
  let saidFullAt = Number.NEGATIVE_INFINITY;
  const { maxStreams = Number.POSITIVE_INFINITY } = options;
  // Verified instead of a node's key when there is no such node, so that an answer takes as long either way.
  const nobody: PublicKey = importSigningKey(newSeed());

  const refused = (code: ErrorCode, message: string, refusal: Uint8Array | null = null): Answer => ({
    kind: "refused",
    status: errorTable[code].grpc,
    message,
    refusal,
  });

  /** A refusal that this daemon can believe, because it names the Hello it answers, by a key that it can know. */
  async function signed(
    { nodeId, sealHello, keysetVersion }: HelloName,
    reason: aegis.cluster.v1.GoodbyeReason,
    message: string,
    retryAfterMs = 0,
  ): Promise<Answer> {
    const chain = keysetVersion < keys.keyset.version ? await keysetsSince(store, keysetVersion, keys.keyset) : [];
    const signature = signRefusal(keys.command, { nodeId, sealHello, reason, retryAfterMs });
    const said = SealRefusal.encode({ reason, retryAfterMs: toLong(retryAfterMs), signature }).finish();
    const withChain = withRawFields(said, refusalChainField, chain);
    const trailer = withChain.length <= maxTrailerBytes ? withChain : said;
    return refused(refusalCodes[reason] ?? "unauthenticated", message, trailer);
  }

  async function judge(
    event: HelloEvent,
  ): Promise<
    Answer | { kind: "known"; hello: HeardHello; row: NodeRow; keyUntilMs: number | null; mustRefresh: boolean }
  > {
    const stranger = refused(
      "unauthenticated",
      "the host could not be authenticated; enroll it again if it should be known here",
    );
    const sealHello = event.sealHello ?? new Uint8Array();
    const text = event.envelope?.nodeSecurityToken ?? "";
    const { tokenKeys, controllerId } = keys.keyset;
    const token = verifyJwt("node", text, { keys: tokenKeys, issuer: controllerId });
    // Signed by a key that is gone, perhaps: worth nothing, but it says whose key to ask, and that key may get a new one.
    const gone = token.kind === "refused" && token.reason === "unknown_key";
    const claims = token.kind === "valid" ? token.claims : gone ? readUnverified("node", text) : null;
    if (!claims) return stranger;
    const row = await store.node(claims.sub);
    const known = row && (await sessionKey(store, row, claims, time()));
    const nodeKey = known?.key ?? nobody;
    const signature = event.sealHelloSignature ?? new Uint8Array();
    const heard = hearHello({ nodeId: claims.sub, streamId: event.streamId ?? "", sealHello, signature, nodeKey });
    if (heard.kind === "refused") {
      const { reason } = heard;
      log.warn("hello_refused", {
        ...{ node_id: claims.sub, reason, ...(reason === "version" ? { versions: heard.versions.slice(0, 8) } : {}) },
      });
      if (reason !== "version" || row?.tenantId !== claims.tid) return stranger;
      const words = versionSkew("this controller", "the host", heard.versions);
      return await signed(heard, GoodbyeReason.GOODBYE_REASON_UPGRADE_REQUIRED, words);
    }
    const { hello } = heard;
    if (!row || !known || claims.tid !== row.tenantId || hello.controllerId !== controllerId) return stranger;
    if (row.seal !== "strict")
      return refused(
        "precondition_failed",
        "this host is enrolled for compat sessions; enroll it again for strict ones",
      );
    if (row.revokedAt !== null)
      return await signed(hello, GoodbyeReason.GOODBYE_REASON_REVOKED, "this host was revoked");
    if (gone || time() > claims.exp * 1000)
      return await signed(hello, GoodbyeReason.GOODBYE_REASON_TOKEN_EXPIRED, "the node token is good no more");
    try {
      EdgeCapabilities.decode(hello.capabilities);
    } catch {
      return await signed(hello, GoodbyeReason.GOODBYE_REASON_PROTOCOL, "the capabilities cannot be read");
    }
    return {
      kind: "known",
      hello,
      row,
      keyUntilMs: known.untilMs,
      mustRefresh: time() > (claims.iat + claims.exp) * 500,
    };
  }

  /** A host that finds no place tries again soon, so the log is told now and then and not each time. */
  function isFull(): boolean {
    if (sessions.size + waitingInAll < maxStreams) return false;
    if (clock.monotonic() - saidFullAt >= fullAgainMs) {
      saidFullAt = clock.monotonic();
      log.warn("streams_full", {
        max_streams: maxStreams,
        hint: "hosts are turned away until others leave: let this process open more files, such as LimitNOFILE of its unit",
      });
    }
    return true;
  }

  return {
    isFull,
    enter(address, tooLate) {
      if (isFull()) return null;
      const here = waiting.get(address) ?? 0;
      if (waitingInAll >= doorLimits.waiting || here >= doorLimits.perAddress) return null;
      waitingInAll++;
      waiting.set(address, here + 1);
      const patience = new AbortController();
      void clock.sleep(doorLimits.helloMs, patience.signal).then(() => patience.signal.aborted || tooLate());
      let inside = true;
      return {
        helloCame: () => patience.abort(),
        leave() {
          patience.abort();
          if (!inside) return;
          inside = false;
          waitingInAll--;
          const left = (waiting.get(address) ?? 1) - 1;
          if (left > 0) waiting.set(address, left);
          else waiting.delete(address);
        },
      };
    },
    async hello(event, stream, place) {
      if (!event.sealHello?.length) return await compatDoor.hello(event, stream);
      const known = await judge(event);
      if (known.kind !== "known") return known;
      const { keyset, command } = keys;
      const answer = answerHello(known.hello, {
        commandKey: command,
        keysetChain: await keysetsSince(store, known.hello.keysetVersion, keyset),
        keysetVersion: keyset.version,
        serverTimeMs: time(),
        limits: { maxBody: maxBodyBytes, maxWindow: creditWindowBytes, heartbeatSecs: 0 },
        mustRefresh: known.mustRefresh,
      });
      if (!answer) return refused("unauthenticated", "the Hello's key share is unusable");
      return { kind: "come_in", guest: guest({ ...known, ...answer, keysetVersion: keyset.version, stream, place }) };
    },
  };

  interface Arrival extends NonNullable<ReturnType<typeof answerHello>> {
    hello: HeardHello;
    row: NodeRow;
    keyUntilMs: number | null;
    /** As ACCEPT brings it. */
    keysetVersion: number;
    stream: SessionStream;
    place: Place;
  }

  function guest({ hello, row, keyUntilMs, keysetVersion, stream, channel, accept, place }: Arrival): Guest {
    const patience = new AbortController();
    const left = new AbortController();
    const { nodeId, tenantId, publicKey } = row;
    const { nodeKey, softwareVersion } = hello;
    /** What CONFIRM still needs. Kept no longer: it is the most of what a host would cost here. */
    let unconfirmed: { capabilities: Uint8Array; accept: Frame } | null = { capabilities: hello.capabilities, accept };
    let session: NodeSession | null = null;
    let remove: (() => void) | null = null;
    const noted = (change: Promise<void>): Promise<void> =>
      change.catch((error: unknown) => log.error("store_failed", { node_id: nodeId, error: AegisError.from(error) }));

    function confirm(frame: Frame): boolean {
      const opened = channel.open(frame);
      if (opened.kind === "refused" || opened.frame !== "confirm") {
        log.warn("seal_frame", {
          node_id: nodeId,
          reason: opened.kind === "refused" ? opened.reason : "confirm_expected",
        });
        return false;
      }
      const { operatorChallenge, keysetVersion: confirmed } = SealConfirm.decode(opened.body);
      patience.abort();
      place.leave();
      const capabilities = unconfirmed?.capabilities ?? new Uint8Array();
      unconfirmed = null;
      session = nodeSession({
        ...options,
        nodeId,
        tenantId,
        nodeKey,
        channel,
        stream,
        capabilities,
        operatorChallenge,
        keysetVersion,
        signerOf: (keyId) => resultKey(store, nodeId, keyId, time()),
        onHeartbeat() {
          options.onHeartbeat?.(tenantId);
          heard(nodeId);
        },
        onKeyset: newestOnly((version) => noted(store.nodeKnowsKeyset(nodeId, version))),
        onCapabilities: newestOnly((capabilities) => noted(store.nodeCapabilities(nodeId, capabilities))),
      });
      session.confirmed(whole(confirmed));
      remove = sessions.add(session, heartbeatMsOf(hello.capabilities) ?? defaultHeartbeatMs);
      for (const step of options.keysetsSince?.(keysetVersion) ?? []) session.bring(step);
      void noted(
        noteArrival({ row: { nodeId, publicKey }, capabilities, softwareVersion, goodbye: session.goodbye }, options),
      );
      void endWithKey(session, keyUntilMs, { store, clock, time, signal: left.signal });
      void endWithAge(session, { clock, signal: left.signal });
      log.info("node_connected", { node_id: nodeId, tenant_id: tenantId, software_version: softwareVersion });
      return true;
    }

    return {
      kind: "strict",
      welcome() {
        if (unconfirmed) stream.write(unconfirmed.accept);
        void clock.sleep(doorLimits.confirmMs, patience.signal).then(() => {
          if (patience.signal.aborted) return;
          log.warn("hello_unconfirmed", { node_id: nodeId });
          stream.end();
        });
      },
      frame: (frame) => (session ? session.receive(frame) : confirm(frame)),
      gone() {
        patience.abort();
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
    };
  }
}
