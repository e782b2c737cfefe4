/**
 * One connection: Hello, ACCEPT, CONFIRM, then frames both ways until either end stops. Reads one frame at a time and
 * never waits for a tool. The first frame that does not verify ends it, and nothing after that frame is looked at.
 */
import { canonicalPayload, signCompat } from "../envelope/compat.ts";
import type { CommandFrameKind, DaemonChannel, EventFrameKind, Frame } from "../envelope/frame.ts";
import { type Freshness, freshness, tickMs } from "../envelope/freshness.ts";
import { type PendingHello, sayHello } from "../envelope/handshake.ts";
import { advance, type TrustedKeyset } from "../envelope/keyset.ts";
import { maxRetryAfterMs, verifyRefusal } from "../envelope/refusal.ts";
import { frameOf, sealedOf } from "../envelope/sealed-frame.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { quote } from "../policy/quote.ts";
import { version } from "../version.ts";
import { aegis } from "../wire/gen/messages.js";
import { rawFields } from "../wire/raw-field.ts";
import { toLong, whole } from "../wire/whole.ts";
import type { NodeCredentials } from "./credentials.ts";
import { type Heartbeat, heartbeat } from "./heartbeat.ts";
import type { Invocations } from "./invocations.ts";
import type { ControllerLink, EdgeCommand, EdgeStream, StreamEnd } from "./link.ts";
import type { Operators } from "./operators.ts";
import type { FrameSender, Outbox } from "./outbox.ts";
import { readPushConfig, type StreamSettings } from "./push-config.ts";
import { readInvoke } from "./received.ts";
import type { SessionEnd } from "./supervise.ts";

const wire = aegis.cluster.v1;

/** How long either end waits for the other during the handshake. */
export const handshakeTimeoutMs = 10_000;

/** A host that its controller revoked asks again at this pace, in case it was a mistake. */
const revokedRetryMs = 15 * 60_000;

export interface SessionOptions extends NodeCredentials {
  link: ControllerLink;
  clock: Clock;
  log: Log;
  nodeId: string;
  /** What is trusted now; the daemon keeps the newer one that a session brings. */
  keyset: () => TrustedKeyset;
  /** Makes a newer keyset durable. Resolves before anything that relies on it is sent. */
  saveKeyset(keyset: TrustedKeyset): Promise<void>;
  /** A serialised EdgeCapabilities. */
  capabilities: () => Uint8Array;
  heartbeatIntervalMs: number;
  invocations: Invocations;
  outbox: Outbox;
  operators: Pick<Operators, "begin" | "renew">;
  /** What a controller may change for as long as its session lasts. */
  settings: StreamSettings;
  newStreamId(): string;
  onState(state: SessionState): void;
  /**
   * A Hello was refused: `expired` is the controller's signed word that the token is, `unknown` that nobody said why. While
   * the connection is still open, so over it. Answers what to say Hello again with, or null when there is nothing to try.
   */
  renew?(why: "expired" | "unknown"): Promise<NodeCredentials | null>;
  /** A session is up: keeps the token good until `signal` aborts. `nowMs` is the controller's time. */
  keepToken?(session: { mustRefresh: boolean; nowMs(): number; signal: AbortSignal }): Promise<void>;
  /** Calls back when something has changed that the controller should hear of. The returned function ends that. */
  watch?(listener: (change: HostChange) => void): () => void;
  /** The controller wants this daemon to end. The session goes on until `signal` aborts: calls may still finish. */
  onShutdown(detail: string): void;
}

/** `capabilities`: what this host is or can do; `identity`: its key. */
export type HostChange = "capabilities" | "identity";

export type SessionState = { kind: "connecting" } | { kind: "connected"; sinceMs: number } | { kind: "heartbeat" };

/** Settles when the connection has ended, whoever ended it. */
export async function runSession(options: SessionOptions, signal: AbortSignal): Promise<SessionEnd> {
  const first = await oneStream(options, signal);
  if (first.kind !== "renewed") return first;
  const second = await oneStream({ ...options, ...first.credentials }, signal);
  return second.kind === "renewed" ? second.end : second;
}

/** `renewed`: the Hello was refused as `end` says, and with these it may not be. */
type StreamOutcome = SessionEnd | { kind: "renewed"; credentials: NodeCredentials; end: SessionEnd };

