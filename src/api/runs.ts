/** Runs as history tells them. */
import { z } from "zod";
import { commandResultSchema, runOutcomeSchema, summarySchema } from "./events.ts";
import { targetSchema } from "./target.ts";
import { pageOf, pageQuerySchema, runPolicySchema } from "./types.ts";

/** What is null is not known before it ends. */
export const runSchema = z.object({
  run_id: z.string(),
  tool: z.string(),
  context: z.string(),
  target: targetSchema,
  policy: runPolicySchema,
  principal: z.string(),
  started_at: z.iso.datetime(),
  ended_at: z.iso.datetime().nullable(),
  outcome: runOutcomeSchema.nullable(),
  summary: summarySchema.nullable(),
});
export type RunRecord = z.infer<typeof runSchema>;
export const runsPageSchema = pageOf(runSchema);

/** One run alone also tells how each host fared, with the last of what it printed. */
export const runDetailSchema = runSchema.extend({ per_node: z.array(commandResultSchema) });
export type RunDetail = z.infer<typeof runDetailSchema>;

export const runsQuerySchema = pageQuerySchema.extend({
  tool: z.string().optional(),
  outcome: runOutcomeSchema.optional(),
});
