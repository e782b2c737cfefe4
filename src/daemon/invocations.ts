/**
 * The calls of this host: so many at once, so many in a queue, the rest refused. Hands each its own way to be stopped,
 * and answers every one of them exactly once.
 */
import type { Clock } from "../platform/clock.ts";
import { limits } from "../platform/limits.ts";
import type { Log } from "../platform/log.ts";
import { noTracer, type Tracer } from "../platform/tracer.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { failed } from "../tools/results.ts";
import type { StopReason, ToolContext } from "../tools/tool.ts";
import { type CallWatch, watchCall } from "./call-watch.ts";
import { type Host, type Invoked, invoke, type Proven } from "./invoke.ts";
import type { Delivery, Outbox } from "./outbox.ts";
import type { OwnerLog } from "./owner-log.ts";
import type { ReceivedCall } from "./received.ts";

/** Calls that may wait for a place. */
export const maxQueuedCalls = limits.queuedCallsPerHost;

export interface InvocationsOptions {
  host: () => Host;
  outbox: Outbox;
  clock: Clock;
  log: Log;
  /** What the owner of this host reads. */
  ownerLog?: OwnerLog;
  tracer?: Tracer;
  maxConcurrent: number;
}

export interface Invocations {
  /** Never waits: what it starts runs by itself. */
  submit(call: ReceivedCall): void;
  /** Answers a call that cannot even be read. */
  reject(commandId: string, commandBody: Uint8Array, reason: string): void;
  cancel(commandId: string, detail: string): void;
  /**
   * No new calls until `resume`. Resolves when those it had are answered, or at `resume`; what is not after
   * `finishWithinMs`, unless that is 0, is stopped.
   */
  drain(finishWithinMs: number): Promise<void>;
  /** Ends a drain. After `stop` nothing does. */
  resume(): void;
  /** So many calls at once, and never more than the settings say; null = what they say. */
  limit(max: number | null): void;
  /** What the settings say from now on. */
  allow(max: number): void;
  /** Takes no more calls for good, gives what runs `graceMs` to finish, stops the rest, and resolves when everything is answered. */
  stop(graceMs: number): Promise<void>;
  readonly active: number;
  readonly queued: number;
  /** How many were answered so far. */
  readonly answered: number;
  readonly draining: boolean;
}

interface Entry {
  call: ReceivedCall;
  delivery: Delivery;
  watch: CallWatch;
  stop: AbortController;
  /** Aborts when the call is answered, which happens once. */
  answered: AbortController;
}

