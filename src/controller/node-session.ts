/** The controller's end of one strict session: seals what goes out, judges what comes in, and owns the calls it carries. */
import type { CommandFrameKind, ControllerChannel, Frame } from "../envelope/frame.ts";
import type { PublicKey } from "../envelope/public-key.ts";
import { type ProgressChain, progressChain, verifyReceipt } from "../envelope/receipt.ts";
import type { Digest } from "../envelope/statement.ts";
import type { Clock } from "../platform/clock.ts";
import { limits } from "../platform/limits.ts";
import type { Log } from "../platform/log.ts";
import { type Mailbox, mailbox } from "../platform/mailbox.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";
import { abortReason, type SessionCall, type SessionCallEvent } from "./bus.ts";
import { type CallCredit, creditBook } from "./credit.ts";
import type { CallAbort, LiveNode } from "./dispatch-types.ts";
import type { KeysetStep } from "./key-changes.ts";
import { readCapabilities } from "./node-capabilities.ts";
import type { ResultLedger } from "./result-ledger.ts";

const wire = aegis.cluster.v1;

/** Live output a command may be ahead of what was received, in bytes. */
export const creditWindowBytes = limits.creditPerCommandBytes;
/** How long a host may take to answer a cancel before the call ends without it: its own grace of 5 s, and the way. */
export const cancelAnswerMs = 10_000;

/** Results of earlier sessions looked up at once. A host keeps 64, so one with more is no host of ours. */
const maxLateResults = 256;

/** Longest OperatorChallenge that is kept: its list of contexts is the host's own. */
const maxChallengeBytes = 16 * 1024;

/** The stream under a session. */
export interface SessionStream {
  write(frame: Frame): void;
  /** Ends the stream. */
  end(): void;
}

export interface NodeSessionOptions {
  nodeId: string;
  tenantId: string;
  nodeKey: PublicKey;
  channel: ControllerChannel;
  stream: SessionStream;
  capabilities: Uint8Array;
  /** What ACCEPT brought. */
  keysetVersion: number;
  /** As CONFIRM brought it. */
  operatorChallenge: aegis.cluster.v1.OperatorChallenge.$Properties | null | undefined;
  ledger: ResultLedger;
  /** The key of this id, when it may vouch for this host's results now. */
  signerOf(keyId: Uint8Array): Promise<PublicKey | null>;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  onHeartbeat(): void;
  /** The host trusts this version now. */
  onKeyset(version: number): void;
  onCapabilities(capabilities: Uint8Array): void;
}

interface Pending {
  commandBody: Uint8Array;
  events: Mailbox<SessionCallEvent>;
  chain: ProgressChain;
  credit: CallCredit;
}

/** A session of either kind, as the rest of the controller uses it. */
export interface LiveSession {
  readonly live: LiveNode;
  call(call: SessionCall, signal: AbortSignal): AsyncIterable<SessionCallEvent>;
  /** Sends a command that has no answer; false when the stream is gone. */
  tell(command: aegis.cluster.v1.EdgeCommand.$Properties): boolean;
  /** The controller's keys are these from now on; nothing to a peer that knows none. */
  bring(step: KeysetStep): void;
  /** Tells the daemon why, then ends the stream. */
  goodbye(reason: aegis.cluster.v1.GoodbyeReason, detail: string, retryAfterMs?: number): void;
  /** The stream is gone: every call it carried ends at once. */
  closed(): void;
}

export interface NodeSession extends LiveSession {
  /** Calls that are not answered yet. */
  readonly carries: number;
  /** What CONFIRM says of the host's keyset. */
  confirmed(version: number | null): void;
  /** One frame after CONFIRM. False: it does not verify, and the stream must end. */
  receive(frame: Frame): boolean;
}

