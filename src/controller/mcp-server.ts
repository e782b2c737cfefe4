/** One MCP session of one operator: lists what hosts can do, and does it through the same runs as everybody else. */
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  type CallToolResult,
  ErrorCode,
  ListToolsRequestSchema,
  McpError,
  type Tool,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import type { FleetEvent } from "../api/events.ts";
import { readRequest } from "../api/read.ts";
import { parseTarget } from "../api/target-text.ts";
import { type RunPolicy, runPolicySchema, type Scope } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { readTraceContext, type TraceContext } from "../platform/trace-context.ts";
import type { Store } from "../store/store.ts";
import { version } from "../version.ts";
import type { Principal } from "./dispatch-types.ts";
import type { FleetRuns } from "./fleet.ts";
import type { Run } from "./fleet-run.ts";
import { hostView, knownHost } from "./host-view.ts";
import { hasScope } from "./http/auth.ts";
import { answerOfMany, answerOfOne, failure, hear } from "./mcp-answer.ts";
import { type CatalogTool, catalog, type LiveHosts, liveHosts } from "./mcp-catalog.ts";

export interface McpServices {
  fleet: FleetRuns;
  nodes: LiveHosts;
  store: Store;
  clock: Clock;
  log: Log;
}

/** MCP clients give up after about a minute; what takes longer becomes a job, or is asked for again. */
const waitSecs = 45;
/** Progress is told this often at most. */
const progressEveryMs = 250;
const maxProgressChars = 1_000;

const target = z.string().describe("A host's name or id, group:NAME, all, or parts such as os=linux tags=prod");
const fleetInvoke = z.strictObject({
  target,
  tool: z.string().describe("The tool's own name, such as cmd.run"),
  args: z.record(z.string(), z.unknown()).default({}),
  context: z.string().default("default"),
  mode: z.enum(["parallel", "sequential", "rolling"]).default("parallel"),
  batch: z.number().int().min(1).optional().describe("Hosts of a wave, for rolling"),
  max_concurrency: z.number().int().min(1).optional(),
  on_error: z.enum(["fail-fast", "continue", "stop-after"]).optional(),
  stop_after: z.number().int().min(1).optional(),
  require_min: z.number().int().min(0).optional(),
  deadline_secs: z.number().optional(),
});
const own = {
  aegis_edge_hosts: {
    description: "Lists the hosts: name, id, status, system, tags and labels",
    schema: z.strictObject({ connected: z.boolean().optional().describe("Only those that are connected, or are not") }),
    scope: "aegis.edge.hosts.read",
    annotations: { readOnlyHint: true },
  },
  aegis_edge_fleet_list: {
    description:
      "With target: which hosts it means now, and why others are passed over. With run_id: how that run fares",
    schema: z.strictObject({ target: target.optional(), run_id: z.string().optional() }),
    scope: "aegis.edge.fleet.read",
    annotations: { readOnlyHint: true },
  },
  aegis_edge_fleet_invoke: {
    description: `Calls one tool on every host of a target. What takes longer than ${waitSecs} s goes on and is asked for again by its run_id`,
    schema: fleetInvoke,
    scope: "aegis.edge.fleet.manage",
    annotations: { readOnlyHint: false, destructiveHint: true },
  },
  aegis_edge_fleet_cancel: {
    description: "Stops a run on every host",
    schema: z.strictObject({ run_id: z.string() }),
    scope: "aegis.edge.fleet.manage",
    annotations: { readOnlyHint: false, destructiveHint: false },
  },
} as const satisfies Record<string, { description: string; schema: z.ZodType; scope: Scope; annotations: object }>;

interface Extra {
  signal: AbortSignal;
  progress(message: string): void;
  trace: TraceContext | null;
}

