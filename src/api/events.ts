/**
 * What a run tells while it goes on, one schema an event; the same over SSE, from history and in the client. A client that
 * follows a run loads these and no others: making schemas is most of what a short command would do.
 */
import { z } from "zod";

const count = z.number().int().nonnegative();

export const nodeOutcomeSchema = z.enum(["ok", "err", "timed_out", "cancelled", "edge_disconnected", "not_started"]);
export type NodeOutcome = z.infer<typeof nodeOutcomeSchema>;

export const skipReasonSchema = z.enum([
  "disconnected",
  "unhealthy",
  "draining",
  "revoked",
  "paused",
  "operator_gone",
  "not_fleet_capable",
  "tool_missing",
]);
export type SkipReason = z.infer<typeof skipReasonSchema>;
export const skippedHostSchema = z.object({ node_id: z.string(), name: z.string(), reason: skipReasonSchema });
export type SkippedHost = z.infer<typeof skippedHostSchema>;

/** One pipe: its first and last bytes; `omitted` lie between them. */
export const capturedSchema = z.object({
  head: z.string(),
  tail: z.string(),
  bytes: count,
  omitted: count,
  encoding: z.enum(["utf8", "base64"]),
});
export type CapturedText = z.infer<typeof capturedSchema>;

/** What anyone needs to check a receipt, each in base64url. */
export const receiptProofSchema = z.object({
  command_body: z.string(),
  result: z.string(),
  signature: z.string(),
  key_id: z.string(),
});

export const commandResultSchema = z.object({
  node_id: z.string(),
  /** What the host is called, also when it was never asked. */
  name: z.string(),
  command_id: z.string(),
  ok: z.boolean(),
  outcome: nodeOutcomeSchema,
  exit_code: z.number().int().nullable(),
  signal: z.string().nullable(),
  error_kind: z.string().nullable(),
  error_message: z.string().nullable(),
  duration_ms: count,
  stdout: capturedSchema,
  stderr: capturedSchema,
  structured: z.unknown(),
  job_id: z.string().nullable(),
  late: z.boolean(),
  output: z.enum(["complete", "incomplete"]),
  receipt: z.enum(["verified", "peer_id_only", "missing", "invalid"]),
  receipt_proof: receiptProofSchema.nullable(),
});
export type CommandResult = z.infer<typeof commandResultSchema>;

export const summarySchema = z.object({
  ok: count,
  err: count,
  timed_out: count,
  cancelled: count,
  edge_disconnected: count,
  skipped: count,
  not_started: count,
});
export type RunSummary = z.infer<typeof summarySchema>;

export const runOutcomeSchema = z.enum(["complete", "halted", "cancelled", "refused", "interrupted"]);
export type RunOutcome = z.infer<typeof runOutcomeSchema>;

export const eventSchemas = {
  started: z.object({
    run_id: z.string(),
    resolved: z.array(z.string()),
    skipped: z.array(skippedHostSchema),
    /** How many waves a rolling run has; null for other modes. */
    waves: count.nullable(),
  }),
  wave_started: z.object({ run_id: z.string(), wave: count, of: count, nodes: z.array(z.string()) }),
  node_started: z.object({ run_id: z.string(), node_id: z.string(), name: z.string(), command_id: z.string() }),
  command_progress: z.object({
    node_id: z.string(),
    command_id: z.string(),
    stream: z.enum(["stdout", "stderr"]),
    seq: count,
    /** Of these bytes in what the pipe produced. */
    offset: count,
    /** Text, or `base64` when the bytes are no UTF-8. */
    data: z.string().optional(),
    base64: z.string().optional(),
    /** Bytes before `offset` that were dropped on the way. */
    skipped_bytes: count,
  }),
  command_result: commandResultSchema,
  signature_needed: z.object({
    node_id: z.string(),
    reason: z.string(),
    receipt: receiptProofSchema,
    operator_challenge: z.string(),
  }),
  fleet_result: z.object({
    run_id: z.string(),
    outcome: runOutcomeSchema,
    summary: summarySchema,
    started_at: z.iso.datetime(),
    ended_at: z.iso.datetime(),
  }),
  error: z.object({ code: z.string(), message: z.string() }),
} as const;

export type EventName = keyof typeof eventSchemas;
type EventData = { [N in EventName]: z.infer<(typeof eventSchemas)[N]> };

/** `id` counts from 1 within a run and only grows; numbers may be missing where live output was let go. */
export type FleetEvent = { [N in EventName]: { id: number; event: N; data: EventData[N] } }[EventName];
/** An event that has no number yet. */
export type NewFleetEvent = { [N in EventName]: { event: N; data: EventData[N] } }[EventName];

export const isEventName = (name: string): name is EventName => Object.hasOwn(eventSchemas, name);
