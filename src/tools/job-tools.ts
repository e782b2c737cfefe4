/** Asks after commands that outlived their call: job.wait, job.output, job.kill, job.list. */
import { z } from "zod";
import type { Clock } from "../platform/clock.ts";
import { limits } from "../platform/limits.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { maxWaitSecs } from "./command-args.ts";
import { commandResult } from "./command-result.ts";
import { maxChunkBytes } from "./fs-read.ts";
import type { Job, Jobs } from "./jobs.ts";
import { wholeEnd } from "./output-cap.ts";
import { inputSchema, parseArgs } from "./parse-args.ts";
import { answered, failed } from "./results.ts";
import type { Pipe, StopReason, Tool, ToolContext, ToolDescriptor, ToolResult } from "./tool.ts";

/** What a caller waits for when it does not say: MCP clients give up after about a minute. */
const defaultWaitSecs = 45;

export interface JobToolsOptions {
  jobs: Jobs;
  clock: Clock;
}

export const jobTools = ({ jobs, clock }: JobToolsOptions): Tool[] => [
  jobTool(jobs, {
    name: "job.wait",
    description: "Waits for a job, shows what it prints meanwhile, and returns its result if it has ended by then.",
    readOnly: true,
    schema: z.strictObject({
      job_id: jobId,
      wait_secs: z
        .number()
        .min(0)
        .max(maxWaitSecs)
        .optional()
        .describe(`Wait for so long. Default ${defaultWaitSecs}.`),
    }),
    async run(job, { wait_secs: secs = defaultWaitSecs }, context) {
      const from = { stdout: job.output.stdout.bytes, stderr: job.output.stderr.bytes };
      const how = await follow(job, from, secs * 1000, context, clock);
      if (how !== "stopped") return jobResult(job, context.maxOutputBytes);
      return stillRuns(job, context.signal.reason as StopReason);
    },
  }),
  jobTool(jobs, {
    name: "job.output",
    description: "Reads what a job printed, from any byte on: all of its beginning and the latest are kept.",
    readOnly: true,
    schema: z.strictObject({
      job_id: jobId,
      stream: z.enum(["stdout", "stderr"]).optional().describe("Default stdout."),
      offset: z.int().min(0).optional().describe("Byte to begin at. Default 0."),
      max_bytes: z
        .int()
        .min(1)
        .max(maxChunkBytes)
        .optional()
        .describe(`Default ${64 * 1024}.`),
      encoding: z.enum(["utf8", "base64"]).optional().describe("Default utf8, which replaces what is no text."),
    }),
    async run(job, { stream = "stdout", offset = 0, max_bytes: most = 64 * 1024, encoding = "utf8" }, context) {
      const spill = job.output[stream];
      const isOver = job.end !== null;
      const read = await spill.read(offset, Math.max(1, Math.min(most, context.maxOutputBytes)));
      const next = read.offset + read.bytes.length;
      const cut =
        encoding === "utf8" && next < spill.bytes ? wholeEnd(read.bytes) || read.bytes.length : read.bytes.length;
      const answer = {
        ...{ status: "success", job_id: job.id, running: !isOver, stream },
        ...{ content: Buffer.from(read.bytes.subarray(0, cut)).toString(encoding), encoding },
        ...{
          offset: read.offset,
          bytes: cut,
          next_offset: read.offset + cut,
          skipped_bytes: Math.max(0, read.offset - offset),
        },
        ...{ total_bytes: spill.bytes, eof: isOver && read.offset + cut >= spill.bytes },
      };
      return { ...answered(answer, context.maxOutputBytes), ...(!isOver && { jobId: job.id }) };
    },
  }),
  jobTool(jobs, {
    name: "job.kill",
    description: "Ends a job with all that it started, and tells how it ended.",
    readOnly: false,
    schema: z.strictObject({ job_id: jobId }),
    async run(job, _args, context) {
      job.stop({ kind: "cancelled", detail: "job.kill" });
      if ((await untilAbort(job.ended, context.signal)) === undefined)
        return stillRuns(job, context.signal.reason as StopReason);
      const told = await jobResult(job, context.maxOutputBytes);
      const { errorKind: _, errorMessage, structured, ...rest } = told;
      return { ...rest, ok: true, structured: { ...structured, how: errorMessage ?? "it had ended by itself" } };
    },
  }),
  listTool(jobs),
];

const jobId = z.uuid().describe("The job_id that cmd.run gave.");

interface JobToolSpec<T> extends Pick<ToolDescriptor, "name" | "description" | "readOnly"> {
  schema: z.ZodType<T> & { shape: Readonly<Record<string, unknown>> };
  run(job: Job, args: NoInfer<T>, context: ToolContext): Promise<ToolResult>;
}

