/** What an authenticated controller may say on a session, and what the daemon does about each. Never waits for a tool. */
import type { CommandFrameKind, DaemonChannel } from "../envelope/frame.ts";
import type { Freshness } from "../envelope/freshness.ts";
import { advance } from "../envelope/keyset.ts";
import { quote } from "../policy/quote.ts";
import { aegis } from "../wire/gen/messages.js";
import { whole } from "../wire/whole.ts";
import { type FrameWriter, sealedFrame } from "./frame-writer.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { Inbox } from "./inbox.ts";
import type { EdgeCommand } from "./link.ts";
import { readPushConfig } from "./push-config.ts";
import { readInvoke } from "./received.ts";
import type { SessionOptions } from "./session.ts";
import { broken, goodbye, lostBecause } from "./session-end.ts";
import type { SessionEnd } from "./supervise.ts";

const wire = aegis.cluster.v1;

export interface Live extends SessionOptions {
  inbox: Inbox;
  channel: DaemonChannel;
  fresh: Freshness;
  writer: FrameWriter;
  beats: Heartbeat;
  finish(end: SessionEnd): void;
  /** Aborts when the session has ended. */
  over: AbortSignal;
}

/** One frame, opened and acted on; a value ends the session. */
export function onCommand(command: EdgeCommand, live: Live): SessionEnd | null {
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
export const alarming = new Set<string>(["keyset_equivocation", "keyset_rollback"]);

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
