/**
 * One connection: Hello, ACCEPT, CONFIRM, then frames both ways until either end stops. Reads one frame at a time and
 * never waits for a tool. The first frame that does not verify ends it, and nothing after that frame is looked at.
 */
import { canonicalPayload, signCompat } from "../envelope/compat.ts";
import type { CommandFrameKind, DaemonChannel, EventFrameKind, Frame } from "../envelope/frame.ts";
import { type Freshness, freshness, tickMs } from "../envelope/freshness.ts";
import { type PendingHello, sayHello } from "../envelope/handshake.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { maxRetryAfterMs, verifyRefusal } from "../envelope/refusal.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { quote } from "../policy/quote.ts";
import { version } from "../version.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";
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

export interface SessionOptions {
  link: ControllerLink;
  clock: Clock;
  log: Log;
  nodeId: string;
  nodeKey: SigningKey;
  nodeToken: string;
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
  /** The controller wants this daemon to end. The session goes on until `signal` aborts: calls may still finish. */
  onShutdown(detail: string): void;
}

export type SessionState = { kind: "connecting" } | { kind: "connected"; sinceMs: number } | { kind: "heartbeat" };

/** Settles when the connection has ended, whoever ended it. */
export async function runSession(options: SessionOptions, signal: AbortSignal): Promise<SessionEnd> {
  const { clock, link, log, outbox } = options;
  const streamId = options.newStreamId();
  const inner = new AbortController();
  const stopped = () => inner.abort();
  if (signal.aborted) stopped();
  else signal.addEventListener("abort", stopped, { once: true });
  const inbox = createInbox();
  let stream: EdgeStream | null = null;
  let sender: FrameSender | null = null;
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
    if (first.kind === "end") return refusedEnd(first.end, hello, options);
    if (first.kind === "timeout")
      throw new AegisError("unavailable", "controller_not_strict: no ACCEPT came within 10 s of Hello");
    const frame = sealedFrame(first.command);
    const accepted = frame ? hello.accept(frame) : ({ kind: "refused", reason: "accept_expected" } as const);
    if (accepted.kind === "refused")
      throw new AegisError("unavailable", `seal_frame: the controller's ACCEPT is refused: ${accepted.reason}`);
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
    const ended = new Promise<SessionEnd>((resolve) => {
      const finish = (end: SessionEnd) => {
        inbox.close();
        resolve(end);
      };
      inner.signal.addEventListener("abort", () => finish({ kind: "shutdown" }), { once: true });
      const live: Live = { ...options, channel: accepted.channel, fresh, writer, beats, finish, over: inner.signal };
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

/** A Hello that was answered with an end. Only a refusal signed for this very Hello is believed to be the controller's. */
function refusedEnd(end: StreamEnd, hello: PendingHello, { nodeId, keyset }: SessionOptions): SessionEnd {
  if (!end.refusal) return transportEnd(end);
  try {
    const { reason, retryAfterMs, signature } = wire.SealRefusal.decode(end.refusal);
    const wait = whole(retryAfterMs);
    const said = { nodeId, sealHello: hello.sealHello, reason, retryAfterMs: wait ?? -1 };
    if (wait === null || !verifyRefusal(keyset().commandKey, said, signature)) return transportEnd(end);
    return goodbye(reason, wait, end.message);
  } catch {
    return transportEnd(end);
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
      return stream.send({ sealed: { ...frame, seq: toLong(frame.seq), timeMs: toLong(frame.timeMs) } });
    },
    drained: () => stream.drained(),
  };
}

/** The frame of a message that holds one and nothing else, with plain numbers. */
function sealedFrame(command: EdgeCommand): Frame | null {
  const { sealed } = command;
  if (command.command !== "sealed" || !sealed) return null;
  const seq = whole(sealed.seq);
  const timeMs = whole(sealed.timeMs);
  if (seq === null || timeMs === null) return null;
  return {
    kind: sealed.kind ?? 0,
    seq,
    timeMs,
    body: sealed.body ?? new Uint8Array(),
    auth: sealed.auth ?? new Uint8Array(),
  };
}

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

/** How much may arrive before the session looks: until CONFIRM an honest controller sends one frame. */
const maxHeld = 64;
const tooMuch: Incoming = {
  kind: "end",
  end: { status: 8, message: `more than ${maxHeld} messages came before the session was confirmed`, refusal: null },
};

/** Holds what arrives until the session can look at it. Too much, held, is an end like any other. */
function createInbox() {
  const held: Incoming[] = [];
  let take: ((next: Incoming) => void) | null = null;
  let full = false;
  let closed = false;
  const put = (next: Incoming) => {
    if (closed || full) return;
    if (take) return take(next);
    full = held.length === maxHeld;
    held.push(full ? tooMuch : next);
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
    drain(handler: (next: Incoming) => void) {
      take = handler;
      for (const next of held.splice(0)) if (!closed) handler(next);
    },
    close() {
      closed = true;
    },
  };
}