async function oneStream(options: SessionOptions, signal: AbortSignal): Promise<StreamOutcome> {
  const { clock, link, log, outbox } = options;
  const streamId = options.newStreamId();
  const inner = new AbortController();
  const stopped = () => inner.abort();
  if (signal.aborted) stopped();
  else signal.addEventListener("abort", stopped, { once: true });
  const inbox = createInbox();
  let stream: EdgeStream | null = null;
  let sender: FrameSender | null = null;
  let unwatch: (() => void) | undefined;
  try {
    options.onState({ kind: "connecting" });
    stream = await link.open({ onCommand: inbox.push, onEnd: inbox.end }, inner.signal);
    if (signal.aborted) return { kind: "shutdown" };
    const hello = sayHello({
      ...options,
      streamId,
      keyset: options.keyset(),
      capabilities: options.capabilities(),
      softwareVersion: version,
      wallMs: clock.now(),
    });
    stream.send({ hello: helloEvent(options, streamId, hello) });
    const helloWrittenAt = clock.monotonic();
    const bootAt = clock.sinceBoot();

    const patience = new AbortController();
    const first = await inbox.first(clock.sleep(handshakeTimeoutMs, AbortSignal.any([patience.signal, inner.signal])));
    patience.abort();
    if (signal.aborted) return { kind: "shutdown" };
    if (first.kind === "end") return await refused(first.end, hello, options);
    if (first.kind === "timeout")
      throw new AegisError("unavailable", "controller_not_strict: no ACCEPT came within 10 s of Hello");
    const frame = sealedFrame(first.command);
    const accepted = frame ? hello.accept(frame) : ({ kind: "refused", reason: "accept_expected" } as const);
    if (accepted.kind === "refused") {
      if (alarming.has(accepted.reason)) log.error(accepted.reason, { trusted: options.keyset().version });
      throw new AegisError("unavailable", `seal_frame: the controller's ACCEPT is refused: ${accepted.reason}`);
    }
    const fresh = freshness({
      serverTimeMs: accepted.serverTimeMs,
      helloWrittenAt,
      acceptReceivedAt: clock.monotonic(),
      bootAt,
    });
    if (accepted.keyset.version > options.keyset().version) await options.saveKeyset(accepted.keyset);
    if (signal.aborted) return { kind: "shutdown" };

    const writer = frameWriter(stream, accepted.channel, () => fresh.estimateMs(clock.monotonic()));
    sender = writer;
    writer.send(
      "confirm",
      wire.SealConfirm.encode({
        keysetVersion: toLong(accepted.keyset.version),
        operatorChallenge: wire.OperatorChallenge.decode(options.operators.begin()),
        lateResults: outbox.waiting,
      }).finish(),
    );
    outbox.attach(writer);
    options.onState({ kind: "connected", sinceMs: clock.now() });
    log.info("connected", { stream_id: streamId, keyset_version: accepted.keyset.version });

    const intervalMs =
      accepted.limits.heartbeatSecs > 0 ? accepted.limits.heartbeatSecs * 1000 : options.heartbeatIntervalMs;
    const beats = heartbeat({
      ...{ clock, intervalMs, send: writer.send, operators: options.operators, signal: inner.signal },
      state() {
        const { active, queued } = options.invocations;
        return { active, queued, keysetVersion: options.keyset().version };
      },
      onBeat: () => options.onState({ kind: "heartbeat" }),
    });
    void options.keepToken?.({
      mustRefresh: accepted.mustRefresh,
      nowMs: () => fresh.estimateMs(clock.monotonic()),
      signal: inner.signal,
    });
    unwatch = options.watch?.((change) => {
      if (change === "capabilities") writer.send("capabilities", options.capabilities());
      else beats.challenge();
    });
    const ended = new Promise<SessionEnd>((resolve) => {
      const finish = (end: SessionEnd) => {
        inbox.close();
        resolve(end);
      };
      inner.signal.addEventListener("abort", () => finish({ kind: "shutdown" }), { once: true });
      const { channel } = accepted;
      const live: Live = { ...options, inbox, channel, fresh, writer, beats, finish, over: inner.signal };
      inbox.drain((next) => {
        const end = next.kind === "end" ? transportEnd(next.end) : onCommand(next.command, live);
        if (end) finish(end);
      });
      void keepTime(fresh, clock, inner.signal, finish);
    });
    return await ended;
  } catch (error) {
    if (signal.aborted) return { kind: "shutdown" };
    throw error;
  } finally {
    unwatch?.();
    if (sender) outbox.detach(sender);
    options.settings.reset();
    options.invocations.resume();
    signal.removeEventListener("abort", stopped);
    inner.abort();
    inbox.close();
    stream?.close();
  }
}

