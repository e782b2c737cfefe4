/**
 * The controller's end of one compat session: each event's signature is checked, and what it does not cover is taken as
 * said. There is no flow control and no acknowledgement, so live output has a bound here and a result is taken once.
 */
import { type CompatKind, innerOf, verifyCompat } from "../envelope/compat.ts";
import type { PublicKey } from "../envelope/public-key.ts";
import { sha256, uuidBytes } from "../envelope/statement.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { type Mailbox, mailbox } from "../platform/mailbox.ts";
import { aegis } from "../wire/gen/messages.js";
import type { SessionCallEvent } from "./bus.ts";
import type { LiveNode } from "./dispatch-types.ts";
import { readCapabilities } from "./node-capabilities.ts";
import { cancelAnswerMs, type LiveSession } from "./node-session.ts";
import type { ResultLedger } from "./result-ledger.ts";

const wire = aegis.cluster.v1;

type EdgeEvent = ReturnType<typeof wire.EdgeEvent.decode>;
type Envelope = aegis.cluster.v1.SealNodeEnvelope.$Properties;

/** Live output of one call that waits for its reader, in bytes; past it, output is dropped and counted. */
export const maxWaitingBytes = 1024 * 1024;

/** The stream under a compat session. */
export interface CompatStream {
  send(command: aegis.cluster.v1.EdgeCommand.$Properties): void;
  end(): void;
}

export interface CompatSessionOptions {
  nodeId: string;
  tenantId: string;
  nodeKey: PublicKey;
  /** From the Hello; every event must name this stream and bring this token. */
  streamId: string;
  nodeToken: string;
  stream: CompatStream;
  /** A serialised EdgeCapabilities. */
  capabilities: Uint8Array;
  ledger: Pick<ResultLedger, "settle">;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  onHeartbeat(): void;
  onCapabilities(capabilities: Uint8Array): void;
}

export interface CompatSession extends LiveSession {
  /** One event after Hello. False: it does not verify, and the stream must end. */
  event(event: EdgeEvent): boolean;
}

interface Pending {
  events: Mailbox<SessionCallEvent>;
  wanted: boolean;
  /** Bytes put and not yet taken. */
  waiting: number;
  skipped: number;
  pipes: Record<"stdout" | "stderr", { produced: number; skipped: number; lastSequence: number }>;
}

