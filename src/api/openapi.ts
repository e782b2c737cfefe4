/** The API's own description, OpenAPI 3.1, made from the schemas that judge every request. */
import { z } from "zod";
import { eventSchemas } from "./events.ts";
import { type Operation, operations } from "./operations.ts";
import { runDetailSchema, runSchema } from "./runs.ts";
import { selectorSchema, targetSchema } from "./target.ts";
import * as types from "./types.ts";

type Json = Record<string, unknown>;

/** Schemas that the document names; others stand where they are used. */
const named: Readonly<Record<string, z.ZodType>> = {
  Target: targetSchema,
  Selector: selectorSchema,
  Error: types.errorBodySchema,
  EnrollmentTokenRequest: types.enrollmentTokenRequestSchema,
  EnrollmentToken: types.enrollmentTokenSchema,
  Host: types.hostSchema,
  HostDetail: types.hostDetailSchema,
  HostPatch: types.hostPatchSchema,
  Group: types.hostGroupSchema,
  GroupRequest: types.groupRequestSchema,
  GroupPatch: types.groupPatchSchema,
  Preview: types.previewSchema,
  RunPolicy: types.runPolicySchema,
  InvokeRequest: types.invokeRequestSchema,
  Run: runSchema,
  RunDetail: runDetailSchema,
  ApiTokenRequest: types.apiTokenRequestSchema,
  ApiToken: types.apiTokenSchema,
  AuditRow: types.auditRowSchema,
  Tenant: types.tenantSchema,
  Whoami: types.whoamiSchema,
  ...Object.fromEntries(Object.entries(eventSchemas).map(([name, schema]) => [`event_${name}`, schema])),
};

const refTo = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });

export function openApiDocument({ version }: { version: string }): Json {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id });
  const uri = (id: string) => `#/components/schemas/${id}`;
  const { schemas } = z.toJSONSchema(registry, { uri, io: "input" });
  const components = Object.fromEntries(Object.entries(schemas).map(([id, schema]) => [id, plain(schema)]));

  /** What is sent has defaults to fill in, so a request is described as it comes in. */
  const describe = (schema: z.ZodType): Json => {
    const id = registry.get(schema)?.id;
    if (id !== undefined) return refTo(id);
    return plain(z.toJSONSchema(schema, { io: "input", metadata: registry }));
  };

  const paths: Record<string, Json> = {};
  for (const [operationId, operation] of Object.entries<Operation>(operations)) {
    const path = operation.path.replace(/:(\w+)/g, "{$1}");
    paths[path] = {
      ...paths[path],
      [operation.method.toLowerCase()]: describeOperation(operationId, operation, describe),
    };
  }
  for (const [path, summary] of Object.entries(open)) {
    const answers = { 200: { description: "Done", content: json({ type: "object" }) } };
    paths[path] = {
      get: { operationId: path.slice(1).replace(/\W/g, "_"), summary, security: [], responses: answers },
    };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "aegis controller",
      version,
      description: "Times are RFC 3339 UTC with milliseconds. Unknown request fields are refused by name.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    security: [{ bearer: [] }],
    paths,
    components: {
      schemas: components,
      securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
      responses: {
        Error: { description: "Why not, and what to do", content: json(refTo("Error")) },
      },
    },
  };
}

const open = {
  "/healthz": "Whether the process answers",
  "/readyz": "Whether requests can be served",
  "/openapi.json": "This description",
};

const json = (schema: Json): Json => ({ "application/json": { schema } });

function describeOperation(operationId: string, operation: Operation, describe: (schema: z.ZodType) => Json): Json {
  const { path, scope, summary, query, body, answer, status, versioned } = operation;
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name]) =>
    parameter("path", name ?? "", { type: "string" }, true),
  );
  const fields = query ? ((describe(query).properties ?? {}) as Record<string, Json>) : {};
  const inQuery = Object.entries(fields).map(([name, schema]) => parameter("query", name, schema, false));
  const headers: Json[] = [];
  if (versioned && operation.method !== "GET" && status !== 201)
    headers.push(parameter("header", "If-Match", { type: "string" }, false));
  if (operationId === "invoke") headers.push(parameter("header", "Idempotency-Key", { type: "string" }, false));
  if (operationId === "runEvents") headers.push(parameter("header", "Last-Event-ID", { type: "integer" }, false));
  const parameters = [...inPath, ...inQuery, ...headers];
  const content =
    answer === null
      ? undefined
      : answer === "events"
        ? {
            "text/event-stream": {
              schema: { type: "string", description: `Events: ${Object.keys(eventSchemas).join(", ")}` },
            },
          }
        : json(describe(answer));
  const etag = versioned && answer !== null ? { headers: { ETag: { schema: { type: "string" } } } } : {};
  return {
    operationId,
    summary,
    description: scope === null ? "Any token will do." : `Needs the scope ${scope}.`,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body ? { requestBody: { required: true, content: json(describe(body)) } } : {}),
    responses: {
      [status]: { description: "Done", ...(content ? { content } : {}), ...etag },
      default: { $ref: "#/components/responses/Error" },
    },
  };
}

const parameter = (place: string, name: string, schema: Json, required: boolean): Json => ({
  ...{ name, in: place, required, schema },
});

/** Without what belongs to a document of its own; what has a name is found under it. */
function plain(schema: object): Json {
  const { $schema: _dialect, $id: _id, id: _name, $defs: _named, ...rest } = schema as Json;
  const text = JSON.stringify(rest).replaceAll('"$ref":"#/$defs/', '"$ref":"#/components/schemas/');
  return JSON.parse(text) as Json;
}