export function createInvocations(options: InvocationsOptions): Invocations {
  const { host, outbox, clock, log, ownerLog, tracer = noTracer } = options;
  const queue: Entry[] = [];
  const running = new Set<Entry>();
  /** Aborts when the drain that goes on is over; null when none does. */
  let draining: AbortController | null = null;
  let stopping = false;
  let answeredCalls = 0;
  let allowed = options.maxConcurrent;
  /** By the controller, for as long as its stream lasts. */
  let limited: number | null = null;
  let idle: Array<() => void> = [];

  function answer({ call, delivery, watch, answered }: Entry, invoked: Invoked): void {
    if (answered.signal.aborted) return;
    answered.abort();
    answeredCalls++;
    const { result, started, signAgain } = invoked;
    const durationMs = clock.monotonic() - call.receivedAt;
    ownerLog?.answered(call, invoked, durationMs);
    delivery.finish({ result, started, durationMs, ...(signAgain && { signAgain }) });
    watch.answered(invoked, durationMs);
  }

  const unstarted = (entry: Entry, ...refused: Parameters<typeof failed>) =>
    answer(entry, { result: failed(...refused), started: false });

  async function run(entry: Entry): Promise<void> {
    const { call, delivery, watch, stop } = entry;
    running.add(entry);
    try {
      const output: ToolContext["output"] = (pipe, chunk) => delivery.progress(pipe, chunk, stop.signal);
      watch.judging();
      const onBegin = (proven: Proven) => {
        ownerLog?.begun(call, proven);
        watch.started();
      };
      answer(entry, await invoke(call, host(), { signal: stop.signal, output }, onBegin));
    } catch (error) {
      log.error("call_failed", { command_id: call.commandId, tool: call.tool, error });
      answer(entry, {
        result: failed("internal", `${call.tool} failed on this host; its log says why`),
        started: true,
      });
    } finally {
      running.delete(entry);
      next();
    }
  }

  /** The deadline counts from arrival, so time in the queue is part of it. */
  async function expire(entry: Entry): Promise<void> {
    const { call, stop, answered } = entry;
    await clock.sleep(Math.max(0, call.receivedAt + call.deadlineMs - clock.monotonic()), answered.signal);
    if (answered.signal.aborted) return;
    const waiting = queue.indexOf(entry);
    if (waiting < 0) return stop.abort({ kind: "timeout", afterMs: call.deadlineMs } satisfies StopReason);
    queue.splice(waiting, 1);
    unstarted(entry, "timeout", `still queued after its deadline of ${call.deadlineMs} ms; nothing ran`);
  }

  function next(): void {
    while (running.size < Math.min(allowed, limited ?? allowed)) {
      const entry = queue.shift();
      if (!entry) break;
      void run(entry);
    }
    if (running.size > 0 || queue.length > 0) return;
    for (const resolve of idle) resolve();
    idle = [];
  }

  const nothingLeft = (): Promise<void> =>
    running.size === 0 && queue.length === 0 ? Promise.resolve() : new Promise((resolve) => idle.push(resolve));

  function stopAll(why: string): void {
    for (const entry of queue.splice(0)) unstarted(entry, "draining", why);
    for (const entry of running) entry.stop.abort({ kind: "shutdown" } satisfies StopReason);
  }

  /** Resolves when nothing is left, when `ms` have passed or when `signal` aborts, whichever is first. */
  async function patience(ms: number, signal: AbortSignal): Promise<void> {
    const timer = new AbortController();
    await Promise.race([nothingLeft(), clock.sleep(ms, AbortSignal.any([timer.signal, signal]))]);
    timer.abort();
  }

  return {
    get active() {
      return running.size;
    },
    get queued() {
      return queue.length;
    },
    get answered() {
      return answeredCalls;
    },
    get draining() {
      return stopping || draining !== null;
    },
    submit(call) {
      const delivery = outbox.open(call);
      const watch = watchCall(call, { log, tracer });
      const entry: Entry = { call, delivery, watch, stop: new AbortController(), answered: new AbortController() };
      if (stopping || draining)
        return unstarted(entry, "draining", "this host takes no new calls: it is about to restart or to move");
      if (queue.length >= maxQueuedCalls) {
        return unstarted(
          entry,
          "overloaded",
          `${running.size} calls run and ${queue.length} wait, which is this host's limit`,
        );
      }
      queue.push(entry);
      if (call.deadlineMs > 0) void expire(entry);
      next();
    },
    reject(commandId, commandBody, reason) {
      ownerLog?.unreadable(commandId, reason);
      log.warn("call_unreadable", { command_id: commandId, reason });
      const delivery = outbox.open({ commandId, commandBody, initialCredit: 0 });
      delivery.finish({ result: failed("envelope_invalid", reason), started: false, durationMs: 0 });
    },
    cancel(commandId, detail) {
      const waiting = queue.findIndex((entry) => entry.call.commandId === commandId);
      if (waiting >= 0) {
        const [entry] = queue.splice(waiting, 1);
        if (entry) unstarted(entry, "cancelled", `cancelled while queued: ${detail}`);
        return;
      }
      for (const entry of running) {
        if (entry.call.commandId !== commandId) continue;
        log.info("call_cancelled", { command_id: commandId, detail });
        entry.stop.abort({ kind: "cancelled", detail } satisfies StopReason);
      }
    },
    async drain(finishWithinMs) {
      draining ??= new AbortController();
      const { signal } = draining;
      if (finishWithinMs > 0) {
        await patience(finishWithinMs, signal);
        if (signal.aborted) return;
        stopAll("this host drains, and the time for what waits is over; nothing ran");
      }
      await untilAbort(nothingLeft(), signal);
    },
    resume() {
      draining?.abort();
      draining = null;
    },
    limit(max) {
      limited = max;
      next();
    },
    allow(max) {
      allowed = max;
      next();
    },
    async stop(graceMs) {
      stopping = true;
      for (const entry of queue.splice(0)) unstarted(entry, "draining", "this host is restarting; nothing ran");
      await patience(graceMs, new AbortController().signal);
      stopAll("this host is restarting; nothing ran");
      await nothingLeft();
    },
  };
}