function jobTool<T extends { job_id: string }>(
  jobs: Jobs,
  { name, description, readOnly, schema, run }: JobToolSpec<T>,
): Tool {
  return {
    followsUp: true,
    descriptor: {
      name,
      description,
      readOnly,
      destructive: !readOnly,
      fleetCapable: true,
      inputSchema: inputSchema(schema),
    },
    async prepare(value) {
      const parsed = parseArgs(schema, value);
      if (parsed.kind === "invalid_args") return parsed;
      const { args } = parsed;
      return {
        kind: "ready",
        call: {
          accesses: [],
          async run(context) {
            const job = jobs.get(context.owner, args.job_id);
            const { owner } = context;
            if (job) return run(job, args, context);
            return failed(
              "invalid_args",
              `there is no job ${args.job_id} of context ${owner.context}: it is another's, or it ended over an hour ago, or the daemon has restarted since`,
            );
          },
        },
      };
    },
  };
}

function listTool(jobs: Jobs): Tool {
  const schema = z.strictObject({});
  return {
    followsUp: true,
    descriptor: {
      name: "job.list",
      description: "Names the jobs of this security context, running and ended.",
      ...{ readOnly: true, destructive: false, fleetCapable: true, inputSchema: inputSchema(schema) },
    },
    async prepare(value) {
      const parsed = parseArgs(schema, value);
      if (parsed.kind === "invalid_args") return parsed;
      const run = async ({ owner, maxOutputBytes }: ToolContext) =>
        answered({ status: "success", jobs: jobs.list(owner).map(facts) }, maxOutputBytes);
      return { kind: "ready", call: { accesses: [], run } };
    },
  };
}

/** Longest command line in a list, in characters. */
const maxCommandChars = 200;

const facts = (job: Job): Record<string, unknown> => ({
  job_id: job.id,
  running: job.end === null,
  command: [job.command.name, ...job.command.args].join(" ").slice(0, maxCommandChars),
  started_at: new Date(job.startedAt).toISOString(),
  deadline_at: new Date(job.deadlineAt).toISOString(),
  stdout_bytes: job.output.stdout.bytes,
  stderr_bytes: job.output.stderr.bytes,
});

/** Its result if it has ended; else that it runs, and what it has printed so far. */
export async function jobResult(job: Job, maxOutputBytes: number): Promise<ToolResult> {
  const { end } = job;
  const [stdout, stderr] = [
    await job.output.stdout.captured(maxOutputBytes),
    await job.output.stderr.captured(maxOutputBytes),
  ];
  if (!end) return { ok: true, exitCode: 0, stdout, stderr, structured: facts(job), jobId: job.id };
  const result = commandResult({ name: job.command.name, ...end, stdout, stderr });
  return { ...result, structured: { ...facts(job), ...result.structured } };
}

function stillRuns(job: Job, reason: StopReason): ToolResult {
  const { kind } = reason;
  const errorKind = kind === "shutdown" ? "edge_disconnected" : kind;
  const why =
    kind === "timeout"
      ? `the call's ${reason.afterMs / 1000} s are over`
      : kind === "cancelled"
        ? `the call was cancelled (${reason.detail})`
        : "this host's daemon is restarting, which ends the job";
  return { ...failed(errorKind, `${why}; job ${job.id} is not ended by that`), jobId: job.id };
}

/**
 * Shows what a job prints from `from` on, at the pace of whoever reads, until it has ended, `ms` have passed or the call
 * is to stop. The job itself waits for nobody.
 */
export async function follow(
  job: Job,
  from: Record<Pipe, number>,
  ms: number,
  context: ToolContext,
  clock: Clock,
): Promise<"ended" | "time" | "stopped"> {
  const over = new AbortController();
  const patience = AbortSignal.any([over.signal, context.signal]);
  const timer = new AbortController();
  void clock.sleep(ms, timer.signal).then(() => over.abort());
  try {
    while (!patience.aborted) {
      const seen = job.changes;
      const isOver = job.end !== null;
      for (const pipe of ["stdout", "stderr"] as const) await showNew(job, pipe, from, context, patience);
      if (isOver) return "ended";
      await job.changed(seen, patience);
    }
    return context.signal.aborted ? "stopped" : "time";
  } finally {
    timer.abort();
  }
}

async function showNew(
  job: Job,
  pipe: Pipe,
  from: Record<Pipe, number>,
  context: ToolContext,
  patience: AbortSignal,
): Promise<void> {
  const spill = job.output[pipe];
  while (from[pipe] < spill.bytes && !patience.aborted) {
    const { bytes, offset } = await spill.read(from[pipe], limits.progressChunkBytes);
    from[pipe] = offset + bytes.length;
    if (bytes.length > 0) await untilAbort(context.output(pipe, bytes), patience);
  }
}
