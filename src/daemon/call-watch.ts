/** One call as this host tells of it: a line when it starts, a line when it is answered, and spans in its caller's trace. */
import type { Log } from "../platform/log.ts";
import { type Span, short, type Tracer, traceFields } from "../platform/tracer.ts";
import type { Invoked } from "./invoke.ts";
import type { ReceivedCall } from "./received.ts";

export interface CallWatch {
  /** It has left the queue, and is judged. */
  judging(): void;
  /** It may run, and does from now on. */
  started(): void;
  /** Once, whatever became of it. */
  answered(invoked: Invoked, durationMs: number): void;
}

/** Begins with the call's arrival. Arguments, output and words about them are told nowhere. */
export function watchCall(call: ReceivedCall, { log, tracer }: { log: Log; tracer: Tracer }): CallWatch {
  const { commandId, tool, context } = call;
  const span = tracer.begin(`tool ${short(tool)}`, "server", call.trace, {
    "aegis.command_id": commandId,
    "aegis.tool": short(tool),
    "aegis.context": short(context),
  });
  const fields = { command_id: commandId, tool, context, ...traceFields(span.context) };
  let part: Span | null = null;
  const next = (name: string | null, problem: string | null = null) => {
    part?.end({}, problem);
    part = name === null ? null : tracer.begin(name, "internal", span.context, {});
  };
  return {
    judging: () => next("policy"),
    started() {
      next("run");
      log.info("call_started", fields);
    },
    answered({ result, started, operator }, durationMs) {
      const problem = result.ok ? null : (result.errorKind ?? "error");
      const outcome = problem ?? "ok";
      next(null, problem);
      span.end(
        {
          ...{ "aegis.outcome": outcome, "aegis.started": started, "aegis.duration_ms": Math.round(durationMs) },
          ...{ "aegis.stdout_bytes": result.stdout.bytes, "aegis.stderr_bytes": result.stderr.bytes },
        },
        problem,
      );
      const signed = operator === undefined ? {} : { operator };
      log.info("call", { ...fields, ...signed, outcome, started, duration_ms: Math.round(durationMs) });
    },
  };
}
