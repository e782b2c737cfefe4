/**
 * One connection to a controller of the other implementation: events carry that peer's signatures, and its commands none.
 * Whoever holds the other end of the connection is believed; nothing here may widen what they get by that.
 */
import { type CompatKind, canonicalPayload, innerOf, signCompat } from "../envelope/compat.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { mailbox } from "../platform/mailbox.ts";
import { aegis } from "../wire/gen/messages.js";
import { readCompatInvoke } from "./compat-call.ts";
import { compatResult } from "./compat-result.ts";
import type { NodeCredentials } from "./credentials.ts";
import type { Incoming } from "./inbox.ts";
import type { Invocations } from "./invocations.ts";
import type { ControllerLink, EdgeCommand, EdgeStream, StreamEnd } from "./link.ts";
import type { FrameSender, Outbox } from "./outbox.ts";
import type { SessionOptions, SessionState } from "./session.ts";
import { lostBecause } from "./session-end.ts";
import type { SessionEnd } from "./supervise.ts";

const wire = aegis.cluster.v1;

/** The peer says nothing to a Hello it accepts, and ends a stream whose Hello it does not: silence this long is a yes. */
export const acceptedAfterMs = 3_000;

export interface CompatSessionOptions extends NodeCredentials, Pick<SessionOptions, "keepToken"> {
  link: ControllerLink;
  clock: Clock;
  log: Log;
  nodeId: string;
  /** A serialised EdgeCapabilities. */
  capabilities: () => Uint8Array;
  heartbeatIntervalMs: number;
  invocations: Invocations;
  outbox: Outbox;
  newStreamId(): string;
  onState(state: SessionState): void;
}

/** Settles when the connection has ended, whoever ended it. */
export async function runCompatSession(options: CompatSessionOptions, signal: AbortSignal): Promise<SessionEnd> {
  const { clock, link, log, outbox, invocations } = options;
  const streamId = options.newStreamId();
  const inner = new AbortController();
  const inbox = mailbox<Incoming>();
  const stopped = () => {
    inner.abort();
    inbox.end();
  };
  signal.addEventListener("abort", stopped, { once: true });
  options.onState({ kind: "connecting" });
  log.warn("compat_session", {
    stream_id: streamId,
    message: "seal is compat: this controller's commands carry no signature, and callers are not verified",
  });
  let stream: EdgeStream | null = null;
  let writer: CompatWriter | null = null;
  try {
    const onEnd = (end: StreamEnd) => {
      writer?.ended();
      inbox.put({ kind: "end", end });
      inbox.end();
    };
    stream = await link.open({ onCommand: (command) => inbox.put({ kind: "command", command }), onEnd }, inner.signal);
    if (signal.aborted) return { kind: "shutdown" };
    const events = compatWriter(stream, streamId, options);
    writer = events;
    events.hello();
    let connected = false;
    const accepted = () => {
      if (connected) return;
      connected = true;
      outbox.attach(events);
      options.onState({ kind: "connected", sinceMs: clock.now() });
      void options.keepToken?.({ mustRefresh: false, nowMs: clock.now, signal: inner.signal });
      log.info("connected", { stream_id: streamId, seal: "compat" });
    };
    void clock.sleep(acceptedAfterMs, inner.signal).then(() => {
      if (!inner.signal.aborted) accepted();
    });
    void beat();
    for await (const next of inbox) {
      if (next.kind === "end") return lost(next.end);
      accepted();
      const end = act(next.command);
      if (end) return end;
    }
    return { kind: "shutdown" };
  } finally {
    if (writer) outbox.detach(writer);
    invocations.resume();
    signal.removeEventListener("abort", stopped);
    inner.abort();
    stream?.close();
  }

  function act(command: EdgeCommand): SessionEnd | null {
    if (command.invokeTool) {
      const reading = readCompatInvoke(command.invokeTool, { receivedAt: clock.monotonic(), nowMs: clock.now() });
      if (!reading) log.warn("command_ignored", { reason: "its command_id is no UUID, so no answer could name it" });
      else if (reading.kind === "malformed") invocations.reject(reading.commandId, nothing, reading.reason);
      else invocations.submit(reading.call);
    } else if (command.cancel) invocations.cancel(command.cancel.commandId ?? "", "by the controller");
    else if (command.drain) {
      void invocations.drain(0);
      log.info("draining");
    } else if (command.shutdown) return lostBecause("the controller asked this daemon to hang up");
    // Settings of this host are not for a controller that proves nothing.
    else if (command.pushConfig) log.warn("config_ignored", { reason: "seal is compat" });
    else if (command.sealed) return lostBecause("seal_frame: a sealed frame came on a compat session");
    return null;
  }

  async function beat(): Promise<void> {
    for (;;) {
      await clock.sleep(options.heartbeatIntervalMs, inner.signal);
      if (inner.signal.aborted) return;
      writer?.heartbeat(invocations.active);
      options.onState({ kind: "heartbeat" });
    }
  }
}