export function createMcpServer(services: McpServices, principal: Principal): Server {
  const { nodes, log } = services;
  const server = new Server(
    { name: "aegis", version },
    {
      capabilities: { tools: { listChanged: true } },
      instructions:
        "Tools run on the hosts of this tenant, each under its owner's policy. Choose the host with target; a refusal names the rule. Long work hands back a job_id.",
    },
  );
  const hostTools = (): CatalogTool[] =>
    hasScope(principal, "aegis.edge.fleet.manage") ? catalog(liveHosts(nodes, principal.tenantId)) : [];

  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: [...ownTools(principal), ...hostTools().map(toolView)],
  }));

  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const token = params._meta?.progressToken;
    let progress = 0;
    let toldAt = Number.NEGATIVE_INFINITY;
    const more: Extra = {
      signal: extra.signal,
      trace:
        readTraceContext(params._meta?.traceparent, params._meta?.tracestate) ??
        readTraceContext(extra.requestInfo?.headers.traceparent, extra.requestInfo?.headers.tracestate),
      progress(message) {
        const now = services.clock.monotonic();
        if (token === undefined || now - toldAt < progressEveryMs) return;
        toldAt = now;
        const said = { progressToken: token, progress: ++progress, message: message.slice(-maxProgressChars) };
        void extra.sendNotification({ method: "notifications/progress", params: said }).catch(() => {});
      },
    };
    try {
      return await call(services, principal, hostTools(), params.name, params.arguments ?? {}, more);
    } catch (thrown) {
      if (thrown instanceof McpError) throw thrown;
      const error = AegisError.from(thrown);
      if (error.code === "internal") log.error("mcp_failed", { tool: params.name, error });
      return failure(
        [error.code === "internal" ? "this controller could not answer" : error.message, error.hint]
          .filter(Boolean)
          .join("\n"),
      );
    }
  });
  return server;
}

function ownTools(principal: Principal): Tool[] {
  return Object.entries(own)
    .filter(([, { scope }]) => hasScope(principal, scope))
    .map(([name, { description, schema, annotations }]) => {
      const { $schema: _dialect, ...inputSchema } = z.toJSONSchema(schema, { io: "input" });
      return { name, description, inputSchema: inputSchema as Tool["inputSchema"], annotations };
    });
}

const toolView = ({ name, tool, description, inputSchema, readOnly, destructive }: CatalogTool): Tool => ({
  ...{ name, description, inputSchema },
  annotations: { title: tool, readOnlyHint: readOnly, destructiveHint: destructive },
});

async function call(
  services: McpServices,
  principal: Principal,
  tools: readonly CatalogTool[],
  name: string,
  args: Record<string, unknown>,
  extra: Extra,
): Promise<CallToolResult> {
  if (Object.hasOwn(own, name)) {
    const { scope, schema } = own[name as keyof typeof own];
    if (!hasScope(principal, scope)) return failure(`this needs the scope ${scope}`);
    return await ownCall(
      services,
      principal,
      name as keyof typeof own,
      readRequest<unknown>(schema, args, name),
      extra,
    );
  }
  const tool = tools.find((one) => one.name === name);
  if (!tool) throw new McpError(ErrorCode.InvalidParams, `no connected host has a tool ${name}`);
  return await hostCall(services, principal, tool, args, extra);
}

async function hostCall(
  services: McpServices,
  principal: Principal,
  tool: CatalogTool,
  { [tool.targetArgument]: where, [tool.contextArgument]: context = "default", ...args }: Record<string, unknown>,
  extra: Extra,
): Promise<CallToolResult> {
  const { fleet, nodes, clock } = services;
  if (where !== undefined && typeof where !== "string") return failure(`${tool.targetArgument} is no text`);
  if (typeof context !== "string") return failure(`${tool.contextArgument} is no text`);
  const hosts = liveHosts(nodes, principal.tenantId);
  const [only] = hosts;
  if (where === undefined && (hosts.length !== 1 || !only))
    return failure(
      `${hosts.length} hosts are connected: say which with ${tool.targetArgument}. aegis_edge_hosts lists them.`,
    );
  const wanted = where === undefined ? ({ Node: only?.nodeId ?? "" } as const) : parseTarget(where, { bareNode: true });
  const alone = typeof wanted === "object" && "Node" in wanted;
  const run = await fleet.start(
    {
      ...{ target: wanted, tool: tool.tool, context, via: "mcp", progress: true, abortOnDisconnect: false },
      trace: extra.trace,
      argsJson: JSON.stringify(
        tool.takesWait && args.wait_secs === undefined ? { ...args, wait_secs: waitSecs } : args,
      ),
      policy: runPolicySchema.parse({}),
    },
    principal,
  );
  const heard = hear(await listen(run, { ...extra, clock, untilMs: null }));
  return alone ? answerOfOne(heard) : answerOfMany(heard);
}

interface Listening extends Extra {
  clock: Clock;
  /** How long at most; 0 = what there is now, null = to the end. */
  untilMs: number | null;
}