export function compatSession(options: CompatSessionOptions): CompatSession {
  const { nodeId, nodeKey, streamId, stream, ledger, clock, time, log } = options;
  const pending = new Map<string, Pending>();
  let open = true;
  const live: LiveNode = {
    nodeId,
    tenantId: options.tenantId,
    connectedSince: time(),
    lastHeartbeatAt: time(),
    activeCalls: 0,
    queuedCalls: 0,
    draining: false,
    ...readCapabilities(options.capabilities),
  };

  function genuine(kind: CompatKind, inner: Uint8Array, envelope: Envelope | null | undefined): boolean {
    if (!envelope || envelope.nodeSecurityToken !== options.nodeToken) return refuse(kind, "token");
    const { payload, signature } = envelope;
    const signed = { payload: payload ?? new Uint8Array(), signature: signature ?? new Uint8Array() };
    const outcome = verifyCompat(nodeKey, { kind, nodeId, streamId, inner }, signed, time());
    return outcome.kind === "verified" || refuse(kind, outcome.reason);
  }

  function refuse(kind: string, reason: string): false {
    log.warn("compat_event", { node_id: nodeId, event: kind, reason });
    return false;
  }

  function onProgress(event: aegis.cluster.v1.CommandProgressEvent.$Properties): boolean {
    const commandId = event.commandId ?? "";
    const sequence = event.sequence ?? 0;
    const stderr = event.stderr ?? false;
    const chunk = event.chunk ?? new Uint8Array();
    if (!uuidBytes(commandId)) return refuse("progress", "command_id");
    if (!genuine("progress", innerOf.progress({ commandId, sequence, stderr, chunk }), event.envelope)) return false;
    const call = pending.get(commandId);
    if (!call) return true;
    const pipe = call.pipes[stderr ? "stderr" : "stdout"];
    // Each pipe counts by itself. What does not go up was signed before: a recording, or the peer's mistake.
    if (sequence <= pipe.lastSequence) return refuse("progress", "sequence");
    pipe.lastSequence = sequence;
    const offset = pipe.produced;
    pipe.produced += chunk.length;
    if (!call.wanted) return true;
    if (call.waiting + chunk.length > maxWaitingBytes) {
      pipe.skipped += chunk.length;
      call.skipped += chunk.length;
      return true;
    }
    call.waiting += chunk.length;
    call.events.put({ kind: "progress", stderr, offset, skippedBytes: pipe.skipped, chunk });
    pipe.skipped = 0;
    return true;
  }

  function onResult(event: aegis.cluster.v1.CommandResultEvent.$Properties): boolean {
    const commandId = event.commandId ?? "";
    const { result, envelope } = event;
    if (!uuidBytes(commandId) || !result) return refuse("result", "malformed");
    if (!genuine("result", innerOf.result(commandId), envelope)) return false;
    const call = pending.get(commandId);
    if (!call) {
      log.warn("result_of_no_call", { node_id: nodeId, command_id: commandId });
      return true;
    }
    pending.delete(commandId);
    const signature = envelope?.signature ?? new Uint8Array();
    // Kept with the payload that was signed, so that anyone can see later what the signature says; without the token.
    const kept = wire.CommandResultEvent.encode({
      envelope: { payload: envelope?.payload ?? new Uint8Array(), signature },
      commandId,
      result,
    }).finish();
    const settlement = {
      result: kept,
      signature,
      keyId: nodeKey.keyId,
      receipt: "peer_id_only",
      outputComplete: call.skipped === 0,
    } as const;
    ledger.settle({ commandId, event: wire.CommandResultEvent.decode(kept), ...settlement }).then(
      (kept) => {
        if (!kept) return disconnect(call);
        call.events.put({ kind: "result", ...settlement });
        call.events.end();
      },
      (error: unknown) => {
        log.error("result_not_stored", { node_id: nodeId, command_id: commandId, error });
        disconnect(call);
        stream.end();
      },
    );
    return true;
  }

  function onCapabilities(update: aegis.cluster.v1.CapabilityUpdateEvent.$Properties): boolean {
    const digest = sha256(wire.EdgeCapabilities.encode(update.capabilities ?? {}).finish());
    // The peer has no signed form for this, so what it may send one day is no reason to cut it off, nor to believe it.
    if (!genuine("capabilities", innerOf.capabilities(digest), update.envelope)) return true;
    const capabilities = peerCapabilities(update.capabilities);
    Object.assign(live, readCapabilities(capabilities));
    options.onCapabilities(capabilities);
    return true;
  }

  const disconnect = (call: Pending) => {
    call.events.put({ kind: "disconnected" });
    call.events.end();
  };

  return {
    live,
    event(event) {
      if (!open) return false;
      if (event.heartbeat) {
        if (!genuine("heartbeat", innerOf.heartbeat(), event.heartbeat.envelope)) return false;
        live.lastHeartbeatAt = time();
        live.activeCalls = event.heartbeat.activeInvocations ?? 0;
        options.onHeartbeat();
        return true;
      }
      if (event.commandProgress) return onProgress(event.commandProgress);
      if (event.commandResult) return onResult(event.commandResult);
      if (event.capabilityUpdate) return onCapabilities(event.capabilityUpdate);
      if (event.hello) return refuse("hello", "a second one");
      if (event.sealed) return refuse("sealed", "not on a compat session");
      return true;
    },
    async *call({ commandId, body, window }, signal) {
      if (!open) return yield { kind: "unreachable" };
      const pipe = () => ({ produced: 0, skipped: 0, lastSequence: -1 });
      const call: Pending = {
        ...{ events: mailbox(), wanted: window > 0, waiting: 0, skipped: 0 },
        pipes: { stdout: pipe(), stderr: pipe() },
      };
      pending.set(commandId, call);
      const over = new AbortController();
      const cancel = () => {
        if (open) stream.send({ cancel: { commandId } });
        // The peer reads a cancel only when its tool has ended.
        void clock.sleep(cancelAnswerMs, over.signal).then(() => {
          if (over.signal.aborted || pending.get(commandId) !== call) return;
          pending.delete(commandId);
          disconnect(call);
        });
      };
      try {
        stream.send(wire.EdgeCommand.decode(body));
        if (signal.aborted) cancel();
        else signal.addEventListener("abort", cancel, { once: true });
        for await (const event of call.events) {
          if (event.kind === "progress") call.waiting -= event.chunk.length;
          yield event;
        }
      } finally {
        over.abort();
        signal.removeEventListener("abort", cancel);
        if (pending.get(commandId) === call) pending.delete(commandId);
      }
    },
    /** The format has no word for why. */
    tell(command) {
      if (!open) return false;
      stream.send(command);
      if (command.drain || command.shutdown) live.draining = true;
      return true;
    },
    bring() {},
    goodbye: () => stream.end(),
    closed() {
      open = false;
      for (const [commandId, call] of pending) {
        pending.delete(commandId);
        disconnect(call);
      }
    },
  };
}

/** A serialised EdgeCapabilities. A host that describes no tools is the peer, and the peer has one. */
export function peerCapabilities(said: aegis.cluster.v1.EdgeCapabilities.$Properties | null | undefined): Uint8Array {
  const tools = said?.tools?.length ? said.tools : [peerTool];
  return wire.EdgeCapabilities.encode({ ...said, tools }).finish();
}

const peerTool = {
  name: "cmd.run",
  description: "Runs a program.",
  inputSchemaJson: Buffer.from('{"type":"object"}'),
  destructive: true,
  fleetCapable: true,
};
