/** The controller's REST API as functions: typed requests, checked answers, and a run's events as they happen. */
import { AegisError } from "../errors.ts";
import { eventSchemas, type FleetEvent, isEventName } from "./events.ts";
import { type ApiRequest, httpTransport, type Transport, type TransportOptions } from "./http-transport.ts";
import { readValue } from "./read.ts";
import { parseSse } from "./sse.ts";
import type { Target } from "./target.ts";
import {
  type CancelAnswer,
  cancelAnswerSchema,
  type EnrollmentToken,
  type EnrollmentTokenRequest,
  enrollmentTokenSchema,
  type Host,
  type HostDetail,
  hostDetailSchema,
  hostsPageSchema,
  type InvokeRequest,
  type Page,
  type Preview,
  previewSchema,
  type Whoami,
  whoamiSchema,
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
  host(nodeId: string): Promise<HostDetail>;
  preview(target: Target): Promise<Preview>;
  /**
   * The events of a new run, up to its `fleet_result`. A connection that breaks is taken up where it broke. An abort of
   * `signal` ends the reading; the run goes on unless it was asked for with `abort_on_disconnect`.
   */
  invoke(request: InvokeRequest, options: { signal: AbortSignal; idempotencyKey?: string }): AsyncIterable<FleetEvent>;
  /** Events of a run after number `after` (default 0), up to its `fleet_result`. */
  events(runId: string, options: { signal: AbortSignal; after?: number }): AsyncIterable<FleetEvent>;
  cancel(runId: string, reason?: string): Promise<CancelAnswer>;
  whoami(): Promise<Whoami>;
}

const edge = "/v1/edge";
/** How often in a row a broken event stream is taken up again without anything new. */
const maxResumptions = 3;

export function createApiClient(options: TransportOptions): ApiClient {
  const transport = httpTransport(options);
  const { read } = transport;
  const id = encodeURIComponent;

  const eventsAfter = (runId: string, after: number, signal: AbortSignal): ApiRequest => ({
    path: `${edge}/fleet/runs/${id(runId)}/events`,
    headers: { "last-event-id": String(after) },
    signal,
  });

  const client: ApiClient = {
    issueEnrollmentToken: (body) =>
      read(enrollmentTokenSchema, { method: "POST", path: `${edge}/enrollment-tokens`, body }),
    hosts: (query = {}) => read(hostsPageSchema, { path: `${edge}/hosts`, query: { ...query } }),
    async allHosts(query = {}) {
      const hosts: Host[] = [];
      let cursor: string | null = null;
      do {
        const page: Page<Host> = await client.hosts({ ...query, limit: 200, ...(cursor ? { cursor } : {}) });
        hosts.push(...page.items);
        cursor = page.next_cursor;
      } while (cursor !== null);
      return hosts;
    },
    host: (nodeId) => read(hostDetailSchema, { path: `${edge}/hosts/${id(nodeId)}` }),
    preview: (target) => read(previewSchema, { method: "POST", path: `${edge}/fleet/preview`, body: { target } }),
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
      read(cancelAnswerSchema, {
        method: "POST",
        path: `${edge}/fleet/${id(runId)}/cancel`,
        body: reason === undefined ? {} : { reason },
      }),
    whoami: () => read(whoamiSchema, { path: "/v1/whoami" }),
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
  for (let fruitless = 0; ; fruitless++) {
    const before = at?.last;
    let broken: unknown;
    try {
      const response = await transport.send(request);
      for await (const event of readEvents(response)) {
        if (at && event.id <= at.last) continue;
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

async function* readEvents(response: Response): AsyncGenerator<FleetEvent> {
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