interface Live extends SessionOptions {
  inbox: Inbox;
  channel: DaemonChannel;
  fresh: Freshness;
  writer: FrameWriter;
  beats: Heartbeat;
  finish(end: SessionEnd): void;
  /** Aborts when the session has ended. */
  over: AbortSignal;
}

const lostBecause = (message: string): SessionEnd => ({ kind: "lost", cause: new AegisError("unavailable", message) });
const broken = (reason: string): SessionEnd => lostBecause(`seal_frame: ${reason}`);

/** One frame, opened and acted on; a value ends the session. */
function onCommand(command: EdgeCommand, live: Live): SessionEnd | null {
  const { clock, fresh, channel } = live;
  // Whatever was received before a standstill was noticed is too old to be judged.
  if (fresh.stoodStill(clock.monotonic(), clock.sinceBoot())) return broken("this machine or process stood still");
  const frame = sealedFrame(command);
  if (!frame) return broken("a message came that is not sealed");
  const opened = channel.open(frame);
  if (opened.kind === "refused") return broken(opened.reason);
  try {
    return act(opened.frame, opened.body, opened.timeMs, live);
  } catch (error) {
    return broken(`a ${opened.frame} frame cannot be read: ${(error as Error).message}`);
  }
}

function act(kind: CommandFrameKind, body: Uint8Array, timeMs: number, live: Live): SessionEnd | null {
  const { outbox, invocations, clock, fresh, log } = live;
  switch (kind) {
    case "command":
      if (!fresh.admits(timeMs, clock.monotonic())) return broken("a command was held back for longer than 30 s");
      return onSealedCommand(body, timeMs);
    case "credit": {
      const { commandId, limit } = wire.Credit.decode(body);
      const bytes = whole(limit);
      if (bytes === null) return broken("credit is out of range");
      outbox.credit(commandId, bytes);
      return null;
    }
    case "ack":
      outbox.acknowledge(wire.Ack.decode(body).commandId);
      return null;
    case "goodbye": {
      const { reason, retryAfterMs, detail } = wire.Goodbye.decode(body);
      return goodbye(reason, whole(retryAfterMs) ?? 0, detail);
    }
    case "keysetFrame":
      return takeKeyset(body, live);
    case "accept":
      return broken("a second ACCEPT");
    default:
      return kind satisfies never;
  }

  function onSealedCommand(bytes: Uint8Array, frameTimeMs: number): SessionEnd | null {
    const command = wire.EdgeCommand.decode(bytes);
    if (command.invokeTool) {
      const reading = readInvoke(command.invokeTool, {
        body: bytes,
        timeMs: frameTimeMs,
        receivedAt: clock.monotonic(),
      });
      if (!reading) return broken("a call without a usable command_id");
      if (reading.kind === "malformed") invocations.reject(reading.commandId, bytes, reading.reason);
      else invocations.submit(reading.call);
    } else if (command.cancel) {
      const { commandId, reason } = command.cancel;
      invocations.cancel(commandId ?? "", cancelWords[reason ?? 0] ?? "cancelled");
    } else if (command.pushConfig) pushed(command.pushConfig, live);
    else if (command.drain) void drain(command.drain, live);
    else if (command.shutdown) {
      const detail = quote(command.shutdown.detail ?? "");
      log.info("shutdown_asked", { reason: command.shutdown.reason, detail });
      live.onShutdown(detail);
    } else return broken("a command of no known kind");
    return null;
  }
}

/** What a controller that behaves never sends. */
const alarming = new Set<string>(["keyset_equivocation", "keyset_rollback"]);

/**
 * New keys of the controller, along the chain from the pinned root. They are on disk before anything relies on them, so
 * what came after this frame waits for the disk; then the version is confirmed.
 */
function takeKeyset(signed: Uint8Array, live: Live): SessionEnd | null {
  const { channel, inbox, keyset, log } = live;
  const outcome = advance(keyset(), [signed]);
  if (outcome.kind === "refused") {
    if (alarming.has(outcome.reason)) log.error(outcome.reason, { trusted: keyset().version });
    return broken(outcome.reason);
  }
  const newer = outcome.keyset;
  inbox.hold();
  const saved = newer.version > keyset().version ? live.saveKeyset(newer) : Promise.resolve();
  void saved.then(
    () => {
      if (live.over.aborted) return;
      channel.commandKeyIs(newer.commandKey);
      live.beats.now();
      inbox.release();
    },
    (cause: unknown) => live.finish({ kind: "lost", cause }),
  );
  return null;
}

