/** What happened, in SQLite's words: runs, their commands, and the audit. */
import { auditRows, checkpoints, commands, idempotencyKeys, runs } from "./rows.ts";
import { changer, type Perform, type Sql } from "./sqlite.ts";
import type { NodeOutcome, RecordQueries, RunRow } from "./store.ts";

const newestRow = "ORDER BY row DESC LIMIT 1";
const newestFirst = "ORDER BY dispatched_at DESC, command_id DESC LIMIT $limit";

export function recordQueries(perform: Perform, loosely: Perform): RecordQueries {
  const change = changer(perform);
  const note = changer(loosely);
  return {
    insertRun: (row) => perform((db) => db.insert(runs, row)),
    endRun: (runId, endedAt, outcome, summary) =>
      note("UPDATE runs SET ended_at = $endedAt, outcome = $outcome, summary = $summary WHERE run_id = $runId", {
        ...{ runId, endedAt, outcome, summary },
      }),
    run: (runId) => perform((db) => db.one(runs, "WHERE run_id = $runId", { runId })),
    runs: (tenantId, { tool, outcome, before }, limit) =>
      perform((db) =>
        db.all(
          runs,
          `WHERE tenant_id = $tenantId AND ($tool IS NULL OR tool = $tool) AND ($outcome IS NULL OR outcome = $outcome)
            AND ($startedAt IS NULL OR (started_at, run_id) < ($startedAt, $runId))
            ORDER BY started_at DESC, run_id DESC LIMIT $limit`,
          {
            ...{ tenantId, limit, tool: tool ?? null, outcome: outcome ?? null },
            ...{ startedAt: before?.startedAt ?? null, runId: before?.runId ?? null },
          },
        ),
      ),
    claimIdempotencyKey: (row) =>
      perform((db) => {
        const { tenantId, principal, key } = row;
        db.insert(idempotencyKeys, row, "ON CONFLICT DO NOTHING");
        const kept = db.one(idempotencyKeys, "WHERE tenant_id = $tenantId AND principal = $principal AND key = $key", {
          tenantId,
          principal,
          key,
        });
        return kept?.runId === row.runId ? null : kept;
      }),
    pruneIdempotencyKeys: (before) => note("DELETE FROM idempotency_keys WHERE created_at < $before", { before }),
    pruneRuns: (before, atMost) =>
      perform((db) => {
        const ended = "SELECT run_id FROM runs WHERE ended_at < $before ORDER BY ended_at, run_id LIMIT $atMost";
        let runs = 0;
        db.together(() => {
          db.run(`DELETE FROM commands WHERE run_id IN (${ended})`, { before, atMost });
          runs = db.run(`DELETE FROM runs WHERE run_id IN (${ended})`, { before, atMost });
        });
        return runs;
      }),
    interruptOpenRuns: (at) =>
      perform((db) => {
        let interrupted = 0;
        db.together(() => {
          db.run("UPDATE commands SET ended_at = $at, outcome = 'edge_disconnected' WHERE ended_at IS NULL", { at });
          for (const run of db.all(runs, "WHERE ended_at IS NULL")) {
            const { runId } = run;
            const summary = JSON.stringify(countOutcomes(db, run));
            const sql =
              "UPDATE runs SET ended_at = $at, outcome = 'interrupted', summary = $summary WHERE run_id = $runId";
            interrupted += db.run(sql, { at, summary, runId });
          }
        });
        return interrupted;
      }),

    insertCommand: (row) => perform((db) => db.insert(commands, row)),
    endCommand: (commandId, end) =>
      change(
        `UPDATE commands SET ended_at = $endedAt, outcome = $outcome, result = $result,
          receipt_signature = $receiptSignature, receipt_key_id = $receiptKeyId, receipt = $receipt,
          output_complete = $outputComplete WHERE command_id = $commandId`,
        { ...commands.encode(end), commandId },
      ),
    command: (commandId) => perform((db) => db.one(commands, "WHERE command_id = $commandId", { commandId })),
    commandsOfRun: (runId) =>
      perform((db) => db.all(commands, "WHERE run_id = $runId ORDER BY dispatched_at, command_id", { runId })),
    recentCommands: (nodeId, limit) =>
      perform((db) => db.all(commands, `WHERE node_id = $nodeId ${newestFirst}`, { nodeId, limit })),

    appendAudit: (entry, hash) =>
      perform((db) =>
        db.together(() => {
          const last = db.one(auditRows, newestRow);
          const link = { ...entry, row: (last?.row ?? 0) + 1, previous: last?.hash ?? new Uint8Array(32) };
          db.insert(auditRows, { ...link, hash: hash(link) });
        }),
      ),
    audit: ({ after, tenantId, since }, limit) =>
      perform((db) =>
        db.all(
          auditRows,
          `WHERE row > $after AND ($tenantId IS NULL OR tenant_id = $tenantId) AND ($since IS NULL OR at >= $since)
            ORDER BY row LIMIT $limit`,
          { after, limit, tenantId: tenantId ?? null, since: since ?? null },
        ),
      ),
    auditHead: () => perform((db) => db.one(auditRows, newestRow)),
    insertCheckpoint: (row) => perform((db) => db.insert(checkpoints, row)),
    checkpoints: (first, last) =>
      perform((db) =>
        db.all(checkpoints, "WHERE last_row BETWEEN $first AND $last ORDER BY last_row", { first, last }),
      ),
    newestCheckpoint: () => perform((db) => db.one(checkpoints, "ORDER BY last_row DESC LIMIT 1")),
  };
}

/** What a run came to whose controller is gone. */
function countOutcomes(db: Sql, { runId, resolved, skipped }: RunRow): Record<NodeOutcome | "skipped", number> {
  const count = (outcome: NodeOutcome) =>
    Number(db.value("SELECT count(*) FROM commands WHERE run_id = $runId AND outcome = $outcome", { runId, outcome }));
  const known = {
    ok: count("ok"),
    err: count("err"),
    timed_out: count("timed_out"),
    cancelled: count("cancelled"),
    edge_disconnected: count("edge_disconnected"),
  };
  const started = Object.values(known).reduce((sum, one) => sum + one, 0);
  return { ...known, not_started: Math.max(0, resolved.length - started), skipped: skipped.length };
}
