/** Joins an operation of the API with the function that does it: scope, query and body are judged before it is called. */
import type { Hono } from "hono";
import type { z } from "zod";
import {
  type AnswerOf,
  type BodyOf,
  type Operation,
  type OperationName,
  operations,
  type QueryOf,
} from "../../api/operations.ts";
import { AegisError } from "../../errors.ts";
import { type Authenticated, requireScope } from "./auth.ts";
import { type HttpContext, type HttpEnv, readJson, readQuery } from "./request.ts";

export interface Given<N extends OperationName> {
  c: HttpContext;
  principal: Authenticated;
  tenantId: string;
  /** The path's `:id`. */
  id: string;
  query: QueryOf<N>;
  body: BodyOf<N>;
  /** The body as it came. */
  text: string;
  /** If-Match, as quoted tags; null when it was not sent. */
  ifMatch: readonly string[] | null;
}

/** What a handler gives: the answer itself, or a response of its own. */
export type Handler<N extends OperationName> = (
  given: Given<N>,
) => Promise<Response | (AnswerOf<N> extends object | null ? AnswerOf<N> : never)>;

export type Routes = Hono<HttpEnv>;

export function route<N extends OperationName>(app: Routes, name: N, handler: Handler<N>): void {
  const operation: Operation = operations[name];
  app.on(operation.method, operation.path, async (c) => {
    const { principal } = c.var;
    if (operation.scope !== null) requireScope(principal, operation.scope);
    const query = operation.query ? readQuery(c, operation.query, operation.lists) : undefined;
    const { value: body, text } = operation.body
      ? await readJson(c, operation.body as z.ZodType<unknown>)
      : { value: undefined, text: "" };
    const answer = await handler({
      ...{ c, principal, tenantId: principal.tenantId, id: c.req.param("id") ?? "", text },
      ...{ query: query as QueryOf<N>, body: body as BodyOf<N>, ifMatch: readIfMatch(c.req.header("if-match")) },
    });
    if (answer instanceof Response) return answer;
    return answer === null ? c.body(null, 204) : c.json(answer as object, operation.status as 200);
  });
}

function readIfMatch(header: string | undefined): readonly string[] | null {
  return header === undefined ? null : header.split(",").map((tag) => tag.trim());
}

/** Throws `precondition_failed` unless one of the tags the caller has seen is `current`, or no tag was asked for. */
export function requireMatch(ifMatch: readonly string[] | null, current: string, what: string): void {
  if (ifMatch === null || ifMatch.includes("*") || ifMatch.includes(current)) return;
  throw new AegisError(
    "precondition_failed",
    `${what} has changed since: its ETag is ${current}, and If-Match names ${ifMatch.join(", ")}`,
    {
      hint: "get it again, and repeat the change on what it is now",
    },
  );
}