const nothing = new Uint8Array();

/** The peer ends a stream without a word whatever displeases it, so the reason can only be guessed. */
const lost = ({ status, message }: StreamEnd): SessionEnd =>
  lostBecause(
    status === 0
      ? "the controller closed the stream; soon after connecting that means that it does not know this host or its token"
      : message,
  );

interface CompatWriter extends FrameSender {
  hello(): void;
  heartbeat(active: number): void;
  /** What is finished from now on waits for the next session. */
  ended(): void;
}

/** Turns what the daemon has to say into base events, each signed by itself. */
function compatWriter(stream: EdgeStream, streamId: string, options: CompatSessionOptions): CompatWriter {
  const { clock, nodeId, nodeKey, nodeToken, outbox } = options;
  /** Each pipe of a command counts by itself, as the peer's does. */
  const sequences = new Map<string, { stdout: number; stderr: number }>();
  let over = false;

  const envelope = (kind: CompatKind, inner: Uint8Array) => ({
    nodeSecurityToken: nodeToken,
    ...signCompat(nodeKey, canonicalPayload({ kind, timestampMs: clock.now(), nodeId, streamId, inner })),
  });

  function progress(body: Uint8Array): boolean {
    const { commandId, chunk, stderr } = wire.CommandProgressEvent.decode(body);
    const counts = sequences.get(commandId) ?? { stdout: 0, stderr: 0 };
    sequences.set(commandId, counts);
    const sequence = counts[stderr ? "stderr" : "stdout"]++;
    const signed = envelope("progress", innerOf.progress({ commandId, sequence, stderr, chunk }));
    return stream.send({ commandProgress: { envelope: signed, commandId, chunk, sequence, stderr } });
  }

  function result(body: Uint8Array): boolean {
    const { commandId, result: said } = wire.CommandResultEvent.decode(wire.SealedResult.decode(body).result);
    sequences.delete(commandId);
    // Nobody acknowledges here: what was written counts as delivered. Not at once, the outbox may be going through its list.
    queueMicrotask(() => outbox.acknowledge([commandId]));
    const signed = envelope("result", innerOf.result(commandId));
    return stream.send({ commandResult: { envelope: signed, commandId, result: compatResult(said ?? {}) } });
  }

  return {
    hello() {
      const capabilities = wire.EdgeCapabilities.decode(options.capabilities());
      stream.send({ hello: { envelope: envelope("hello", innerOf.hello()), capabilities, streamId } });
    },
    heartbeat(active) {
      stream.send({ heartbeat: { envelope: envelope("heartbeat", innerOf.heartbeat()), activeInvocations: active } });
    },
    send: (kind, body) => !over && (kind === "progress" ? progress(body) : result(body)),
    drained: () => stream.drained(),
    ended() {
      over = true;
    },
  };
}