export function nodeSession(options: NodeSessionOptions): NodeSession {
  // Only what is used later: the rest, such as the capabilities as they came, must not live as long as the session.
  const { channel, clock, ledger, log, nodeId, nodeKey, stream, tenantId, time } = options;
  const { onCapabilities, onHeartbeat, onKeyset, signerOf } = options;
  const pending = new Map<string, Pending>();
  const credits = creditBook();
  let lateResults = 0;
  let open = true;
  let told = options.keysetVersion;
  const live: LiveNode = {
    nodeId,
    tenantId,
    keysetVersion: 0,
    connectedSince: time(),
    lastHeartbeatAt: time(),
    activeCalls: 0,
    queuedCalls: 0,
    draining: false,
    ...readCapabilities(options.capabilities),
  };

  /** Handed on to operators as it is; what is too long is none. */
  function learn(challenge: aegis.cluster.v1.OperatorChallenge.$Properties | null | undefined): void {
    const bytes = challenge ? wire.OperatorChallenge.encode(challenge).finish() : null;
    if (bytes && bytes.length <= maxChallengeBytes) live.operatorChallenge = bytes;
  }
  learn(options.operatorChallenge);

  /** A host may be behind what it was told, but not ahead of it. */
  function confirmed(version: number | null): void {
    if (version === null || version > told || version <= (live.keysetVersion ?? 0)) return;
    live.keysetVersion = version;
    onKeyset(version);
  }

  function send(kind: CommandFrameKind, body: Uint8Array): void {
    if (open) stream.write(channel.seal(kind, body, time()));
  }

  /** False: the host sends what it was not allowed to, and nothing else bounds what waits for a reader. */
  function onProgress(body: Uint8Array, digest: Digest): boolean {
    const event = wire.CommandProgressEvent.decode(body);
    const call = pending.get(event.commandId);
    // Output of a call that has ended here already: the host sent it before it could know.
    if (!call) return true;
    const { chunk, commandId } = event;
    const { credit } = call;
    call.chain.add(digest);
    if (chunk.length === 0 || !credit.arrived(chunk.length)) {
      log.error("credit_exceeded", { node_id: nodeId, command_id: commandId, granted: credit.granted });
      return false;
    }
    call.events.put({
      kind: "progress",
      stderr: event.stderr,
      offset: whole(event.offset) ?? 0,
      skippedBytes: whole(event.skippedBytes) ?? 0,
      chunk,
      taken() {
        const limit = credit.taken(chunk.length);
        if (limit !== null && pending.get(commandId) === call)
          send("credit", wire.Credit.encode({ commandId, limit: toLong(limit) }).finish());
      },
    });
    return true;
  }

  async function onResult(body: Uint8Array): Promise<void> {
    const { result, receiptSig, keyId } = wire.SealedResult.decode(body);
    const event = wire.CommandResultEvent.decode(result);
    const { commandId } = event;
    const call = pending.get(commandId);
    const acknowledge = () => send("ack", wire.Ack.encode({ commandId: [commandId] }).finish());
    if (!call) {
      if (lateResults >= maxLateResults) throw new Error(`more than ${maxLateResults} results of no pending call`);
      lateResults++;
      const stored = ledger.late({ nodeId, nodeKey, commandId, result, signature: receiptSig, keyId });
      if (await stored.finally(() => lateResults--)) acknowledge();
      return;
    }
    pending.delete(commandId);
    const lost = (error: unknown): never => {
      // Who waits for the call must not wait for ever; the host keeps the result and sends it again.
      call.events.put({ kind: "disconnected" });
      call.events.end();
      throw error;
    };
    // The key that is named is stored beside the signature, and whoever checks it later will use that one. It may be
    // another one than the session's: a host that changes its key keeps its session.
    const own = Buffer.from(nodeKey.keyId).equals(keyId);
    const signer = own ? nodeKey : await signerOf(keyId).catch(lost);
    const genuine =
      signer !== null &&
      verifyReceipt(signer, { nodeId, commandId, commandBody: call.commandBody, result }, receiptSig);
    const frames = whole(event.progressFrames);
    const chained = frames === call.chain.frames && Buffer.from(event.progressChain).equals(call.chain.value);
    if (!chained) {
      const { frames: received } = call.chain;
      log.error("progress_chain_mismatch", { node_id: nodeId, command_id: commandId, sealed: frames, received });
    }
    const complete = chained && whole(event.progressDroppedBytes) === 0;
    if (!genuine) log.error("receipt_invalid", { node_id: nodeId, command_id: commandId });
    const receipt = genuine ? "verified" : "invalid";
    const judged = { signature: receiptSig, keyId, receipt, outputComplete: complete } as const;
    const kept = await ledger.settle({ commandId, event, result, ...judged }, { wait: "commit" }).catch(lost);
    call.events.put({ kind: "result", result, ...judged });
    call.events.end();
    if (!kept) return;
    await ledger.synced();
    acknowledge();
  }

  function act(kind: string, body: Uint8Array, digest: Digest): boolean {
    switch (kind) {
      case "heartbeat": {
        const beat = wire.HeartbeatEvent.decode(body);
        live.lastHeartbeatAt = time();
        live.activeCalls = beat.activeInvocations;
        live.queuedCalls = beat.queued;
        learn(beat.challenge);
        confirmed(whole(beat.keysetVersion));
        onHeartbeat();
        return true;
      }
      case "progress":
        return onProgress(body, digest);
      case "result":
        void onResult(body).catch((error: unknown) => {
          // Not acknowledged, so the host keeps it and sends it again on its next session.
          log.error("result_not_stored", { node_id: nodeId, error });
          stream.end();
        });
        return true;
      case "capabilities":
        Object.assign(live, readCapabilities(body));
        onCapabilities(body);
        return true;
      default:
        return false;
    }
  }

  return {
    live,
    confirmed,
    get carries() {
      return pending.size;
    },
    bring({ keyset, commandKey }) {
      if (keyset.version <= told) return;
      told = keyset.version;
      send("keysetFrame", keyset.signed);
      channel.signWith(commandKey);
    },
    receive(frame) {
      if (!open) return false;
      const opened = channel.open(frame);
      if (opened.kind === "refused") {
        log.warn("seal_frame", { node_id: nodeId, reason: opened.reason });
        return false;
      }
      try {
        return act(opened.frame, opened.body, opened.digest);
      } catch (error) {
        log.warn("seal_frame", { node_id: nodeId, reason: "unreadable", frame: opened.frame, error });
        return false;
      }
    },
    async *call({ commandId, body, window }, signal) {
      if (!open) return yield { kind: "unreachable" };
      const call: Pending = {
        commandBody: body,
        events: mailbox(),
        chain: progressChain(),
        credit: credits.open(window),
      };
      pending.set(commandId, call);
      const over = new AbortController();
      const cancel = () => {
        const reason = cancelReasons[abortReason(signal)];
        send("command", wire.EdgeCommand.encode({ cancel: { commandId, reason } }).finish());
        void clock.sleep(cancelAnswerMs, over.signal).then(() => {
          if (over.signal.aborted || pending.get(commandId) !== call) return;
          pending.delete(commandId);
          call.events.put({ kind: "disconnected" });
          call.events.end();
        });
      };
      try {
        send("command", body);
        if (signal.aborted) cancel();
        else signal.addEventListener("abort", cancel, { once: true });
        yield* call.events;
      } finally {
        over.abort();
        signal.removeEventListener("abort", cancel);
        if (pending.get(commandId) === call) pending.delete(commandId);
        call.credit.end();
      }
    },
    tell(command) {
      if (!open) return false;
      send("command", wire.EdgeCommand.encode(command).finish());
      if (command.drain || command.shutdown) live.draining = true;
      return true;
    },
    goodbye(reason, detail, retryAfterMs = 0) {
      if (reason !== wire.GoodbyeReason.GOODBYE_REASON_UNSPECIFIED) {
        send("goodbye", wire.Goodbye.encode({ reason, detail, retryAfterMs: toLong(retryAfterMs) }).finish());
      }
      stream.end();
    },
    closed() {
      open = false;
      for (const [commandId, call] of pending) {
        pending.delete(commandId);
        call.events.put({ kind: "disconnected" });
        call.events.end();
      }
    },
  };
}

const cancelReasons: Readonly<Record<CallAbort, aegis.cluster.v1.CancelReason>> = {
  caller: wire.CancelReason.CANCEL_REASON_CALLER,
  deadline: wire.CancelReason.CANCEL_REASON_DEADLINE,
  client_gone: wire.CancelReason.CANCEL_REASON_CLIENT_GONE,
  fleet_halted: wire.CancelReason.CANCEL_REASON_FLEET_HALTED,
  shutdown: wire.CancelReason.CANCEL_REASON_SHUTDOWN,
};
