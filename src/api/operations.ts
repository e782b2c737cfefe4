/** Every operation of the API: where it is, who may do it, what it takes and gives. The server, its documents and its tests all read this. */
import type { z } from "zod";
import { runDetailSchema, runsPageSchema, runsQuerySchema } from "./runs.ts";
import * as types from "./types.ts";

export interface Operation {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  /** Parameters as `:id`. */
  path: string;
  /** What the token must be good for; null = any token. */
  scope: types.Scope | null;
  summary: string;
  query?: z.ZodType;
  /** Fields of the query that may be given several times. */
  lists?: readonly string[];
  body?: z.ZodType;
  /** A schema, `events` for a stream of them, null for an empty answer. */
  answer: z.ZodType | "events" | null;
  status: 200 | 201 | 202 | 204;
  /** Whether If-Match is honoured and an ETag told. */
  versioned?: true;
}

export const operations = {
  issueEnrollmentToken: {
    ...{ method: "POST", path: "/v1/edge/enrollment-tokens", scope: "aegis.edge.enroll", status: 201 },
    summary: "Issues a one-time token that lets one host enroll",
    ...{ body: types.enrollmentTokenRequestSchema, answer: types.enrollmentTokenSchema },
  },
  listHosts: {
    ...{ method: "GET", path: "/v1/edge/hosts", scope: "aegis.edge.hosts.read", status: 200 },
    summary: "The tenant's hosts, in the order of enrollment",
    ...{ query: types.hostsQuerySchema, lists: ["tag", "label"], answer: types.hostsPageSchema },
  },
  getHost: {
    ...{ method: "GET", path: "/v1/edge/hosts/:id", scope: "aegis.edge.hosts.read", status: 200, versioned: true },
    ...{ summary: "One host, its tools and what ran on it last", answer: types.hostDetailSchema },
  },
  patchHost: {
    ...{ method: "PATCH", path: "/v1/edge/hosts/:id", scope: "aegis.edge.hosts.write", status: 200, versioned: true },
    ...{ summary: "Changes a host's display name or tags", body: types.hostPatchSchema, answer: types.hostSchema },
  },
  revokeHost: {
    ...{ method: "DELETE", path: "/v1/edge/hosts/:id", scope: "aegis.edge.hosts.write", status: 204, versioned: true },
    ...{ summary: "Revokes a host: its key and token are denied for ever and its stream is cut", answer: null },
  },
  changeHostTags: {
    ...{ method: "POST", path: "/v1/edge/hosts/:id/tags", scope: "aegis.edge.hosts.write", status: 200 },
    ...{ summary: "Adds and removes tags", body: types.tagsChangeSchema, answer: types.hostSchema },
  },
  pushHostConfig: {
    ...{ method: "POST", path: "/v1/edge/hosts/:id/config", scope: "aegis.edge.hosts.write", status: 202 },
    summary: "Pushes settings to a connected host, until its stream ends",
    ...{ body: types.pushConfigSchema, answer: types.pushedSchema },
  },
  drainHost: {
    ...{ method: "POST", path: "/v1/edge/hosts/:id/drain", scope: "aegis.edge.hosts.write", status: 202 },
    ...{ summary: "Tells a connected host to take no more calls", body: types.drainSchema, answer: types.pushedSchema },
  },
  shutdownHost: {
    ...{ method: "POST", path: "/v1/edge/hosts/:id/shutdown", scope: "aegis.edge.hosts.write", status: 202 },
    ...{ summary: "Tells a connected host's daemon to end", body: types.nothingSchema, answer: types.pushedSchema },
  },
  listGroups: {
    ...{ method: "GET", path: "/v1/edge/groups", scope: "aegis.edge.hosts.read", status: 200 },
    ...{ summary: "The tenant's groups", query: types.pageQuerySchema, answer: types.groupsPageSchema },
  },
  createGroup: {
    ...{ method: "POST", path: "/v1/edge/groups", scope: "aegis.edge.groups.write", status: 201, versioned: true },
    ...{ summary: "Makes a group", body: types.groupRequestSchema, answer: types.hostGroupSchema },
  },
  getGroup: {
    ...{ method: "GET", path: "/v1/edge/groups/:id", scope: "aegis.edge.hosts.read", status: 200, versioned: true },
    ...{ summary: "One group, by its id or name", answer: types.hostGroupSchema },
  },
  patchGroup: {
    ...{ method: "PATCH", path: "/v1/edge/groups/:id", scope: "aegis.edge.groups.write", status: 200, versioned: true },
    ...{ summary: "Changes a group", body: types.groupPatchSchema, answer: types.hostGroupSchema },
  },
  deleteGroup: {
    ...{
      method: "DELETE",
      path: "/v1/edge/groups/:id",
      scope: "aegis.edge.groups.write",
      status: 204,
      versioned: true,
    },
    ...{ summary: "Removes a group; its hosts stay", answer: null },
  },
  previewTarget: {
    ...{ method: "POST", path: "/v1/edge/fleet/preview", scope: "aegis.edge.fleet.read", status: 200 },
    summary: "Which hosts a target means now, and why others are passed over",
    ...{ body: types.previewRequestSchema, answer: types.previewSchema },
  },
  invoke: {
    ...{ method: "POST", path: "/v1/edge/fleet/invoke", scope: "aegis.edge.fleet.manage", status: 200 },
    summary: "Calls a tool on every host of a target and streams what happens; honours Idempotency-Key",
    ...{ body: types.invokeRequestSchema, answer: "events" },
  },
  cancelRun: {
    ...{ method: "POST", path: "/v1/edge/fleet/:id/cancel", scope: "aegis.edge.fleet.manage", status: 200 },
    ...{ summary: "Stops a run on every host", body: types.cancelRequestSchema, answer: types.cancelAnswerSchema },
  },
  signRun: {
    ...{ method: "POST", path: "/v1/edge/fleet/:id/proofs", scope: "aegis.edge.fleet.manage", status: 202 },
    summary: "Hands over signatures that hosts of a run wait for, after signature_needed",
    ...{ body: types.signRequestSchema, answer: types.signAnswerSchema },
  },
  listRuns: {
    ...{ method: "GET", path: "/v1/edge/fleet/runs", scope: "aegis.edge.fleet.read", status: 200 },
    ...{ summary: "The tenant's runs, the newest first", query: runsQuerySchema, answer: runsPageSchema },
  },
  getRun: {
    ...{ method: "GET", path: "/v1/edge/fleet/runs/:id", scope: "aegis.edge.fleet.read", status: 200 },
    ...{ summary: "One run and how each host fared", answer: runDetailSchema },
  },
  runEvents: {
    ...{ method: "GET", path: "/v1/edge/fleet/runs/:id/events", scope: "aegis.edge.fleet.read", status: 200 },
    ...{ summary: "A run's events from the start, or after Last-Event-ID", answer: "events" },
  },
  whoami: {
    ...{ method: "GET", path: "/v1/whoami", scope: null, status: 200 },
    ...{ summary: "What the token stands for", answer: types.whoamiSchema },
  },
  createToken: {
    ...{ method: "POST", path: "/v1/tokens", scope: "aegis.admin", status: 201 },
    summary: "Makes an operator's token, which is told this once",
    ...{ body: types.apiTokenRequestSchema, answer: types.newApiTokenSchema },
  },
  listTokens: {
    ...{ method: "GET", path: "/v1/tokens", scope: "aegis.admin", status: 200 },
    ...{ summary: "The tenant's tokens", query: types.pageQuerySchema, answer: types.apiTokensPageSchema },
  },
  revokeToken: {
    ...{ method: "DELETE", path: "/v1/tokens/:id", scope: "aegis.admin", status: 204 },
    ...{ summary: "Revokes a token at once", answer: null },
  },
  listAudit: {
    ...{ method: "GET", path: "/v1/audit", scope: "aegis.admin", status: 200 },
    summary: "What happened in the tenant, oldest first; rows of the chain that are others' are left out",
    ...{ query: types.auditQuerySchema, answer: types.auditPageSchema },
  },
  listTenants: {
    ...{ method: "GET", path: "/v1/tenants", scope: "aegis.admin", status: 200 },
    ...{
      summary: "The tenants this token can see: its own",
      query: types.pageQuerySchema,
      answer: types.tenantsPageSchema,
    },
  },
  removeTenant: {
    ...{ method: "DELETE", path: "/v1/tenants/:id", scope: "aegis.admin", status: 204 },
    ...{ summary: "Removes the tenant: its hosts and tokens are revoked, its name is not given again", answer: null },
  },
} as const satisfies Record<string, Operation>;

export type OperationName = keyof typeof operations;
type Of<N extends OperationName> = (typeof operations)[N];

export type BodyOf<N extends OperationName> =
  Of<N> extends { body: infer B extends z.ZodType } ? z.output<B> : undefined;
export type QueryOf<N extends OperationName> =
  Of<N> extends { query: infer Q extends z.ZodType } ? z.output<Q> : undefined;
export type AnswerOf<N extends OperationName> = Of<N>["answer"] extends z.ZodType
  ? z.input<Of<N>["answer"]>
  : Of<N>["answer"];
