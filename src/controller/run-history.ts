/** Runs as the store tells them: for lists, for one of them, and for a reader of events that comes too late. */
import type { CommandResult, FleetEvent, NewFleetEvent, RunSummary } from "../api/events.ts";
import type { RunDetail, RunRecord } from "../api/runs.ts";
import { targetSchema } from "../api/target.ts";
import { runPolicySchema } from "../api/types.ts";
import type { CommandRow, RunRow } from "../store/store.ts";
import { commandResult, missingResult, storedResult } from "./call-result.ts";
import type { StreamResult } from "./dispatch-types.ts";
import { isoOrNull, isoTime } from "./host-view.ts";

/** What history shows of a pipe, in bytes. */
const tailBytes = 4 * 1024;

export function runRecord(row: RunRow): RunRecord {
  return {
    run_id: row.runId,
    tool: row.tool,
    context: row.context,
    target: targetSchema.parse(JSON.parse(row.target)),
    policy: runPolicySchema.parse(JSON.parse(row.policy)),
    principal: row.principal,
    started_at: isoTime(row.startedAt),
    ended_at: isoOrNull(row.endedAt),
    outcome: row.outcome,
    summary: summaryOf(row),
  };
}

const summaryOf = (row: RunRow): RunSummary | null =>
  row.summary === null ? null : (JSON.parse(row.summary) as RunSummary);

export function runDetail(row: RunRow, commands: readonly CommandRow[]): RunDetail {
  const tailOnly = ({ head, tail, bytes }: StreamResult): StreamResult => ({
    head: new Uint8Array(),
    tail: Buffer.concat([head, tail]).subarray(-tailBytes),
    bytes,
  });
  return {
    ...runRecord(row),
    per_node: results(row, commands, tailOnly).map((one) => ({ ...one, receipt_proof: null })),
  };
}

/** In the order the hosts were resolved; those that a run that goes on has not heard of yet are missing. */
function results(
  row: RunRow,
  commands: readonly CommandRow[],
  shorten: (stream: StreamResult) => StreamResult = (stream) => stream,
): CommandResult[] {
  const byNode = new Map(commands.map((command) => [command.nodeId, command]));
  return row.resolved.flatMap((host) => {
    const command = byNode.get(host.nodeId);
    if (!command) {
      if (row.endedAt === null) return [];
      return [commandResult(host, "", missingResult("not_started", "not started: the run ended before", 0))];
    }
    const result = storedResult(command);
    if (!result) return [];
    const { stdout, stderr } = result;
    return [commandResult(host, command.commandId, { ...result, stdout: shorten(stdout), stderr: shorten(stderr) })];
  });
}

/**
 * The events of a run that ended and whose own are gone: without live output, numbered on from `after`, so that a reader
 * that comes back never sees a number twice.
 */
export function replayedEvents(row: RunRow, commands: readonly CommandRow[], after: number): FleetEvent[] {
  const events: NewFleetEvent[] = [
    {
      event: "started",
      data: {
        run_id: row.runId,
        resolved: row.resolved.map(({ nodeId }) => nodeId),
        skipped: row.skipped.map(({ nodeId, name, reason }) => ({ node_id: nodeId, name, reason: reason as never })),
        waves: null,
      },
    },
  ];
  for (const data of results(row, commands)) {
    const { node_id, name, command_id } = data;
    if (command_id)
      events.push({
        event: "node_started",
        data: { run_id: row.runId, node_id, name, command_id },
      });
    events.push({ event: "command_result", data });
  }
  const summary = summaryOf(row);
  if (row.endedAt !== null && row.outcome !== null && summary)
    events.push({
      event: "fleet_result",
      data: {
        ...{ run_id: row.runId, outcome: row.outcome, summary },
        ...{ started_at: isoTime(row.startedAt), ended_at: isoTime(row.endedAt) },
      },
    });
  return events.map((event, index) => ({ id: after + index + 1, ...event }));
}
