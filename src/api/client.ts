/** The controller's REST API as functions: typed requests, checked answers, and a run's events as they happen. */
import type { z } from "zod";
import { AegisError } from "../errors.ts";
import type { FleetEvent, RunOutcome } from "./events.ts";
import { type ApiRequest, httpTransport, type Transport, type TransportOptions } from "./http-transport.ts";
import { readValue } from "./read.ts";
import type { RunDetail, RunRecord } from "./runs.ts";
import { parseSse } from "./sse.ts";
import type { Target } from "./target.ts";
import type {
  ApiToken,
  ApiTokenRequest,
  CancelAnswer,
  EnrollmentToken,
  EnrollmentTokenRequest,
  GroupPatch,
  GroupRequest,
  Host,
  HostDetail,
  HostGroup,
  HostPatch,
  InvokeRequest,
  NewApiToken,
  Page,
  Preview,
  PushConfig,
  SignAnswer,
  SignRequest,
  TagsChange,
  Tenant,
  Whoami,
} from "./types.ts";

export interface HostsQuery {
  tag?: readonly string[];
  /** KEY=VALUE. */
  label?: readonly string[];
  connected?: boolean;
  /** Revoked hosts too. */
  all?: boolean;
  limit?: number;
  cursor?: string;
}

export interface ApiClient {
  issueEnrollmentToken(request: EnrollmentTokenRequest): Promise<EnrollmentToken>;
  /** One page. */
  hosts(query?: HostsQuery): Promise<Page<Host>>;
  /** Every page. */
  allHosts(query?: Omit<HostsQuery, "limit" | "cursor">): Promise<Host[]>;
  /** By id, name or the start of its id, as everywhere. */
  host(node: string): Promise<HostDetail>;
  patchHost(node: string, patch: HostPatch): Promise<Host>;
  changeTags(node: string, change: TagsChange): Promise<Host>;
  revokeHost(node: string): Promise<void>;
  pushConfig(node: string, config: PushConfig): Promise<void>;
  drain(node: string, finishWithinMs?: number): Promise<void>;
  shutdown(node: string): Promise<void>;

  /** Every group. */
  groups(): Promise<HostGroup[]>;
  group(idOrName: string): Promise<HostGroup>;
  createGroup(request: GroupRequest): Promise<HostGroup>;
  /** `change` gets the group as it is and says what to change; it is asked again when somebody was faster. */
  changeGroup(idOrName: string, change: (group: HostGroup) => GroupPatch): Promise<HostGroup>;
  removeGroup(idOrName: string): Promise<void>;

  preview(target: Target): Promise<Preview>;
  /**
   * The events of a new run, up to its `fleet_result`. A connection that breaks is taken up where it broke. An abort of
   * `signal` ends the reading; the run goes on unless it was asked for with `abort_on_disconnect`.
   */
  invoke(request: InvokeRequest, options: { signal: AbortSignal; idempotencyKey?: string }): AsyncIterable<FleetEvent>;
  /** Events of a run after number `after` (default 0), up to its `fleet_result`. */
  events(runId: string, options: { signal: AbortSignal; after?: number }): AsyncIterable<FleetEvent>;
  cancel(runId: string, reason?: string): Promise<CancelAnswer>;
  /** Answers `signature_needed`. */
  sign(runId: string, request: SignRequest): Promise<SignAnswer>;
  /** One page, the newest first. */
  runs(query?: { tool?: string; outcome?: RunOutcome; limit?: number; cursor?: string }): Promise<Page<RunRecord>>;
  run(runId: string): Promise<RunDetail>;

  createToken(request: ApiTokenRequest): Promise<NewApiToken>;
  /** Every token of the tenant. */
  tokens(): Promise<ApiToken[]>;
  revokeToken(tokenId: string): Promise<void>;
  tenants(): Promise<Tenant[]>;
  removeTenant(tenantId: string): Promise<void>;
  whoami(): Promise<Whoami>;
}

const edge = "/v1/edge";
/** How often in a row a broken event stream is taken up again without anything new. */
const maxResumptions = 3;
/** How often a change is tried while others change the same thing. */
const maxChanges = 5;

async function everyPage<T>(page: (query: { limit: number; cursor?: string }) => Promise<Page<T>>): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const { items: more, next_cursor }: Page<T> = await page({ limit: 200, ...(cursor ? { cursor } : {}) });
    items.push(...more);
    cursor = next_cursor;
  } while (cursor !== null);
  return items;
}

