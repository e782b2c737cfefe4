/** One command as the controller tells of it: a line when it is sent, a line when it has ended, and a span in its run's trace. */
import type { Log } from "../platform/log.ts";
import type { TraceContext } from "../platform/trace-context.ts";
import { short, type Tracer, traceFields } from "../platform/tracer.ts";
import type { ResultEvent } from "./dispatch-types.ts";

export interface WatchedCall {
  commandId: string;
  runId: string;
  nodeId: string;
  /** The host's, as operators know it. */
  name: string;
  tool: string;
  context: string;
}

export interface CallWatch {
  /** What the host continues. */
  trace: TraceContext | null;
  ended(result: ResultEvent): void;
}

/** Begins with the call. Arguments, output and words about them are told nowhere. */
export function watchCall(
  { commandId, runId, nodeId, name, tool, context }: WatchedCall,
  { log, tracer, run }: { log: Log; tracer: Tracer; run: TraceContext | null },
): CallWatch {
  const span = tracer.begin(`call ${short(tool)}`, "client", run, {
    ...{ "aegis.command_id": commandId, "aegis.run_id": runId, "aegis.node_id": nodeId },
    ...{ "aegis.host": short(name), "aegis.tool": short(tool), "aegis.context": short(context) },
  });
  const fields = {
    ...{ command_id: commandId, run_id: runId, node_id: nodeId, tool, context },
    ...traceFields(span.context),
  };
  log.info("call_sent", fields);
  return {
    trace: span.context,
    ended({ ok, outcome, errorKind, durationMs, stdout, stderr, receipt }) {
      const problem = ok ? null : (errorKind ?? outcome);
      span.end(
        {
          ...{ "aegis.outcome": outcome, "aegis.duration_ms": Math.round(durationMs), "aegis.receipt": receipt },
          ...{ "aegis.stdout_bytes": stdout.bytes, "aegis.stderr_bytes": stderr.bytes },
          ...(errorKind === null ? {} : { "aegis.error_kind": errorKind }),
        },
        problem,
      );
      const end = { outcome, error_kind: errorKind, receipt, duration_ms: Math.round(durationMs) };
      log.info("call_ended", { ...fields, ...end });
    },
  };
}