/** A run's events without live output, which becomes progress. A client that cancels stops the run. */
async function listen(run: Run, { signal, progress, clock, untilMs }: Listening): Promise<FleetEvent[]> {
  const events: FleetEvent[] = [];
  const enough = new AbortController();
  const cancel = () => void run.cancel("caller");
  if (signal.aborted) cancel();
  else signal.addEventListener("abort", cancel, { once: true });
  if (untilMs === 0) enough.abort();
  else if (untilMs !== null) void clock.sleep(untilMs, enough.signal).then(() => enough.abort());
  try {
    for await (const event of run.events.read(0, enough.signal)) {
      if (event.event === "command_progress") progress(event.data.data ?? "(binary output)");
      else events.push(event);
    }
  } finally {
    enough.abort();
    signal.removeEventListener("abort", cancel);
  }
  return events;
}

async function ownCall(
  { fleet, nodes, store, clock }: McpServices,
  principal: Principal,
  name: keyof typeof own,
  given: unknown,
  extra: Extra,
): Promise<CallToolResult> {
  const { tenantId } = principal;
  switch (name) {
    case "aegis_edge_hosts": {
      const { connected } = given as z.output<typeof own.aegis_edge_hosts.schema>;
      const rows = (await store.nodes(tenantId)).filter(({ revokedAt }) => revokedAt === null);
      const hosts = rows.map((row) => hostView(knownHost(row), nodes));
      const wanted = hosts.filter(({ status }) => connected === undefined || connected === (status === "connected"));
      return told({
        hosts: wanted.map(({ name: host, node_id, status, tags, capabilities: { os, arch, labels } }) => ({
          ...{ name: host, node_id, status, os, arch, tags, labels },
        })),
      });
    }
    case "aegis_edge_fleet_list": {
      const { target: text, run_id: runId } = given as z.output<typeof own.aegis_edge_fleet_list.schema>;
      if ((text === undefined) === (runId === undefined)) return failure("give target or run_id");
      if (text !== undefined) return told(await fleet.preview(tenantId, parseTarget(text, { bareNode: true })));
      const run = await fleet.find(tenantId, runId ?? "");
      const over = run.end !== null;
      const heard = hear(
        await listen(run, { ...extra, signal: new AbortController().signal, clock, untilMs: over ? null : 0 }),
      );
      return over ? answerOfMany(heard) : stillGoing(heard.runId, heard.results.length);
    }
    case "aegis_edge_fleet_invoke": {
      const request = given as z.output<typeof fleetInvoke>;
      const run = await fleet.start(
        {
          ...{ target: parseTarget(request.target, { bareNode: true }), tool: request.tool, context: request.context },
          ...{ argsJson: JSON.stringify(request.args), via: "mcp", progress: true, abortOnDisconnect: false },
          trace: extra.trace,
          policy: policyOf(request),
        },
        principal,
      );
      const heard = hear(await listen(run, { ...extra, clock, untilMs: waitSecs * 1000 }));
      return run.end === null ? stillGoing(run.runId, heard.results.length) : answerOfMany(heard);
    }
    case "aegis_edge_fleet_cancel": {
      const { run_id: runId } = given as z.output<typeof own.aegis_edge_fleet_cancel.schema>;
      return told(await fleet.cancel(tenantId, runId, "caller", { by: principal.name, note: "over MCP" }));
    }
  }
}

const policyOf = ({
  mode,
  batch,
  max_concurrency,
  on_error,
  stop_after,
  require_min,
  deadline_secs,
}: z.output<typeof fleetInvoke>): RunPolicy =>
  readRequest(
    runPolicySchema,
    { mode, batch, max_concurrency, on_error, stop_after, require_min, deadline_secs },
    "the policy",
  );

const told = (value: Record<string, unknown>): CallToolResult => ({
  content: [{ type: "text", text: JSON.stringify(value, null, 2) }],
  structuredContent: value,
});

const stillGoing = (runId: string, answered: number): CallToolResult => ({
  content: [
    {
      type: "text",
      text: `The run ${runId} goes on; ${answered} hosts have answered. Ask again: aegis_edge_fleet_list with this run_id; aegis_edge_fleet_cancel stops it.`,
    },
  ],
  structuredContent: { run_id: runId, running: true, answered },
});