/** Schemas by name, made when the first answer that needs them is read: a run is followed without them. */
const schemas = async () => ({ ...(await import("./types.ts")), ...(await import("./runs.ts")) });
type Schemas = Awaited<ReturnType<typeof schemas>>;
type SchemaName = { [N in keyof Schemas]: Schemas[N] extends z.ZodType ? N : never }[keyof Schemas];
type Answer<N extends SchemaName> = z.output<Schemas[N]>;

export function createApiClient(options: TransportOptions): ApiClient {
  const transport = httpTransport(options);
  const named = async <N extends SchemaName>(name: N) => (await schemas())[name] as unknown as z.ZodType<Answer<N>>;
  const read = async <N extends SchemaName>(name: N, request: ApiRequest): Promise<Answer<N>> => {
    const response = await transport.send(request);
    return transport.body(await named(name), response);
  };
  const id = encodeURIComponent;
  const host = (node: string) => `${edge}/hosts/${id(node)}`;
  const group = (idOrName: string) => `${edge}/groups/${id(idOrName)}`;
  /** For answers that say nothing more. */
  const done = async (request: ApiRequest): Promise<void> => {
    const response = await transport.send(request);
    await response.body?.cancel();
  };

  const eventsAfter = (runId: string, after: number, signal: AbortSignal): ApiRequest => ({
    path: `${edge}/fleet/runs/${id(runId)}/events`,
    headers: { "last-event-id": String(after) },
    signal,
  });

  const client: ApiClient = {
    issueEnrollmentToken: (body) =>
      read("enrollmentTokenSchema", { method: "POST", path: `${edge}/enrollment-tokens`, body }),
    hosts: (query = {}) => read("hostsPageSchema", { path: `${edge}/hosts`, query: { ...query } }),
    allHosts: (query = {}) => everyPage(({ ...page }) => client.hosts({ ...query, ...page })),
    host: (node) => read("hostDetailSchema", { path: host(node) }),
    patchHost: (node, body) => read("hostSchema", { method: "PATCH", path: host(node), body }),
    changeTags: (node, body) => read("hostSchema", { method: "POST", path: `${host(node)}/tags`, body }),
    revokeHost: (node) => done({ method: "DELETE", path: host(node) }),
    pushConfig: (node, body) => done({ method: "POST", path: `${host(node)}/config`, body }),
    drain: (node, finishWithinMs) =>
      done({
        method: "POST",
        path: `${host(node)}/drain`,
        body: finishWithinMs === undefined ? {} : { finish_within_ms: finishWithinMs },
      }),
    shutdown: (node) => done({ method: "POST", path: `${host(node)}/shutdown`, body: {} }),

    groups: () => everyPage((query) => read("groupsPageSchema", { path: `${edge}/groups`, query })),
    group: (idOrName) => read("hostGroupSchema", { path: group(idOrName) }),
    createGroup: (body) => read("hostGroupSchema", { method: "POST", path: `${edge}/groups`, body }),
    async changeGroup(idOrName, change) {
      for (let attempt = 1; ; attempt++) {
        const response = await transport.send({ path: group(idOrName) });
        const etag = response.headers.get("etag");
        const current = await transport.body(await named("hostGroupSchema"), response);
        try {
          return await read("hostGroupSchema", {
            method: "PATCH",
            path: group(current.id),
            body: change(current),
            ...(etag ? { headers: { "if-match": etag } } : {}),
          });
        } catch (thrown) {
          if (AegisError.from(thrown).code !== "precondition_failed" || attempt >= maxChanges) throw thrown;
        }
      }
    },
    removeGroup: (idOrName) => done({ method: "DELETE", path: group(idOrName) }),

    preview: (target) => read("previewSchema", { method: "POST", path: `${edge}/fleet/preview`, body: { target } }),
    invoke(body, { signal, idempotencyKey = crypto.randomUUID() }) {
      const request: ApiRequest = {
        method: "POST",
        path: `${edge}/fleet/invoke`,
        body,
        headers: { "idempotency-key": idempotencyKey },
        signal,
      };
      return follow(transport, request, (runId, after) => eventsAfter(runId, after, signal), null);
    },
    events: (runId, { signal, after = 0 }) =>
      follow(transport, eventsAfter(runId, after, signal), (_, last) => eventsAfter(runId, last, signal), {
        runId,
        last: after,
      }),
    cancel: (runId, reason) =>
      read("cancelAnswerSchema", {
        method: "POST",
        path: `${edge}/fleet/${id(runId)}/cancel`,
        body: reason === undefined ? {} : { reason },
      }),
    sign: (runId, body) =>
      read("signAnswerSchema", { method: "POST", path: `${edge}/fleet/${id(runId)}/proofs`, body }),
    runs: (query = {}) => read("runsPageSchema", { path: `${edge}/fleet/runs`, query }),
    run: (runId) => read("runDetailSchema", { path: `${edge}/fleet/runs/${id(runId)}` }),

    createToken: (body) => read("newApiTokenSchema", { method: "POST", path: "/v1/tokens", body }),
    tokens: () => everyPage((query) => read("apiTokensPageSchema", { path: "/v1/tokens", query })),
    revokeToken: (tokenId) => done({ method: "DELETE", path: `/v1/tokens/${id(tokenId)}` }),
    tenants: () => everyPage((query) => read("tenantsPageSchema", { path: "/v1/tenants", query })),
    removeTenant: (tenantId) => done({ method: "DELETE", path: `/v1/tenants/${id(tenantId)}` }),
    whoami: () => read("whoamiSchema", { path: "/v1/whoami" }),
  };
  return client;
}

