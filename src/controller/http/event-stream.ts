/** A run's events as server-sent events, for one reader at its own pace. */
import { formatSse, sseComment } from "../../api/sse.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Run } from "../fleet-run.ts";

/** Longest silence; proxies take longer ones for a dead connection. */
const keepAliveMs = 15_000;

export interface EventStreamOptions {
  clock: Clock;
  /** Events with a higher number only. */
  after: number;
  /** Aborts when the client is gone, as the server sees it. */
  client: AbortSignal;
  /** Called once if the client leaves before the run's end. */
  onGone(): void;
}

export function eventStream(run: Run, { clock, after, client, onGone }: EventStreamOptions): Response {
  const gone = new AbortController();
  const events = run.events.read(after, gone.signal);
  const encoder = new TextEncoder();
  let next: ReturnType<typeof events.next> | null = null;
  let over = false;
  const leave = () => {
    if (over) return;
    over = true;
    gone.abort();
    onGone();
  };
  if (client.aborted) leave();
  else client.addEventListener("abort", leave, { once: true });

  let saidAt = clock.monotonic();
  let onSilence: (() => void) | null = null;
  /** One timer for the whole stream: events may come by the thousand. */
  async function watchSilence(): Promise<void> {
    while (!gone.signal.aborted) {
      const leftMs = saidAt + keepAliveMs - clock.monotonic();
      if (leftMs > 0) await clock.sleep(leftMs, gone.signal);
      else {
        saidAt = clock.monotonic();
        onSilence?.();
      }
    }
  }
  void watchSilence();
  /** The next event, or null when none came for too long. */
  const eventOrSilence = (coming: ReturnType<typeof events.next>) =>
    new Promise<Awaited<typeof coming> | null>((resolve, reject) => {
      onSilence = () => resolve(null);
      coming.then(resolve, (error: unknown) => {
        gone.abort();
        reject(error);
      });
    });

  const body = new ReadableStream<Uint8Array>({
    // Asked for only when the connection has taken what came before: a reader that stops reading holds nobody up.
    async pull(controller) {
      next ??= events.next();
      const first = await eventOrSilence(next);
      onSilence = null;
      if (over) return;
      saidAt = clock.monotonic();
      if (first === null) return controller.enqueue(encoder.encode(sseComment));
      next = null;
      if (!first.done) {
        const { id, event, data } = first.value;
        return controller.enqueue(encoder.encode(formatSse({ id, event, data })));
      }
      over = true;
      gone.abort();
      client.removeEventListener("abort", leave);
      controller.close();
    },
    cancel: leave,
  });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      // nginx would collect events before it hands them on.
      "x-accel-buffering": "no",
    },
  });
}