function pushed(
  { mergedConfigDelta }: aegis.cluster.v1.EdgePushConfigCommand.$Properties,
  { settings, log, beats, capabilities, writer }: Live,
): void {
  const reading = readPushConfig(mergedConfigDelta, settings);
  if (reading.kind === "rejected") {
    log.warn("config_rejected", { reasons: reading.reasons });
    return;
  }
  settings.apply(reading.settings);
  log.info("config_pushed", { settings: reading.settings });
  if (reading.settings.customLabels) writer.send("capabilities", capabilities());
  if (reading.settings.heartbeatIntervalMs !== undefined) beats.pace(reading.settings.heartbeatIntervalMs);
}

/** No new calls on this stream. To be moved elsewhere, the host comes back once its calls are done. */
async function drain(
  { reason, finishWithinMs }: aegis.cluster.v1.EdgeDrainCommand.$Properties,
  { invocations, log, finish, over }: Live,
): Promise<void> {
  const withinMs = whole(finishWithinMs) ?? 0;
  log.info("draining", { reason, finish_within_ms: withinMs });
  await invocations.drain(withinMs);
  if (over.aborted) return;
  log.info("drained");
  if (reason === wire.DrainReason.DRAIN_REASON_REBALANCE)
    finish(lostBecause("rebalance: the controller moves this host"));
}

const cancelWords: Readonly<Record<number, string>> = {
  [wire.CancelReason.CANCEL_REASON_CALLER]: "by the caller",
  [wire.CancelReason.CANCEL_REASON_DEADLINE]: "the controller's deadline passed",
  [wire.CancelReason.CANCEL_REASON_CLIENT_GONE]: "the client that asked is gone",
  [wire.CancelReason.CANCEL_REASON_FLEET_HALTED]: "another host of the run failed",
  [wire.CancelReason.CANCEL_REASON_SHUTDOWN]: "the controller is shutting down",
};

/** What an authenticated controller said on ending the session. */
function goodbye(reason: number, retryAfterMs: number, detail: string): SessionEnd {
  const name = (wire.GoodbyeReason[reason] ?? "unknown").replace("GOODBYE_REASON_", "").toLowerCase();
  const wait =
    reason === wire.GoodbyeReason.GOODBYE_REASON_REVOKED ? revokedRetryMs : Math.min(retryAfterMs, maxRetryAfterMs);
  return {
    kind: "lost",
    cause: new AegisError("unavailable", `${name}: ${detail || "the controller ended the session"}`),
    retryAfterMs: wait,
  };
}

function transportEnd({ status, message }: StreamEnd): SessionEnd {
  return {
    kind: "lost",
    cause: new AegisError("unavailable", status === 0 ? "the controller closed the stream" : message),
  };
}

/**
 * A Hello that was answered with an end. Only a refusal signed for this very Hello is believed to be the controller's:
 * whatever else comes costs no more than the usual wait.
 */
async function refused(end: StreamEnd, hello: PendingHello, options: SessionOptions): Promise<StreamOutcome> {
  const said = await refusalIn(end, hello, options);
  const meant = said ? goodbye(said.reason, said.retryAfterMs, end.message) : transportEnd(end);
  const expired = said?.reason === wire.GoodbyeReason.GOODBYE_REASON_TOKEN_EXPIRED;
  if (!options.renew || !(expired || (!said && end.status === unauthenticated))) return meant;
  try {
    const credentials = await options.renew(expired ? "expired" : "unknown");
    return credentials ? { kind: "renewed", credentials, end: meant } : meant;
  } catch (error) {
    const { message, hint } = AegisError.from(error);
    const why = `${AegisError.from(meant.kind === "lost" && meant.cause).message}; a new token was refused: ${message}`;
    const cause = new AegisError("unavailable", why, { cause: error, ...(hint === undefined ? {} : { hint }) });
    return { kind: "lost", cause };
  }
}

/** gRPC status number. */
const unauthenticated = 16;
/** SealRefusal.keyset_chain. */
const refusalChainField = 4;

