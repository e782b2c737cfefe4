/** How a run's results read to an MCP client: text for the model, structure for the program, errors as results. */
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import type { CapturedText, CommandResult, FleetEvent } from "../api/events.ts";
import type { SkippedHost } from "../api/types.ts";

/** Characters of one pipe that a model is shown; the middle of what is longer is left out. */
const maxTextChars = 64 * 1024;

export const failure = (text: string): CallToolResult => ({ isError: true, content: [{ type: "text", text }] });

/** What was heard of a run, up to its end or up to where its caller stopped listening. */
export interface Heard {
  runId: string;
  results: readonly CommandResult[];
  skipped: readonly SkippedHost[];
  outcome: string | null;
  error: string | null;
}

export function hear(events: readonly FleetEvent[]): Heard {
  const results: CommandResult[] = [];
  const heard = {
    runId: "",
    skipped: [] as SkippedHost[],
    outcome: null as string | null,
    error: null as string | null,
  };
  for (const { event, data } of events) {
    if (event === "started") Object.assign(heard, { runId: data.run_id, skipped: data.skipped });
    else if (event === "command_result") results.push(data);
    else if (event === "fleet_result") heard.outcome = data.outcome;
    else if (event === "error") heard.error = data.message;
  }
  return { ...heard, results };
}

/** One host was meant: its answer is the answer. */
export function answerOfOne(heard: Heard): CallToolResult {
  const [result] = heard.results;
  if (!result) return failure(whyNobody(heard));
  const passed = passedOn(result.structured);
  if (result.ok && passed) return passed;
  const structuredContent = {
    ...(isObject(result.structured) ? result.structured : {}),
    ...plain(result),
  };
  return {
    ...(result.ok ? {} : { isError: true }),
    content: [{ type: "text", text: inWords(result) }],
    structuredContent,
  };
}

/** Several hosts were meant: each is named. It is an error when a host failed or nobody was asked. */
export function answerOfMany(heard: Heard): CallToolResult {
  const hosts = heard.results.map((result) => ({
    ...plain(result),
    ...(isObject(result.structured) ? { structured: result.structured } : {}),
  }));
  const texts = heard.results.map((result) => `## ${result.name}\n${inWords(result)}`);
  const left = heard.skipped.map(({ name, reason }) => `${name} was passed over: ${reason}`);
  const failed = heard.error !== null || heard.results.length === 0 || heard.results.some(({ ok }) => !ok);
  const words = heard.results.length === 0 ? [whyNobody(heard)] : [...texts, ...left];
  return {
    ...(failed ? { isError: true } : {}),
    content: [{ type: "text", text: words.join("\n\n") }],
    structuredContent: { run_id: heard.runId, outcome: heard.outcome, hosts, skipped: heard.skipped },
  };
}

function whyNobody({ skipped, error }: Heard): string {
  if (error !== null) return `Nobody was asked: ${error}`;
  if (skipped.length === 0) return "No host matches the target. aegis_edge_hosts lists them.";
  return skipped.map(({ name, reason }) => `The host ${name} was not asked: ${reason}`).join("\n");
}

const plain = (result: CommandResult) => ({
  host: result.name,
  node_id: result.node_id,
  ok: result.ok,
  outcome: result.outcome,
  exit_code: result.exit_code,
  ...(result.error_kind === null ? {} : { error_kind: result.error_kind, error_message: result.error_message }),
  ...(result.job_id === null ? {} : { job_id: result.job_id }),
});

function inWords(result: CommandResult): string {
  const parts: string[] = [];
  if (!result.ok)
    parts.push(`${result.name}: ${result.error_kind ?? result.outcome}: ${result.error_message ?? "it failed"}`);
  if (!result.ok && result.exit_code !== null && result.exit_code !== 0) parts.push(`exit status ${result.exit_code}`);
  const [stdout, stderr] = [shown(result.stdout), shown(result.stderr)];
  if (stdout) parts.push(stdout);
  if (stderr) parts.push(`stderr:\n${stderr}`);
  if (result.job_id !== null)
    parts.push(`It goes on as job ${result.job_id}: job_wait waits for it, job_output reads on, job_kill ends it.`);
  if (parts.length === 0 && isObject(result.structured)) parts.push(JSON.stringify(result.structured, null, 2));
  return parts.join("\n") || "It printed nothing.";
}

function shown({ head, tail, omitted, encoding }: CapturedText): string {
  const whole = omitted > 0 ? `${head}\n[... ${omitted} bytes left out ...]\n${tail}` : `${head}${tail}`;
  const text = encoding === "base64" && whole !== "" ? `(base64) ${whole}` : whole;
  if (text.length <= maxTextChars) return text;
  const half = maxTextChars / 2;
  return `${text.slice(0, half)}\n[... ${text.length - maxTextChars} characters left out ...]\n${text.slice(-half)}`;
}

/** What a tool of an MCP server on the host answered is handed on as it is. */
function passedOn(structured: unknown): CallToolResult | null {
  if (!isObject(structured) || !Array.isArray(structured.content) || structured.content.length === 0) return null;
  const all = structured.content.every((one) => isObject(one) && typeof one.type === "string");
  return all ? (structured as unknown as CallToolResult) : null;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
