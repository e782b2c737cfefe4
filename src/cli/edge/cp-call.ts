/** Calls one tool on one host after the other, for commands that need many answers: each call is a run like any other. */
import type { ApiClient } from "../../api/client.ts";
import type { CommandResult } from "../../api/events.ts";
import type { InvokeRequest } from "../../api/types.ts";
import { AegisError, type ErrorCode } from "../../errors.ts";
import type { Surroundings } from "../command.ts";
import { signingOf } from "../operator-signing.ts";
import { followRun, inWords, type RunView, tellDoubts } from "../run-report.ts";

export type Answer = Record<string, unknown>;

export interface HostCalls {
  /** What the tool answered. */
  call(tool: string, args: Record<string, unknown>): Promise<Answer>;
  /** The same, or null where the host says that the arguments name nothing it has. */
  find(tool: string, args: Record<string, unknown>): Promise<Answer | null>;
}

/** A checksum of a large file takes its time. */
const deadlineSecs = 3_600;
const silent: RunView = { show: async () => {}, end: async () => {} };
const codes: Readonly<Record<string, ErrorCode>> = {
  policy_violation: "forbidden",
  security_context_not_found: "forbidden",
  operator_signature_required: "forbidden",
  edge_disconnected: "edge_unavailable",
  draining: "edge_unavailable",
  paused: "edge_unavailable",
  timeout: "deadline_exceeded",
  cancelled: "cancelled",
};

export function hostCalls(client: ApiClient, where: { node: string; context: string }, given: Surroundings): HostCalls {
  const { terminal, stop } = given;
  /** Whoever said yes to the first call has said it to the copy. */
  let agreed = false;

  async function ask(tool: string, args: Record<string, unknown>): Promise<CommandResult> {
    const request: InvokeRequest = {
      ...{ target: { Node: where.node }, tool, args, context: where.context, progress: false },
      ...{ policy: { deadline_secs: deadlineSecs }, abort_on_disconnect: true },
    };
    const signing = await signingOf(client, request, given, agreed);
    agreed = true;
    const report = await followRun(client, signing?.request ?? request, silent, stop, signing?.run);
    tellDoubts(report, terminal);
    if (report.outcome === "cancelled" || stop.aborted)
      throw new AegisError("cancelled", "stopped before the whole file was copied", {
        hint: "the same command goes on where this one stopped",
      });
    const [result] = report.results.values();
    if (!result) {
      const [absent] = report.skipped;
      const why = report.refusal?.message ?? (absent ? `${absent.name} is ${absent.reason}` : report.outcome);
      throw new AegisError("edge_unavailable", why, { hint: "aegis edge ls" });
    }
    if (report.doubts.size > 0) throw new AegisError("forbidden", "what the host answered is not proven");
    return result;
  }

  const refused = (tool: string, result: CommandResult) =>
    new AegisError(codes[result.error_kind ?? ""] ?? "unprocessable", `${tool} on ${where.node}: ${inWords(result)}`);
  const answerOf = ({ structured }: CommandResult): Answer => (structured ?? {}) as Answer;

  return {
    async call(tool, args) {
      const result = await ask(tool, args);
      if (!result.ok) throw refused(tool, result);
      return answerOf(result);
    },
    async find(tool, args) {
      const result = await ask(tool, args);
      if (result.ok) return answerOf(result);
      if (result.error_kind === "invalid_args" && /does not exist/.test(result.error_message ?? "")) return null;
      throw refused(tool, result);
    },
  };
}
