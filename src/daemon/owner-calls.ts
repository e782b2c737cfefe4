/** The lines of the owner's log as calls: what began and how it ended, in one piece. */
import type { OwnerLogLine } from "./owner-log.ts";

type Identified = Extract<OwnerLogLine, { event: "begun" | "ended" | "refused" }>;
type Ended = Extract<OwnerLogLine, { event: "ended" | "refused" }>;

export interface OwnerCall {
  /** When it began, or was refused. */
  at: string;
  command_id: string;
  caller: string | null;
  operator: string | null;
  tool: string | null;
  args: string | null;
  args_sha256: string | null;
  context: string | null;
  rule: string | null;
  verdict: "allowed" | "refused";
  /** `ok`, an error kind, `running`, or `cut off` where the daemon ended before the call did. */
  outcome: string;
  error: string | null;
  exit_code: number | null;
  signal: string | null;
  job_id: string | null;
  duration_ms: number | null;
  stdout_bytes: number | null;
  stderr_bytes: number | null;
}

/** In the order in which they began. `alive`: the daemon that wrote the last lines still runs. */
export function ownerCalls(lines: readonly OwnerLogLine[], alive: boolean): OwnerCall[] {
  const calls: OwnerCall[] = [];
  /** Those that have begun. A controller that uses an id again opens another call; it changes none. */
  const open = new Map<string, OwnerCall>();
  const cutOff = () => {
    for (const call of open.values()) call.outcome = "cut off";
    open.clear();
  };
  for (const line of lines) {
    if (line.event === "lost") continue;
    if (line.event === "daemon_started") {
      cutOff();
      continue;
    }
    if (line.event === "unreadable") {
      calls.push({ ...nothingKnown, ...line, verdict: "refused", outcome: "envelope_invalid" });
      continue;
    }
    if (line.event === "ended") {
      const begun = open.get(line.command_id);
      open.delete(line.command_id);
      if (begun) Object.assign(begun, endOf(line));
      else calls.push({ ...identityOf(line), verdict: "allowed", ...endOf(line) });
      continue;
    }
    const call: OwnerCall =
      line.event === "begun"
        ? { ...identityOf(line), verdict: "allowed", outcome: "running" }
        : { ...identityOf(line), verdict: "refused", ...endOf(line) };
    calls.push(call);
    if (line.event === "begun") open.set(line.command_id, call);
  }
  if (!alive) cutOff();
  return calls;
}

const nothingKnown = {
  ...{ caller: null, operator: null, tool: null, args: null, args_sha256: null, context: null, rule: null },
  ...{ error: null, exit_code: null, signal: null, job_id: null },
  ...{ duration_ms: null, stdout_bytes: null, stderr_bytes: null },
};

const identityOf = ({ at, command_id, caller, operator, tool, args, args_sha256, context, rule }: Identified) => ({
  ...nothingKnown,
  ...{ at, command_id, caller, operator, tool, args, args_sha256, context, rule },
});

const endOf = ({ ok, error_kind, error, exit_code, signal, job_id, ...line }: Ended) => ({
  outcome: ok ? "ok" : (error_kind ?? "error"),
  ...{ error, signal, job_id, duration_ms: line.duration_ms },
  // What never ran has no status, and printed nothing.
  exit_code: line.event === "ended" && signal === null ? exit_code : null,
  stdout_bytes: line.event === "ended" ? line.stdout_bytes : null,
  stderr_bytes: line.event === "ended" ? line.stderr_bytes : null,
});
