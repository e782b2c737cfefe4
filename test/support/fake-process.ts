import type { Pipe, ProcessEnd, ProcessRunner, ProcessSpec } from "../../src/platform/process.ts";

/** One fake process, as the test that plays it sees it. */
export interface FakeProcess {
  spec: ProcessSpec;
  /** Aborts when it is asked to stop. */
  stopped: AbortSignal;
  /** Resolves when whoever reads wants more. */
  print(text: string | Uint8Array, pipe?: Pipe): Promise<void>;
  /** What was written into an open stdin, in order. */
  read: AsyncIterable<Uint8Array>;
  /** It ends; every later call changes nothing. */
  exit(code?: number): void;
  end(end: ProcessEnd): void;
}

export interface FakeProcesses extends ProcessRunner {
  /** In the order of their start. */
  readonly all: readonly FakeProcess[];
}

/** Starts nothing: `play` is what each process does, and by default it ends when it is asked to. */
export function fakeProcesses(
  play: (process: FakeProcess) => undefined | Promise<void> = () => undefined,
): FakeProcesses {
  const all: FakeProcess[] = [];
  return {
    all,
    start(spec) {
      const stop = new AbortController();
      const ended = Promise.withResolvers<ProcessEnd>();
      const input = new TransformStream<Uint8Array, Uint8Array>();
      const writer = input.writable.getWriter();
      let isOpen = spec.stdin === "open";
      const closeStdin = () => {
        if (isOpen) void writer.close().catch(() => {});
        isOpen = false;
      };
      const remains = () => ({ stopped: stop.signal.aborted, outlived: 0, left: [] });
      const process: FakeProcess = {
        spec,
        stopped: stop.signal,
        read: input.readable,
        print: (text, pipe = "stdout") => spec.output(pipe, typeof text === "string" ? Buffer.from(text) : text),
        exit: (code = 0) => ended.resolve({ kind: "exited", code, ...remains() }),
        end: ended.resolve,
      };
      stop.signal.addEventListener("abort", () => {
        queueMicrotask(() => ended.resolve({ kind: "signal", signal: "SIGTERM", ...remains() }));
      });
      all.push(process);
      play(process)?.catch(ended.reject);
      return {
        pid: 100_000 + all.length,
        ended: ended.promise,
        stop: () => stop.abort(),
        closeStdin,
        async write(bytes) {
          if (!isOpen) return false;
          void writer.write(bytes).catch(() => {});
          return true;
        },
      };
    },
  };
}
