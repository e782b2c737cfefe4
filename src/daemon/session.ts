/**
 * One connection: Hello, ACCEPT, CONFIRM, then frames both ways until either end stops. Reads one frame at a time and
 * never waits for a tool. The first frame that does not verify ends it, and nothing after that frame is looked at.
 */
import { canonicalPayload, innerOf, signCompat } from "../envelope/compat.ts";
import { type Freshness, freshness, tickMs } from "../envelope/freshness.ts";
import { type PendingHello, sayHello } from "../envelope/handshake.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import { versionSkew } from "../envelope/versions.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { version } from "../version.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";
import type { NodeCredentials } from "./credentials.ts";
import { frameWriter, sealedFrame } from "./frame-writer.ts";
import { heartbeat } from "./heartbeat.ts";
import { createInbox } from "./inbox.ts";
import type { Invocations } from "./invocations.ts";
import type { ControllerLink, EdgeStream } from "./link.ts";
import type { Operators } from "./operators.ts";
import type { FrameSender, Outbox } from "./outbox.ts";
import type { StreamSettings } from "./push-config.ts";
import { alarming, type Live, onCommand } from "./session-commands.ts";
import { broken, refused, type StreamOutcome, transportEnd } from "./session-end.ts";
import type { SessionEnd } from "./supervise.ts";

const wire = aegis.cluster.v1;

/** How long either end waits for the other during the handshake. */
export const handshakeTimeoutMs = 10_000;

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
      throw new AegisError(
        "unavailable",
        accepted.reason === "version"
          ? versionSkew("this host", "the controller", [accepted.version])
          : `seal_frame: the controller's ACCEPT is refused: ${accepted.reason}`,
      );
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
    inner: innerOf.hello(),
  });
  return {
    envelope: { nodeSecurityToken: nodeToken, ...signCompat(nodeKey, payload) },
    streamId,
    sealHello: hello.sealHello,
    sealHelloSignature: hello.signature,
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