async function refusalIn(
  { refusal }: StreamEnd,
  { sealHello }: PendingHello,
  options: SessionOptions,
): Promise<{ reason: number; retryAfterMs: number } | null> {
  if (!refusal) return null;
  try {
    const { reason, signature, ...rest } = wire.SealRefusal.decode(refusal);
    const retryAfterMs = whole(rest.retryAfterMs);
    // Keys may have changed while this host was away. The chain proves itself; it is kept only with a refusal that it proves.
    const known = options.keyset();
    const chain = rawFields(refusal, refusalChainField);
    const moved = chain.length > 0 ? advance(known, chain) : ({ kind: "trusted", keyset: known } as const);
    if (moved.kind === "refused" || retryAfterMs === null) return null;
    const said = { nodeId: options.nodeId, sealHello, reason, retryAfterMs };
    if (!verifyRefusal(moved.keyset.commandKey, said, signature)) return null;
    if (moved.keyset.version > known.version) await options.saveKeyset(moved.keyset);
    return { reason, retryAfterMs };
  } catch {
    return null;
  }
}

function helloEvent(
  { nodeId, nodeKey, nodeToken, clock }: SessionOptions,
  streamId: string,
  hello: PendingHello,
): aegis.cluster.v1.HelloEvent.$Properties {
  const payload = canonicalPayload({
    kind: "hello",
    timestampMs: clock.now(),
    nodeId,
    streamId,
    inner: new Uint8Array(),
  });
  return {
    envelope: { nodeSecurityToken: nodeToken, ...signCompat(nodeKey, payload) },
    streamId,
    sealHello: hello.sealHello,
    sealHelloSignature: hello.signature,
  };
}

interface FrameWriter extends FrameSender {
  send(kind: EventFrameKind, body: Uint8Array): boolean;
}

/** The one place that seals: what is numbered is written at once, in that order. */
function frameWriter(stream: EdgeStream, channel: DaemonChannel, timeMs: () => number): FrameWriter {
  return {
    send(kind, body) {
      const frame = channel.seal(kind, body, Math.max(0, Math.round(timeMs())));
      return stream.send({ sealed: sealedOf(frame) });
    },
    drained: () => stream.drained(),
  };
}

/** The frame of a message that holds one and nothing else. */
const sealedFrame = ({ command, sealed }: EdgeCommand): Frame | null => (command === "sealed" ? frameOf(sealed) : null);

/** Ticks every 5 s and ends the session when a tick shows that time was lost. */
async function keepTime(
  fresh: Freshness,
  clock: Clock,
  signal: AbortSignal,
  finish: (end: SessionEnd) => void,
): Promise<void> {
  for (;;) {
    await clock.sleep(tickMs, signal);
    if (signal.aborted) return;
    if (fresh.stoodStill(clock.monotonic(), clock.sinceBoot()))
      return finish(broken("this machine or process stood still"));
    fresh.tick(clock.monotonic());
  }
}

type Incoming = { kind: "command"; command: EdgeCommand } | { kind: "end"; end: StreamEnd };

/** How much may arrive while the session does not look: until CONFIRM an honest controller sends one frame. */
const maxHeld = 64;
const tooMuch: Incoming = {
  kind: "end",
  end: { status: 8, message: `more than ${maxHeld} messages came while none was looked at`, refusal: null },
};

type Inbox = ReturnType<typeof createInbox>;

/** Holds what arrives until the session can look at it. Too much, held, is an end like any other. */
function createInbox() {
  const held: Incoming[] = [];
  let take: ((next: Incoming) => void) | null = null;
  let handler: ((next: Incoming) => void) | null = null;
  let full = false;
  let closed = false;
  const put = (next: Incoming) => {
    if (closed || full) return;
    if (take) return take(next);
    full = held.length === maxHeld;
    held.push(full ? tooMuch : next);
  };
  const look = () => {
    while (take && take === handler && !closed) {
      const next = held.shift();
      if (!next) return;
      take(next);
    }
  };
  return {
    push: (command: EdgeCommand) => put({ kind: "command", command }),
    end: (end: StreamEnd) => put({ kind: "end", end }),
    /** The first thing to come, unless `timeout` comes before it. */
    first(timeout: Promise<void>): Promise<Incoming | { kind: "timeout" }> {
      return new Promise((resolve) => {
        const only = (next: Incoming) => {
          take = null;
          resolve(next);
        };
        take = only;
        const [next] = held.splice(0, 1);
        if (next) only(next);
        void timeout.then(() => {
          // By then somebody else may be reading.
          if (take === only) take = null;
          resolve({ kind: "timeout" });
        });
      });
    },
    drain(given: (next: Incoming) => void) {
      handler = given;
      take = given;
      look();
    },
    /** Until `release` nothing more is handed on. */
    hold() {
      take = null;
    },
    release() {
      take = handler;
      look();
    },
    close() {
      closed = true;
    },
  };
}