/** Reads events until the run's end, over as many connections as it takes. */
async function* follow(
  transport: Transport,
  first: ApiRequest,
  again: (runId: string, after: number) => ApiRequest,
  known: { runId: string; last: number } | null,
): AsyncGenerator<FleetEvent> {
  let at = known;
  let request = first;
  const told = new Set<string>();
  for (let fruitless = 0; ; fruitless++) {
    const before = at?.last;
    let broken: unknown;
    try {
      // The schemas are made while the controller works.
      const [response, kinds] = await Promise.all([transport.send(request), import("./events.ts")]);
      for await (const event of readEvents(response, kinds)) {
        if (at && event.id <= at.last) continue;
        const once = onceOf(event);
        if (once !== null && told.has(once)) continue;
        if (once !== null) told.add(once);
        at = { runId: at?.runId ?? runIdOf(event), last: event.id };
        yield event;
        if (event.event === "fleet_result") return;
      }
    } catch (thrown) {
      if (request.signal?.aborted) throw new AegisError("cancelled", "cancelled", { cause: thrown });
      // What the server refused it would refuse again; before the first event nothing is known to take up.
      if (thrown instanceof AegisError && thrown.code !== "unavailable") throw thrown;
      if (!at) throw thrown;
      broken = thrown;
    }
    if (at && at.last !== before) fruitless = 0;
    if (!at || fruitless >= maxResumptions)
      throw new AegisError("unavailable", "the controller's event stream broke before the run ended", {
        cause: broken,
        hint: at ? `the run goes on: aegis edge fleet show ${at.runId}` : "ask again",
      });
    request = again(at.runId, at.last);
  }
}

/** What comes once in a run: a run that is told from the store again has numbers of its own. */
function onceOf({ event, data }: FleetEvent): string | null {
  switch (event) {
    case "started":
    case "fleet_result":
      return event;
    case "node_started":
    case "command_result":
      return `${event} ${data.node_id}`;
    default:
      return null;
  }
}

async function* readEvents(
  response: Response,
  { eventSchemas, isEventName }: Pick<typeof import("./events.ts"), "eventSchemas" | "isEventName">,
): AsyncGenerator<FleetEvent> {
  if (!response.body) throw new AegisError("unavailable", "the controller answered without a body");
  for await (const { id, event, data } of parseSse(response.body)) {
    // A newer controller may tell more than this client knows.
    if (!isEventName(event)) continue;
    const reading = readValue<unknown>(eventSchemas[event], parsed(data));
    if (reading.kind === "problems")
      throw new AegisError(
        "internal",
        `the controller's event ${event} cannot be read: ${reading.problems[0]?.message}`,
      );
    yield { id: Number(id), event, data: reading.value } as FleetEvent;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function runIdOf(event: FleetEvent): string {
  if (event.event === "started") return event.data.run_id;
  throw new AegisError("internal", `a run began with the event ${event.event}`);
}
